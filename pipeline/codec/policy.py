"""Who owns each value of an event: sealed by default, clear only where this repository says so.

A leaf is clear only if a schema *reviewed here* marks its path ``"pii": "none"`` with the same
kind of type. A producer's own marks can seal (to another owner), never open; a path that nobody
marked belongs to the actor. So a careless ``email`` field of a new version is never clear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

NONE = "none"
ACTOR = "actor"
TARGET = "target"
SUBJECT = "subject"
UNATTRIBUTED = "unattributed"
OWNERS = (ACTOR, TARGET, SUBJECT, UNATTRIBUTED)
_CLEAR = ("scalar", NONE)
_TRIPLE = {"tenant", "id_type", "id"}


@dataclass(frozen=True, slots=True)
class SealingPolicy:
    """Marks of one family's reviewed schema: path pattern (``targets.*.id``) → (kind, mark).

    ``kind`` is ``scalar``, ``array`` (of anything but records) or ``map``.
    """

    marks: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, leaves: Iterable[tuple[str, str, str]]) -> SealingPolicy:
        """From (pattern, kind, mark) triples."""
        return cls({pattern: (kind, mark) for pattern, kind, mark in leaves})

    def mark(self, pattern: str, kind: str, declared: object) -> str:
        """The owner of a leaf of a writer's schema, or ``none``; ``declared`` is its own mark."""
        reviewed = self.marks.get(pattern)
        if reviewed is not None and reviewed[0] == kind:
            return reviewed[1]
        return declared if isinstance(declared, str) and declared in OWNERS else ACTOR

    def is_party(self, pattern: str, names: AbstractSet[str]) -> bool:
        """Whether a record with fields of these names is a data subject of its own: it has the triple
        that names one, and so has the reviewed schema there, home tenant and id type in clear. A party
        that only the writer knows is values like any others: its tenant is sealed, nobody can judge it.
        """
        return (
            names >= _TRIPLE
            and f"{pattern}.id" in self.marks
            and self.marks.get(f"{pattern}.tenant") == _CLEAR
            and self.marks.get(f"{pattern}.id_type") == _CLEAR
        )
