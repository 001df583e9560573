"""What a verification found: every kind counted exactly, the first of each listed.

A finding names places and ids, never a value of an event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

LISTED_PER_SORT: Final = 100  # of one kind, store and log: a dropped month must not hide the rest
LISTED_MAX: Final = 10_000
PLACES_MAX: Final = 1_000_000  # that a repair remembers; it is run again for the rest
ROLLED_BACK: Final = "end of the log"  # the place of leaves that others hold and the ledger lost


class Kind(StrEnum):
    """What is wrong. A closed set: scripts tell by it."""

    MISSING = "missing"  # is not there, and no leaf gives authority for that
    CHANGED = "changed"  # is there, and is not what was hashed, signed or stored
    ADDED = "added"  # is there, and no leaf calls for it
    REORDERED = "reordered"  # is another leaf's
    UNSIGNED = "unsigned"  # no trusted key signed it, or nobody signed for too long
    INCONSISTENT = "inconsistent"  # two statements about the same that cannot both hold


class Store(StrEnum):
    """Where it is wrong."""

    LEDGER = "ledger"  # audit_logs and audit_blobs
    LEAVES = "leaves"
    HEADS = "heads"
    INTAKE = "intake"
    ARCHIVE = "archive"
    VAULT = "vault"
    INDEX = "index"
    CHECKPOINTS = "checkpoints"
    DEAD_LETTERS = "dead-letters"
    AUTHORITY = "authority"  # orders and erasures, and the leaves that they need


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. ``leaf`` and ``event_id`` where it is about one; ``place``: an object's
    key, a document's id, an offset range.
    """

    kind: Kind
    store: Store
    log: str
    what: str
    leaf: int | None = None
    event_id: str | None = None
    place: str | None = None

    def row(self) -> dict[str, Any]:
        """For output."""
        return asdict(self)


@dataclass(slots=True)
class Findings:
    """Counts are exact; at most ``LISTED_PER_SORT`` of a sort and ``LISTED_MAX`` in all are listed. What is
    listed is not counted a second time: an object that was half verified is read again on resuming.
    """

    listed: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # kind, store, log
    on_add: Callable[[Finding], None] | None = None  # is told of every one, listed or not
    # What is missing by authority, which is no finding: how (erased, redacted, expired), under which
    # request, and what part.
    granted: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _known: set[Finding] = field(default_factory=set)

    def add(self, finding: Finding) -> None:
        """Note one."""
        if finding in self._known:
            return
        if self.on_add is not None:
            self.on_add(finding)
        sort = (finding.kind.value, finding.store.value, finding.log)
        self.counts[sort] += 1
        if self.counts[sort] <= LISTED_PER_SORT and len(self.listed) < LISTED_MAX:
            self.listed.append(finding)
            self._known.add(finding)

    def add_all(self, findings: Sequence[Finding]) -> None:
        """Note several."""
        for finding in findings:
            self.add(finding)

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    def count(self, kind: Kind, store: Store | None = None) -> int:
        """How many of a kind, in one store or in all."""
        return sum(
            count
            for (found, where, _log), count in self.counts.items()
            if found == kind and (store is None or where == store)
        )

    def summary(self) -> Iterator[dict[str, Any]]:
        """For output: a row per kind, store and log."""
        for (kind, store, log), count in sorted(self.counts.items()):
            yield {"kind": kind, "store": store, "log": log, "findings": count}

    def authorities(self) -> Iterator[dict[str, Any]]:
        """For output: what is missing by authority, a row per request and part."""
        for (how, request, part), count in sorted(self.granted.items()):
            yield {"authority": how, "request_id": request, "part": part, "count": count}

    def to_state(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {
            "listed": [finding.row() for finding in self.listed],
            "counts": [[*sort, count] for sort, count in sorted(self.counts.items())],
            "granted": [[*sort, count] for sort, count in sorted(self.granted.items())],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Findings:
        """Read back what ``to_state`` gave."""
        listed = [
            Finding(**{**row, "kind": Kind(row["kind"]), "store": Store(row["store"])})
            for row in state["listed"]
        ]
        counts = Counter({(kind, store, log): int(n) for kind, store, log, n in state["counts"]})
        granted = Counter(
            {(how, request, part): int(n) for how, request, part, n in state["granted"]}
        )
        return cls(listed, counts, granted=granted, _known=set(listed))
