"""Where a log ends: what others have beyond it, what was not signed, what belongs to no leaf."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline.compliance.archive_walk import ArchiveWalk
from pipeline.compliance.authority import Authorities
from pipeline.compliance.findings import (
    LISTED_PER_SORT,
    ROLLED_BACK,
    Finding,
    Findings,
    Kind,
    Store,
)
from pipeline.compliance.trail_reader import LogState, TrailReader
from pipeline.compliance.verify_checkpoints import Checkpoints, SignedRoot
from pipeline.compliance.verify_index import DocumentCheck
from pipeline.compliance.verify_state import LogProgress
from sinks.index_reader import IndexReader

# The signer signs at least once a minute while a log grows; twice that, and time to notice.
UNSIGNED_AFTER: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a verification reads; None: that store is left out."""

    reader: TrailReader
    authorities: Authorities
    ledger: bool
    archive: ArchiveWalk | None
    index: IndexReader | None
    documents: DocumentCheck
    checkpoints: Checkpoints | None
    # After each span: how many leaves more were verified.
    on_span: Callable[[int], None]


class LogEnds:
    """The last checks of one log. Every call may raise ``Unavailable``."""

    def __init__(self, parts: Parts, log: LogProgress, findings: Findings) -> None:
        self._parts = parts
        self._log = log
        self._state: LogState = log.state
        self._name = str(log.state.name)
        self._findings = findings

    async def archive(self, archive: ArchiveWalk) -> None:
        """The archive never has leaves that the ledger lacks, unless that was rolled back."""
        end = await archive.end(self._state.name, self._state.size)
        size = await self._parts.reader.size(self._state.log_id)
        if end > size:
            what = (
                f"the archive holds the leaves {size} to {end - 1}, which the ledger does not have:"
                " was the database rolled back? `audit-trail restore` brings them back"
            )
            self._add(Kind.MISSING, Store.LEDGER, what, size, place=ROLLED_BACK)
        async for spare in archive.spare_blobs(self._state.name, archived=self._state.archived):
            self._findings.add(spare)

    async def checkpoints(
        self,
        checkpoints: Checkpoints,
        signed: SignedRoot | None,
        roots: AsyncIterator[SignedRoot],
    ) -> None:
        """What was signed beyond the log (``signed``, and what follows in ``roots``), and what is unsigned."""
        state = self._state
        # Signed since the verification began, over these leaves too.
        covered = signed is not None or self._log.signed_size >= state.size
        while signed is not None:
            size = await self._parts.reader.size(state.log_id)
            if signed.size > size:
                what = (
                    f"{signed.size} leaves were signed, the ledger has {size}: was the"
                    " database rolled back? `audit-trail restore` brings them back"
                )
                self._add(Kind.MISSING, Store.LEDGER, what, size, place=ROLLED_BACK)
                break
            signed = await anext(roots, None)
        await checkpoints.put_over(state.name, self._findings)
        if covered:
            return
        since = await self._parts.reader.stored_at(state.log_id, self._log.signed_size)
        if since is not None and datetime.now(UTC) - since > UNSIGNED_AFTER:
            what = (
                f"nobody has signed the leaves from {self._log.signed_size} on, the first of them"
                f" stored at {since:%Y-%m-%dT%H:%M:%SZ}: does the signer run?"
            )
            self._add(Kind.UNSIGNED, Store.CHECKPOINTS, what, self._log.signed_size)

    async def rows(self) -> None:
        """Rows of leaves that the log does not have."""
        reader, log_id = self._parts.reader, self._state.log_id
        for table, store in (
            ("leaves", Store.LEAVES),
            ("audit_logs", Store.LEDGER),
            ("audit_blobs", Store.LEDGER),
        ):
            size = self._state.size
            while True:
                rows = await reader.beyond(table, log_id, size, LISTED_PER_SORT)
                newer = await reader.size(log_id)  # read afterwards: it counts every row of a leaf
                beyond = [leaf for leaf, _id in rows if not 0 <= leaf < newer]
                if beyond or newer == size or len(rows) < LISTED_PER_SORT:
                    break
                size = newer
            for leaf in beyond:
                what = f"a row of {table} beyond the log's {newer} leaves"
                self._add(Kind.ADDED, store, what, leaf)

    def _add(
        self,
        kind: Kind,
        store: Store,
        what: str,
        leaf: int | None = None,
        *,
        place: str | None = None,
    ) -> None:
        self._findings.add(Finding(kind, store, self._name, what, leaf, place=place))
