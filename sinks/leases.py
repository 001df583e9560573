"""The worker's lease on keys: what it may still use, and which erasures it has applied.

Guarantees that a worker uses no key in memory once five seconds have passed without the database having
heard from it, by the monotonic clock: so an erasure waits for workers that are alive, and one that was
stopped meanwhile finds its lease ended when it wakes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from uuid import UUID, uuid4

from pipeline.db.connection import Connection
from pipeline.domain.erasure import RedactionCommand
from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.keys.subjects import Erased
from pipeline.logging import log_event
from sinks.backoff import first_of

log = logging.getLogger(__name__)

LEASE_S: Final = 5.0
RENEW_S: Final = 1.0
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)

_CURRENT = "SELECT epoch FROM erasure_state"
_SINCE = "SELECT subject_hash, subject_ref, erased_at FROM erasures_since(%s)"
# Leases that ended long ago are of workers that are gone.
_RENEW = """
WITH gone AS (
    DELETE FROM worker_lease WHERE expires_at < now() - interval '1 day'
)
INSERT INTO worker_lease (worker_id, host, epoch, expires_at)
VALUES (%s, %s, %s, clock_timestamp() + %s * interval '1 second')
ON CONFLICT (worker_id) DO UPDATE SET epoch = excluded.epoch, expires_at = excluded.expires_at
"""
_ERASED_AT = """
SELECT erased_at FROM redaction_request
WHERE request_id = %s AND epoch IS NOT NULL AND subject_hashes @> %s AND subject_hashes <@ %s
"""
_LOST = """
SELECT command.request_id FROM unnest(%s::uuid[], %s::boolean[]) AS command (request_id, erased)
LEFT JOIN redaction_request AS held USING (request_id)
WHERE held.request_id IS NULL OR (command.erased AND held.epoch IS NULL)
ORDER BY command.request_id
"""
_END = "DELETE FROM worker_lease WHERE worker_id = %s"

Apply = Callable[[Sequence[Erased]], None]


class LeaseStore(Protocol):
    """Where leases stand: PostgreSQL."""

    async def current_epoch(self) -> int:
        """``erasure_state.epoch``. Raises ``Unavailable``."""
        ...

    async def erasures_since(self, epoch: int) -> Sequence[Erased]:
        """Subjects that were erased after that epoch. Raises ``Unavailable``."""
        ...

    async def renew(self, worker: UUID, epoch: int, lease_s: float) -> None:
        """From now on for ``lease_s``, by the database's clock. Raises ``Unavailable``."""
        ...

    async def end(self, worker: UUID) -> None:
        """The worker holds no key any more. Raises ``Unavailable``."""
        ...


class PostgresLeases:
    """``LeaseStore`` over a connection of its own: nothing that waits for a lock delays it."""

    def __init__(self, url: str, *, timeout_s: float = LEASE_S) -> None:
        self._connection = Connection(url, name="lease", timeout_s=timeout_s)
        self._host = socket.gethostname()

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def current_epoch(self) -> int:
        async with self._connection.session() as connection:
            cursor = await connection.execute(_CURRENT)
            row = await cursor.fetchone()
        if row is None:
            raise ConfigurationError("erasure_state has no row; run: audit-trail migrate")
        return int(row[0])

    async def erasures_since(self, epoch: int) -> Sequence[Erased]:
        async with self._connection.session() as connection:
            cursor = await connection.cursor(binary=True).execute(_SINCE, [epoch])
            return [
                Erased(subject_hash, ref.bytes, (erased_at - _EPOCH_START) // _US)
                for subject_hash, ref, erased_at in await cursor.fetchall()
            ]

    async def erased_at_us(self, command: RedactionCommand) -> int | None:
        """When a command was carried out; None: the database does not show that it was, for just these
        subjects. Raises ``Unavailable``.
        """
        hashes = list(command.subject_hashes)
        async with self._connection.session() as connection:
            cursor = await connection.execute(_ERASED_AT, [command.request_id, hashes, hashes])
            row = await cursor.fetchone()
        return None if row is None else (row[0] - _EPOCH_START) // _US

    async def lost_erasures(self, commands: Sequence[RedactionCommand]) -> list[UUID]:
        """The requests, of these commands, that the database does not show: it was restored from before
        them. One that was only ordered need not be carried out yet. Raises ``Unavailable``.
        """
        ids = [command.request_id for command in commands]
        erased = [command.erased_at_us is not None for command in commands]
        async with self._connection.session() as connection:
            cursor = await connection.execute(_LOST, [ids, erased])
            return [request for (request,) in await cursor.fetchall()]

    async def renew(self, worker: UUID, epoch: int, lease_s: float) -> None:
        async with self._connection.session() as connection:
            await connection.execute(_RENEW, [worker, self._host, epoch, lease_s])

    async def end(self, worker: UUID) -> None:
        async with self._connection.session() as connection:
            await connection.execute(_END, [worker])


class Lease:
    """One worker's lease. ``run`` is its only task; everything else is asked on the same event loop.

    ``apply`` drops the keys of subjects, and what was opened with them, before it returns.
    """

    def __init__(
        self,
        store: LeaseStore,
        apply: Apply,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._apply = apply
        self._sleep = sleep
        self._monotonic = monotonic
        self._worker = uuid4()
        self._until = float("-inf")
        self._hurry = asyncio.Event()
        self.epoch = -1  # erasures up to this one are applied; -1: no lease yet, and no key

    @property
    def holds(self) -> bool:
        """Whether keys in memory, and what was opened with them, may be used now."""
        return self._monotonic() < self._until

    def check(self) -> None:
        """Raises ``Unavailable`` unless the lease holds: wait, and try again."""
        if not self.holds:
            raise Unavailable("postgres", "the lease on keys ended; it is renewed once it answers")

    async def renew(self) -> None:
        """Apply what was erased since, then renew.

        Raises:
            Unavailable: The database does not answer; the lease goes on to its end.
            ConfigurationError: The database has fewer erasures than this worker has applied: it was
                restored from before one.
        """
        current = await self._store.current_epoch()
        if current < self.epoch:
            self._until = float("-inf")
            raise ConfigurationError(
                f"the database was restored from before an erasure (epoch {current} after"
                f" {self.epoch}); run: audit-trail erase reapply"
            )
        if current > self.epoch:
            if self.epoch >= 0:  # else there is no key in memory yet
                erased = await self._store.erasures_since(self.epoch)
                self._apply(erased)
                log_event(log, "erasure_applied", epoch=current, keys=len(erased))
            self.epoch = current
        # Counted from before the database does: it ends here first.
        until = self._monotonic() + LEASE_S
        await self._store.renew(self._worker, self.epoch, LEASE_S)
        self._until = until

    async def run(self) -> None:
        """Renew each second until cancelled; an outage lets the lease end. Raises as ``renew``."""
        while True:
            had = self.holds
            try:
                await self.renew()
            except Unavailable as outage:
                if had and not self.holds:
                    log_event(log, "lease_ended", level=logging.WARNING, error=outage)
            self._hurry.clear()
            await first_of(self._hurry, RENEW_S, sleep=self._sleep)

    def hurry(self) -> None:
        """Something was erased: renew now, not within a second."""
        self._hurry.set()

    async def end(self) -> None:
        """Use no key any more, and let no erasure wait for this worker."""
        self._until = float("-inf")
        try:
            await self._store.end(self._worker)
        except Unavailable as outage:
            log_event(log, "lease_left", level=logging.WARNING, error=outage)
