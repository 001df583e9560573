"""The S3 archive: each contiguous leaf range of one log becomes two objects, stored once.

``blobs/<log>/<first leaf>`` (vault bucket, encrypted personal data, no lock) is put first, on the
condition that it is not there; it settles which leaves the range has. Then
``archive/<log>/<first leaf>`` (sealed events, locked version) is put on the same condition: from
then on the range is durable. Whoever comes second takes over what the first one stored, after
comparing it with the ledger; so however often leaves are given again, each is stored once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.domain.errors import ChainBroken
from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange
from sinks.archive_buffer import ArchiveBuffer
from sinks.archive_objects import ArchiveObjects, ReadLedger
from sinks.buckets import check_buckets
from sinks.s3 import S3, Lock, LockMode

_HURRY_S = 15.0
_HURRY_AGE_S = 0.5
MIB = 1024 * 1024


@dataclass(slots=True)
class _Log:
    """What is held of one log: leaves that came (``open``) and those being stored (``closed``)."""

    log_id: int
    open: ArchiveBuffer
    closed: ArchiveBuffer | None = None
    durable: int | None = None  # next leaf, once this object has stored some

    @property
    def held_bytes(self) -> int:
        return self.open.raw_bytes + (self.closed.raw_bytes if self.closed else 0)


class ArchiveDestination:
    """A destination (``sinks/base.py``) that holds leaves back until they are worth an object.

    An object is cut at ``max_events``, at ``max_bytes`` before compression, ``max_age_s`` after
    its oldest leaf arrived, or when all logs together hold ``held_max_bytes`` (the largest is cut
    first). Leaves may be given again, from the position or from where the last call ended.

    ``ensure_escrowed`` must return only when the vault has the keys of these subjects;
    ``retention_days`` says how long a tenant's events are kept: an object is locked for the
    longest of its tenants', counted from its newest ``stored_at``. ``on_stored`` hears of each
    object that was put: its role (``archive`` or ``vault``) and its size.
    """

    name = "archive"

    def __init__(
        self,
        s3: S3,
        *,
        archive_bucket: str,
        vault_bucket: str,
        read_ledger: ReadLedger,
        ensure_escrowed: Callable[[set[bytes]], Awaitable[None]],
        retention_days: Callable[[str], int],
        lock_mode: LockMode,
        max_events: int = 50_000,
        max_bytes: int = 32 * MIB,
        max_age_s: float = 10.0,
        held_max_bytes: int = 64 * MIB,
        on_stored: Callable[[str, int], None] = lambda _role, _size_bytes: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._s3 = s3
        self._archive_bucket = archive_bucket
        self._vault_bucket = vault_bucket
        self._objects = ArchiveObjects(
            s3,
            archive_bucket=archive_bucket,
            vault_bucket=vault_bucket,
            read_ledger=read_ledger,
            new_buffer=self._buffer,
            ensure_escrowed=ensure_escrowed,
            lock_of=self._lock_of,
            on_stored=on_stored,
        )
        self._retention_days = retention_days
        self._lock_mode: LockMode = lock_mode
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._held_max_bytes = held_max_bytes
        self._clock = clock
        self._now = now
        self._hurry_until = float("-inf")
        self._logs: dict[int, _Log] = {}
        self._forgotten: set[int] = set()  # since the last write began
        self._unreported: dict[int, int] = {}

    async def open(self) -> None:
        """Check both buckets. Raises ``ConfigurationError`` or ``Unavailable``, as the client has it."""
        await check_buckets(self._s3, archive=self._archive_bucket, vault=self._vault_bucket)

    async def write(self, ranges: Sequence[LeafRange]) -> Mapping[int, int]:
        """As ``Destination.write``; ``write([])`` when ``due_in_s`` says so cuts what is old.

        While the server does not answer, no new leaves are taken, so memory stays bounded.

        Raises:
            ValueError: A range begins after what is held and ``forget`` was not called: a bug.
        """
        self._forgotten.clear()
        await self._store(log for log in self._logs.values() if log.closed is not None)
        for leaves in ranges:
            await self._take(leaves)
        await self._store([log for log in self._logs.values() if self._due_in_s(log) == 0])
        durable, self._unreported = self._unreported, {}
        return durable

    def due_in_s(self) -> float | None:
        """When to call ``write`` next even without new leaves; None while nothing is held."""
        waits = [self._due_in_s(log) for log in self._logs.values()]
        return min((wait for wait in waits if wait is not None), default=None)

    @property
    def held_bytes(self) -> int:
        """Bytes of all leaves held, before compression."""
        return sum(log.held_bytes for log in self._logs.values())

    def hurry(self) -> None:
        """Let leaves gather for a moment only, for a while: an erasure waits for the archive."""
        self._hurry_until = self._clock() + _HURRY_S

    def forget(self, log_id: int) -> None:
        """Drop what is held of a log; a put in flight for it changes nothing here any more."""
        self._logs.pop(log_id, None)
        self._unreported.pop(log_id, None)
        self._forgotten.add(log_id)

    async def close(self) -> None:
        """Drop what is held: it is in the ledger. The S3 client belongs to whoever made it."""
        self._logs.clear()
        self._unreported.clear()

    async def _take(self, leaves: LeafRange) -> None:
        if leaves.log_id in self._forgotten:
            return  # they follow leaves that were dropped: an object of them would begin anywhere
        log = self._logs.get(leaves.log_id)
        if log is None:
            log = _Log(leaves.log_id, self._buffer(leaves.name, leaves.first_leaf))
            self._logs[leaves.log_id] = log
        if leaves.first_leaf > log.open.next_leaf:
            held = log.open.next_leaf
            raise ValueError(f"log {leaves.name}: leaves {held} to {leaves.first_leaf - 1} missing")
        if log.durable is not None and leaves.first_leaf < log.durable:
            self._unreported[log.log_id] = log.durable  # the follower did not get to keep it
        # A log that is revoked meanwhile takes nothing more.
        while leaves.next_leaf > log.open.next_leaf and self._logs.get(log.log_id) is log:
            if self.held_bytes >= self._held_max_bytes:
                await self._store([max(self._logs.values(), key=lambda log: log.held_bytes)])
                continue
            if not len(log.open):
                log.open.opened_at_s = self._clock()
            log.open.add(leaves.from_leaf(log.open.next_leaf).events)
            if log.open.full:
                await self._store([log])

    async def _store(self, logs: Iterable[_Log]) -> None:
        """Make objects of what these logs hold, together; then raise the first failure, if any."""
        chosen = list(logs)
        for log in chosen:
            if log.closed is None and len(log.open):
                log.closed = log.open
                log.open = self._buffer(log.closed.name, log.closed.next_leaf)
        results = await asyncio.gather(*map(self._store_log, chosen), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        for log, result in zip(chosen, results, strict=True):
            if isinstance(result, ChainBroken) and self._logs.get(log.log_id) is log:
                self.forget(log.log_id)  # the other logs go on
        # A contradiction is said first: it would be hidden by an outage for as long as that lasts.
        failures.sort(key=lambda failure: not isinstance(failure, ChainBroken))
        if failures:
            raise failures[0]

    async def _store_log(self, log: _Log) -> None:
        closed = log.closed
        if closed is None:
            return
        next_leaf = await self._objects.store(log.log_id, closed)
        if next_leaf != closed.next_leaf:
            # Another range of the same leaves is stored: go on from its end.
            log.open = await self._objects.refill(log.log_id, next_leaf, log.open)
        log.closed = None
        log.durable = next_leaf
        if self._logs.get(log.log_id) is log:
            self._unreported[log.log_id] = next_leaf

    def _due_in_s(self, log: _Log) -> float | None:
        if log.closed is not None:
            return 0.0
        if not len(log.open):
            return None
        now = self._clock()
        age_s = min(self._max_age_s, _HURRY_AGE_S) if now < self._hurry_until else self._max_age_s
        return max(log.open.opened_at_s + age_s - now, 0.0)

    def _buffer(self, name: LogName, first_leaf: int) -> ArchiveBuffer:
        return ArchiveBuffer(
            name,
            first_leaf,
            executor=self._s3.threads,
            opened_at_s=self._clock(),
            max_events=self._max_events,
            max_bytes=self._max_bytes,
        )

    def _lock_of(self, buffer: ArchiveBuffer) -> Lock:
        days = max(self._retention_days(tenant) for tenant in buffer.tenants)
        stored_at = datetime.fromtimestamp(buffer.max_stored_at_us / 1e6, UTC)
        # A catch-up years later: S3 refuses a date that has passed, and a lock is always asked.
        earliest = self._now() + timedelta(days=1)
        return Lock(self._lock_mode, max(stored_at + timedelta(days=days), earliest))
