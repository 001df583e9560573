"""After a database rollback: keys first, from vault and journal, then leaves from the archive.

Runs before a worker takes its first record, and again whenever a ledger turns out to be behind what
this group has committed. Where nothing was lost it finds nothing and costs two small requests; where
nothing shows that something was, a store that does not answer is asked once for all logs, and for
``patience_s`` at most: it must not keep intake waiting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from pipeline.domain.errors import Unavailable
from pipeline.domain.escrow import EscrowEntry
from pipeline.domain.records import LogHead
from pipeline.logging import log_event
from sinks.archive_reader import ArchiveReader
from sinks.ledger import PostgresLedger
from sinks.restore import TenantStore, restore_keys, restore_log
from sinks.vault import Vault

log = logging.getLogger(__name__)

JOURNAL_READER = "key-journal"  # its marker stands among the followers' positions
NO_LOG = 0

ReadJournal = Callable[[int], AsyncIterator[tuple[int, list[EscrowEntry]]]]


class RecoveredKeys(TenantStore, Protocol):
    """``sinks.subject_store.SubjectStore``."""

    async def newest_escrow(self) -> str | None: ...


class Recovery:
    """Brings back what a rolled-back database lost. Safe to run at any time, by any worker."""

    def __init__(
        self,
        ledger: PostgresLedger,
        keys: RecoveredKeys,
        archive: ArchiveReader,
        vault: Vault,
        read_journal: ReadJournal,
        forget_keys: Callable[[], None],
        *,
        patience_s: float = 3.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._archive = archive
        self._vault = vault
        self._read_journal = read_journal
        self._forget_keys = forget_keys
        self._patience_s = patience_s
        self._monotonic = monotonic
        self._turn = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._archive_is_there = False
        self._known_until = float("-inf")
        self._begun = 0  # how often keys were looked for
        self._done = 0  # the newest time that it went through to the end,
        self._thorough = 0  # and that the vault was waited for, and keys in memory dropped

    async def recover(self, head: LogHead, *, rolled_back: bool) -> LogHead:
        """The head once keys and the log's archived leaves are in the database again.

        ``rolled_back``: there is evidence that leaves were lost; then the archive is waited for.

        Raises:
            ChainBroken: Archive and ledger contradict each other.
            Unavailable: Try again later.
        """
        with_archive = rolled_back or await self._archive_answers()
        # Every log of a worker finds the same rollback, in the same moment: a search for keys that
        # begins after this call is as good as one of its own [1.5 to 2 s each, measured].
        wanted = self._begun + 1 if rolled_back else 1
        async with self._turn:
            if (self._thorough if rolled_back else self._done) < wanted:
                self._begun += 1
                this = self._begun
                await self._recover_keys(with_vault=with_archive, wait_for_vault=rolled_back)
                if rolled_back:
                    # A key that was made for a person since the rollback is not the one that leaves
                    # which are read again were sealed with: the restored one is the newest again.
                    self._forget_keys()
                    self._thorough = this
                self._done = this
        if not with_archive:
            return head
        try:
            restored = await restore_log(self._ledger, self._archive, head)
        except Unavailable as outage:
            if rolled_back or outage.what != "s3":
                raise
            self._archive_is_there = False
            return head
        if restored.size != head.size:
            log_event(log, "leaves_restored", log=str(head.name), leaves=restored.size - head.size)
        return restored

    async def _archive_answers(self) -> bool:
        """Whether the archive can be asked; itself asked once for all that want to know now."""
        async with self._asking:
            if self._monotonic() >= self._known_until:
                try:
                    await asyncio.wait_for(self._archive.answers(), self._patience_s)
                    self._archive_is_there = True
                except (TimeoutError, Unavailable) as outage:
                    self._archive_is_there = False
                    log_event(log, "archive_not_asked", level=logging.WARNING, error=outage)
                self._known_until = self._monotonic() + self._patience_s
            return self._archive_is_there

    async def _recover_keys(self, *, with_vault: bool, wait_for_vault: bool) -> None:
        found = 0
        try:
            if with_vault:
                newest = await self._keys.newest_escrow()
                found = await restore_keys(self._vault, self._keys, after=newest)
        except Unavailable as outage:
            if wait_for_vault or outage.what != "s3":
                raise
        marker = await self._ledger.position(JOURNAL_READER, NO_LOG)
        position = marker
        async for position, entries in self._read_journal(marker):  # noqa: B007 - the last one counts
            found += await self._keys.restore(entries)
        if position > marker:
            await self._ledger.advance(JOURNAL_READER, {NO_LOG: position})
        if found:
            log_event(log, "keys_restored", keys=found)
