"""Why something may be missing: the one place that is asked.

A blob, key, row or month counts as erased, redacted or expired only under a leaf of ``audit.raw.system``
that names the request and commits to the affected leaves; everything else is a finding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from pipeline.compliance.absence import Absence, Part, Problem
from pipeline.compliance.authority_load import AuthorityLoad
from pipeline.compliance.authority_reader import AuthorityReader
from pipeline.compliance.findings import Finding, Store
from pipeline.compliance.grants import Expired, Grants

ERASED: Final = "erased"
REDACTED: Final = "redacted"
EXPIRED: Final = "expired"

# What goes with its month. Leaves and archive objects stay: nothing gives authority for those.
_OF_MONTH: Final = (Part.EVENT, Part.BLOB, Part.DOCUMENT)

Authority = tuple[str, UUID]  # how, and under which request


@dataclass(slots=True)
class Judged:
    """What became of problems. ``granted``: (how, request, part) → how many; ``doubtful``: leaves whose
    event, blob, value or key the ledger lacks for no reason; ``expired``: leaves without an event by right.
    """

    findings: list[Finding] = field(default_factory=list)
    granted: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    doubtful: set[int] = field(default_factory=set)
    expired: set[int] = field(default_factory=set)

    def join(self, other: Judged) -> None:
        """Take what became of others, too."""
        self.findings += other.findings
        self.granted += other.granted
        self.doubtful |= other.doubtful
        self.expired |= other.expired


class Authorities:
    """What gives authority. Every call may raise ``Unavailable``."""

    def __init__(self, reader: AuthorityReader) -> None:
        self._reader = reader
        self._grants = Grants()
        self._state: tuple[int, ...] = ()
        self._keyless: set[bytes] = set()
        self.findings: list[Finding] = []

    async def load(self) -> None:
        """Read all that gives authority now; what does not, and says that it does, is in ``findings``."""
        state = await self._reader.state()  # before: what comes meanwhile is looked for again
        looked = AuthorityLoad(self._reader)
        await looked.run()
        self._grants, self.findings, self._state = looked.grants, looked.findings, state

    async def judge(self, log_id: int, problems: Sequence[Problem]) -> Judged:
        """Part what is missing by authority from what is wrong; all of one log, of neighbouring leaves."""
        judged = Judged([one for one in problems if isinstance(one, Finding)])
        absences = [one for one in problems if isinstance(one, Absence)]
        if not absences:
            return judged
        given = await self._authorities(log_id, absences)
        if None in given and await self._reader.state() != self._state:
            await self.load()  # something was removed since, by authority
            given = await self._authorities(log_id, absences)
        for absence, authority in zip(absences, given, strict=True):
            if authority is not None:
                judged.granted[authority[0], str(authority[1]), absence.part.value] += 1
                if absence.part is Part.EVENT:
                    judged.expired.add(absence.leaf)
                continue
            if absence.store in (Store.LEDGER, Store.LEAVES):
                judged.doubtful.add(absence.leaf)
            if not self._is_said(absence):
                judged.findings.append(absence.finding())
        return judged

    def is_erasure(self, request_id: UUID) -> bool:
        """Whether a leaf of the trail names this erasure, as of the last ``load``."""
        return request_id in self._grants.erasures

    async def _authorities(
        self, log_id: int, absences: Sequence[Absence]
    ) -> list[Authority | None]:
        """For each, what gives it authority."""
        whole = [one for one in absences if one.part is not Part.VAULT_OBJECT]
        blobs = [blob for one in absences for blob in one.held]
        asked = [*whole, *blobs]
        classes = await self._classes(log_id, asked)
        erasures = await self._erasures(log_id, asked)
        return [
            self._of_object(one, classes)
            if one.part is Part.VAULT_OBJECT
            else self._of(one, classes, erasures)
            for one in absences
        ]

    def _of(
        self, one: Absence, classes: dict[int, UUID], erasures: dict[tuple[int, bytes], UUID]
    ) -> Authority | None:
        if one.part in _OF_MONTH and one.store is not Store.ARCHIVE:
            request = self._grants.month_of(one.log, one.leaf, one.occurred_at_us)
            if request is None and one.part is Part.BLOB:
                request = classes.get(one.leaf)
            return None if request is None else (EXPIRED, request)
        if one.part is Part.VALUE:
            request = self._grants.redaction_of(one.log, one.leaf, one.path)
            return None if request is None else (REDACTED, request)
        if one.part is Part.KEY and one.subject is not None:
            request = erasures.get((one.leaf, one.subject))
            return None if request is None else (ERASED, request)
        return None

    def _of_object(self, one: Absence, classes: dict[int, UUID]) -> Authority | None:
        """An object may be gone when every blob that it held may be."""
        given = [self._of(blob, classes, {}) for blob in one.held]
        return given[0] if given and None not in given else None

    async def _classes(self, log_id: int, absences: Sequence[Absence]) -> dict[int, UUID]:
        """Leaf → the expiry of its class, for the blobs that no month's expiry explains."""
        wanted: dict[UUID, tuple[Expired, set[int]]] = {}
        for one in absences:
            if one.part is not Part.BLOB:
                continue
            for scope in self._grants.classes_of(one.log, one.leaf, one.occurred_at_us):
                wanted.setdefault(scope.request_id, (scope, set()))[1].add(one.leaf)
        found: dict[int, UUID] = {}
        for request_id, (scope, leaves) in wanted.items():
            of_scope = await self._reader.in_scope(scope.scope, log_id, leaves)
            found |= dict.fromkeys(of_scope, request_id)
        return found

    async def _erasures(
        self, log_id: int, absences: Sequence[Absence]
    ) -> dict[tuple[int, bytes], UUID]:
        """(leaf, subject) → the erasure that destroyed the subject's key and commits to the leaf."""
        erased = self._grants.erased
        keys = [
            (one.leaf, one.subject)
            for one in absences
            if one.part is Part.KEY and one.subject is not None and one.subject in erased
        ]
        if not keys:
            return {}
        requests = {request for _leaf, ref in keys for request in erased[ref]}
        leaves = sorted({leaf for leaf, _ref in keys})
        committed = await self._reader.committed(log_id, leaves, requests)
        return {
            (leaf, ref): request
            for leaf, ref in keys
            for request in erased[ref]
            if (leaf, request) in committed
        }

    def _is_said(self, absence: Absence) -> bool:
        """A key that is gone is named once, and not with each of its subject's leaves."""
        if absence.part is not Part.KEY or absence.subject is None:
            return False
        if absence.subject in self._keyless:
            return True
        self._keyless.add(absence.subject)
        return False
