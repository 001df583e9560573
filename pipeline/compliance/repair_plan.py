"""What a verification found that can be brought back to the ledger, and what cannot.

Only stores that follow the ledger are repaired. A log whose leaves or head are in doubt is left alone,
and so is a leaf whose event is: there is nothing to bring a store back to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.compliance.findings import PLACES_MAX, ROLLED_BACK, Finding, Kind, Store

_WRITTEN: Final = (Kind.MISSING, Kind.CHANGED, Kind.REORDERED)
_DOUBT: Final = (Store.LEAVES, Store.HEADS)


@dataclass(slots=True)
class LogPlan:
    """Of one log: leaves to index again, ranges to archive again (first leaf → the one after the last),
    vault objects to write again (by their first leaf).
    """

    index: set[int] = field(default_factory=set)
    archive: dict[int, int] = field(default_factory=dict)
    vault: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)
    in_doubt: str = ""  # why the whole log is left alone


@dataclass(slots=True)
class RepairPlan:
    """Filled while a verification runs; bounded by ``PLACES_MAX``: ``full`` says that there is more.

    ``remove``: documents, as ``<index>/<id>``, by the log that they say they are of, each with its leaf.
    """

    logs: dict[str, LogPlan] = field(default_factory=dict)
    remove: dict[str, dict[str, int | None]] = field(default_factory=dict)
    beyond_repair: list[Finding] = field(default_factory=list)
    places: int = 0
    full: bool = False

    def note(self, finding: Finding) -> None:
        """Take a finding into the plan."""
        if self.places >= PLACES_MAX:
            self.full = True
            return
        self.places += 1
        plan = self.logs.setdefault(finding.log, LogPlan())
        if finding.store is Store.INDEX:
            self._index(plan, finding)
        elif finding.store is Store.ARCHIVE and finding.kind is Kind.MISSING and _range(finding):
            first, end = _range(finding) or (0, 0)
            plan.archive[first] = end
        elif finding.store is Store.VAULT and finding.leaf is not None:
            plan.vault.add(finding.leaf)
        else:
            self.beyond_repair.append(finding)
            if finding.store is Store.LEDGER and finding.leaf is not None:
                plan.doubtful.add(finding.leaf)
            if finding.store in _DOUBT or _rolled_back(finding):
                plan.in_doubt = plan.in_doubt or f"{finding.store}: {finding.what}"

    def settle(self) -> None:
        """Leave out what must not be repaired; after the verification."""
        for log, plan in self.logs.items():
            for first, end in list(plan.archive.items()):
                if any(first <= leaf < end for leaf in plan.doubtful):
                    plan.in_doubt = plan.in_doubt or f"events of the leaves {first} to {end - 1}"
            plan.index -= plan.doubtful
            plan.vault -= plan.doubtful
            removed = self.remove.get(log, {})
            for place, leaf in list(removed.items()):
                if leaf in plan.doubtful:
                    del removed[place]
            if plan.in_doubt:
                plan.index.clear()
                plan.archive.clear()
                plan.vault.clear()
                removed.clear()
        self.remove = {log: places for log, places in self.remove.items() if places}
        self.beyond_repair = [one for one in self.beyond_repair if not self._comes_back(one)]

    def _comes_back(self, finding: Finding) -> bool:
        """Whether it is about blobs of a range that will be archived again."""
        if finding.store is not Store.VAULT or finding.place is None:
            return False
        first = finding.place.rpartition("/")[2].removesuffix(".avro")
        ranges = self.logs[finding.log].archive.items()
        return first.isdecimal() and any(start <= int(first) < end for start, end in ranges)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.remove and not any(
            plan.index or plan.archive or plan.vault for plan in self.logs.values()
        )

    def rows(self) -> list[Mapping[str, str | int]]:
        """What would be done, for output."""
        found: list[Mapping[str, str | int]] = []
        for log, plan in sorted(self.logs.items()):
            archived = sum(end - first for first, end in plan.archive.items())
            for store, leaves in (
                (Store.INDEX, len(plan.index)),
                (Store.ARCHIVE, archived),
                (Store.VAULT, len(plan.vault)),
            ):
                if leaves:
                    what = (
                        "objects written again" if store is Store.VAULT else "leaves written again"
                    )
                    found.append({"store": store.value, "log": log, "count": leaves, "what": what})
        found += [
            {
                "store": Store.INDEX.value,
                "log": log,
                "count": len(places),
                "what": "documents removed",
            }
            for log, places in sorted(self.remove.items())
        ]
        return found

    def _index(self, plan: LogPlan, finding: Finding) -> None:
        if finding.kind in _WRITTEN and finding.leaf is not None:
            plan.index.add(finding.leaf)
        if finding.kind is not Kind.MISSING and finding.place:
            self.remove.setdefault(finding.log, {})[finding.place] = finding.leaf


def _range(finding: Finding) -> tuple[int, int] | None:
    first, dash, last = (finding.place or "").partition("-")
    if dash and first.isdecimal() and last.isdecimal():
        return int(first), int(last) + 1
    return None


def _rolled_back(finding: Finding) -> bool:
    """Leaves that the archive has, or somebody signed, and the ledger has not."""
    return finding.store is Store.LEDGER and finding.place == ROLLED_BACK
