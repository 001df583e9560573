"""The PostgreSQL ledger: the commit point of the trail.

Guarantees what ``sinks.base.Ledger`` promises: a batch is stored whole or not at all, its place in
the log follows from the head row locked by the same transaction, and a batch that arrives again,
after any failure, is skipped by ``next_offset``. Two workers that both believe they own a partition
queue on the head; the second finds its records there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import psycopg
from psycopg import errors

from pipeline.db.connection import CONFLICTS, NOT_DURABLE, Connection, PostgresConnection
from pipeline.domain.errors import ChainBroken, ConfigurationError, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.records import (
    LeafRange,
    LogHead,
    PreparedBatch,
    SealedEvent,
    WriteOutcome,
)
from sinks import ledger_sql as sql
from sinks.ledger_read import read_leaves, read_some_leaves
from sinks.ledger_write import restore, store
from sinks.rows import RowPacker

_T = TypeVar("_T")

_DAY_US = 86_400_000_000
# Crossed event ids of several workers: each retry lets one of them through.
CONFLICT_TRIES = 10
# Once is enough; twice when another worker was making the month.
MONTH_TRIES = 3
MONTHS_AHEAD = 2


class PostgresLedger:
    """One connection for writes, one for everything else; both come back after an outage.

    ``late_after_s``: see ``pipeline/settings.py``. ``timeout_s`` bounds one statement.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 10.0,
        late_after_s: int = 86_400,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._writes = Connection(url, name="ledger-write", timeout_s=timeout_s)
        self._reads = Connection(url, name="ledger-read", timeout_s=timeout_s)
        self._packer = RowPacker(late_after_s=late_after_s)
        self._names: dict[int, LogName] = {}
        self._sleep = sleep
        self._jitter = jitter

    async def open(self) -> None:
        """Connect, check what durability rests on, make the months ahead.

        Raises:
            ConfigurationError: No schema, no privilege, or commits that are not durable.
            Unavailable: Ask again later.
        """
        async with self._reads.session() as connection:
            cursor = await connection.execute("SHOW synchronous_commit")
            (mode,) = await cursor.fetchone() or ("",)
            if mode in NOT_DURABLE:
                raise ConfigurationError(
                    f"synchronous_commit is {mode}: what the ledger acknowledges could be lost"
                )
            await connection.execute(sql.ENSURE_MONTHS, [MONTHS_AHEAD])
        async with self._writes.session():
            pass

    async def open_log(
        self, topic: str, partition: int, *, cluster_id: str, topic_id: str
    ) -> LogHead:
        """See ``sinks.base.Ledger``."""
        async with self._reads.session() as connection:
            first = LogName(topic, partition)
            row = await _fetch(connection, sql.NEWEST_HEAD, [topic, partition])
            if row is None:
                await _insert_head(connection, first, cluster_id, topic_id)
                row = await _fetch(connection, sql.NEWEST_HEAD, [topic, partition])
        if row is None:
            raise Unavailable("postgres", "the head just made is not there")
        head = self._head(row)
        for kind, held, seen in (("cluster", row[5], cluster_id), ("topic", row[6], topic_id)):
            if held != seen:
                raise ChainBroken(
                    str(head.name),
                    f"was written from {kind} {held}, and {topic} is now of {kind} {seen}. If that"
                    f" is meant, open a new epoch: audit-trail open-epoch {topic} {partition}",
                )
        return head

    async def open_epoch(
        self,
        topic: str,
        partition: int,
        *,
        cluster_id: str,
        topic_id: str,
        first_offset: int = 0,
        end_offset: int | None = None,
        begins_at: int | None = None,
    ) -> LogHead:
        """A new log for a topic-partition that was replaced, or whose records from ``first_offset``
        to ``end_offset - 1`` do not reach the position; a person decides this.

        It begins at ``first_offset``, or at ``begins_at``: a log that the ledger lost in a rollback and
        the archive has begins where it began. Where topic and log agree, the epoch that is there is
        returned.

        Raises:
            Unavailable: Ask again later.
        """
        async with self._reads.session() as connection:
            row = await _fetch(connection, sql.NEWEST_HEAD, [topic, partition])
            agrees = row is not None and (row[5], row[6]) == (cluster_id, topic_id)
            if agrees and row is not None and end_offset is not None:
                agrees = first_offset <= row[3] <= end_offset
            if not agrees:
                epoch = row[7] + 1 if row else 1
                name = LogName(topic, partition, epoch)
                begins = first_offset if begins_at is None else begins_at
                await _insert_head(connection, name, cluster_id, topic_id, begins)
        return await self.open_log(topic, partition, cluster_id=cluster_id, topic_id=topic_id)

    async def adopt_log(self, name: LogName, *, cluster_id: str, topic_id: str) -> bool:
        """A head of no leaves for a log that only the archive knows; False when the ledger has it.

        Its leaves and its position come from the archive: ``restore``. Raises ``Unavailable``.
        """
        async with self._reads.session() as connection:
            return await _insert_head(connection, name, cluster_id, topic_id)

    async def write(self, batches: Sequence[PreparedBatch]) -> Sequence[WriteOutcome]:
        """See ``sinks.base.Ledger``."""
        if not batches:
            return []
        events = [(batch.name, batch.events) for batch in batches]
        return await self._transaction(
            events, lambda connection: store(connection, self._packer, batches)
        )

    async def restore(self, leaves: LeafRange, *, next_offset: int) -> LogHead:
        """Re-insert leaves that the archive holds after the database was rolled back.

        They continue the head and come back as they were, ``stored_at_us`` included;
        ``next_offset`` is the offset after the last record that the archive object covers. Durable
        on return. Until every log is restored, no worker may write.

        Raises:
            ChainBroken: The leaves do not continue the head, or an event of theirs is elsewhere.
            Unavailable: Nothing is known; ask for the head, and go on from its size.
        """
        events = [(leaves.name, leaves.events)]
        return await self._transaction(
            events,
            lambda connection: restore(connection, self._packer, leaves, next_offset=next_offset),
        )

    async def read(self, log_id: int, first_leaf: int, *, limit: int) -> LeafRange:
        """See ``sinks.base.Ledger``.

        Raises:
            ChainBroken: A row is missing, or is not what its leaf was made of.
        """
        async with self._reads.session() as connection:
            name = self._names.get(log_id)
            if name is None:
                name = self._head(await _fetch(connection, sql.HEAD, [log_id])).name
            return await read_leaves(connection, log_id, name, first_leaf, limit)

    async def read_some(
        self, log_id: int, indexes: Sequence[int]
    ) -> tuple[LogName, list[tuple[int, SealedEvent]]]:
        """The log's name, and its leaves with these indexes, ascending, ``opened`` empty.

        Raises:
            ChainBroken: A row is missing, or is not what its leaf was made of.
            Unavailable: Ask again later.
        """
        async with self._reads.session() as connection:
            name = self._names.get(log_id)
            if name is None:
                name = self._head(await _fetch(connection, sql.HEAD, [log_id])).name
            return name, await read_some_leaves(connection, log_id, name, indexes)

    async def head(self, log_id: int) -> LogHead:
        """See ``sinks.base.Ledger``."""
        async with self._reads.session() as connection:
            return self._head(await _fetch(connection, sql.HEAD, [log_id]))

    async def position(self, follower: str, log_id: int) -> int:
        """See ``sinks.base.Ledger``."""
        async with self._reads.session() as connection:
            row = await _fetch(connection, sql.POSITION, [follower, log_id])
            return int(row[0]) if row else 0

    async def advance(self, follower: str, positions: Mapping[int, int]) -> None:
        """See ``sinks.base.Ledger``."""
        if positions:
            async with self._reads.session() as connection:
                await connection.execute(
                    sql.ADVANCE, [follower, list(positions), list(positions.values())]
                )

    async def close(self) -> None:
        """Close both connections."""
        await self._writes.close()
        await self._reads.close()

    async def _transaction(
        self,
        events: Sequence[tuple[LogName, Sequence[SealedEvent]]],
        work: Callable[[PostgresConnection], Awaitable[_T]],
    ) -> _T:
        """Run ``work`` until it commits: again after a lost conflict, or for a missing month."""
        conflicts = months = 0
        while True:
            try:
                async with self._writes.session(*CONFLICTS, errors.CheckViolation) as connection:
                    return await work(connection)
            except CONFLICTS:
                conflicts += 1
                if conflicts == CONFLICT_TRIES:
                    raise Unavailable("postgres", "other transactions are in the way") from None
                await self._sleep(0.005 * 2**conflicts * self._jitter())
            except errors.CheckViolation as violation:
                months += 1
                if violation.diag.constraint_name or months == MONTH_TRIES:
                    raise _refused(events, violation) from None
                await self._ensure_months(events)

    async def _ensure_months(self, events: Sequence[tuple[LogName, Sequence[SealedEvent]]]) -> None:
        """Make the months of the events, each in a transaction of its own."""
        made: set[tuple[int, int]] = set()
        for name, several in events:
            for day in {event.occurred_at_us // _DAY_US for event in several}:
                try:
                    date = datetime.fromtimestamp(day * _DAY_US // 1_000_000, UTC)
                    if (date.year, date.month) in made:
                        continue
                    async with self._writes.session(errors.DatetimeFieldOverflow) as connection:
                        await connection.execute(sql.ENSURE_MONTH, [date.timestamp()])
                    made.add((date.year, date.month))
                except (errors.DatetimeFieldOverflow, ValueError, OverflowError):
                    raise ChainBroken(
                        str(name),
                        "an event lies in a month that no partition is made for (before 1990, or"
                        " after next month by the database's clock): check that clock, and that"
                        " the topic's message.timestamp.type is LogAppendTime",
                    ) from None

    def _head(self, row: tuple[Any, ...] | None) -> LogHead:
        if row is None:
            raise ChainBroken("unknown", "its row in log_heads is gone: was the database replaced?")
        head = LogHead(row[0], LogName.parse(row[1]), row[2], row[3], row[4])
        self._names[head.log_id] = head.name
        return head


async def _fetch(
    connection: PostgresConnection, statement: str, values: Sequence[object]
) -> tuple[Any, ...] | None:
    cursor = await connection.execute(statement, values)
    return await cursor.fetchone()


async def _insert_head(
    connection: PostgresConnection,
    name: LogName,
    cluster_id: str,
    topic_id: str,
    next_offset: int = 0,
) -> bool:
    inserted = await connection.execute(
        sql.INSERT_HEAD,
        [str(name), name.topic, name.partition, name.epoch, cluster_id, topic_id, next_offset],
    )
    return inserted.rowcount == 1


def _refused(
    events: Sequence[tuple[LogName, Sequence[SealedEvent]]], violation: psycopg.Error
) -> ChainBroken:
    names = ", ".join(sorted({str(name) for name, _events in events}))
    constraint = violation.diag.constraint_name or "no partition for a month that was just made"
    return ChainBroken(names, f"the ledger refuses a row ({constraint}): compare the schema")
