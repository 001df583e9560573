"""The ledger transaction: from locked heads to COMMIT, on one PostgreSQL connection.

Guarantees that nothing is derived from anything but the rows just locked, and that a transaction
is reported as stored only after the server has said COMMIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from psycopg import errors

from pipeline.db.connection import PostgresConnection
from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, LogHead, PreparedBatch, WriteOutcome
from sinks import ledger_sql as sql
from sinks import rows
from sinks.base import ReusedIds, StaleKeys
from sinks.ledger_plan import (
    HeadState,
    Portion,
    moved,
    place,
    portions,
    restoration,
    restored_head,
    sift,
)

EVENT_ID_KEY = "leaves_event_id_key"
# Each round sees what the writers committed that the round before collided with.
_SIFT_ROUNDS = 10


async def store(
    connection: PostgresConnection, packer: rows.RowPacker, batches: Sequence[PreparedBatch]
) -> list[WriteOutcome]:
    """Store batches in one transaction; see ``sinks.base.Ledger.write``.

    Raises:
        psycopg.errors.CheckViolation: Without a constraint's name: a month has no partition.
        psycopg.Error: As the driver gives it; the transaction is open and failed.
    """
    heads, now_us, epoch = await _begin(connection, {batch.log_id for batch in batches})
    if any(batch.erasure_epoch not in (None, epoch) for batch in batches):
        await connection.execute("ROLLBACK")
        raise StaleKeys("sealed before an erasure")
    planned = portions(batches, heads)
    place(planned, heads)
    await _copy_leaves(connection, planned, heads)
    await _copy_rows(connection, packer, planned, stored_at_us=now_us)
    after = moved(planned, heads)
    await _finish(connection, planned, after)
    for portion in planned:
        for event in portion.events:
            event.stored_at_us = now_us
    return [portion.outcome(after[portion.batch.log_id].head) for portion in planned]


async def restore(
    connection: PostgresConnection, packer: rows.RowPacker, leaves: LeafRange, *, next_offset: int
) -> LogHead:
    """Store leaves of the archive again, as they were; see ``PostgresLedger.restore``."""
    heads, _now_us, _epoch = await _begin(connection, {leaves.log_id})
    planned = restoration(leaves, next_offset, heads)
    try:
        pieces = rows.leaves(leaves.log_id, leaves.first_leaf, leaves.events)
        await _copy(connection, rows.COPY_LEAVES, pieces)
    except errors.UniqueViolation:
        raise ChainBroken(
            str(leaves.name),
            f"an event of leaves {leaves.first_leaf} to {leaves.next_leaf - 1} of the archive is in"
            " the ledger at another place: intake ran before the restore. Restore the database again",
        ) from None
    await _copy_rows(connection, packer, planned, stored_at_us=None)
    after = moved(planned, heads)
    await _finish(connection, planned, after, restored=True)
    return after[leaves.log_id].head


async def _begin(
    connection: PostgresConnection, log_ids: set[int]
) -> tuple[dict[int, HeadState], int, int]:
    """Open the transaction, lock the heads in the order of their ids; the transaction's time, and the
    epoch of erasures, which does not change for what this transaction stores: an erasure locks the heads
    after it has raised it.
    """
    async with connection.pipeline():
        await connection.execute("BEGIN")
        cursor = connection.cursor(binary=True)
        await cursor.execute(sql.LOCK_HEADS, [sorted(log_ids)])
        epochs = await connection.execute(sql.ERASURE_EPOCH)
        await connection.execute("SAVEPOINT before_copy")
    found = await cursor.fetchall()
    heads = {}
    for log_id, name, size, next_offset, frontier, root, _now_us in found:
        heads[log_id] = restored_head(
            log_id,
            LogName.parse(name),
            next_offset=next_offset,
            size=size,
            frontier=frontier,
            root=root,
        )
    (epoch,) = await epochs.fetchone() or (0,)
    return heads, found[0][-1] if found else 0, epoch


async def _copy_leaves(
    connection: PostgresConnection, planned: Sequence[Portion], heads: dict[int, HeadState]
) -> None:
    """COPY as if every id were new; look for duplicates only when the server found one."""
    for _round in range(_SIFT_ROUNDS):
        pieces = [
            piece
            for portion in planned
            for piece in rows.leaves(portion.batch.log_id, portion.first_leaf, portion.events)
        ]
        try:
            await _copy(connection, rows.COPY_LEAVES, pieces)
        except errors.UniqueViolation as violation:
            if violation.diag.constraint_name != EVENT_ID_KEY:
                raise _leaf_there(planned) from None
        else:
            return
        await connection.execute("ROLLBACK TO SAVEPOINT before_copy")
        ids = [UUID(bytes=event.event_id) for portion in planned for event in portion.events]
        cursor = connection.cursor(binary=True)
        await cursor.execute(sql.STORED_HASHES, [ids])
        await _sift(connection, planned, dict(await cursor.fetchall()))
        place(planned, heads)
    raise Unavailable("postgres", "other writers keep storing the same events")


async def _sift(
    connection: PostgresConnection, planned: Sequence[Portion], stored: dict[bytes, bytes]
) -> None:
    try:
        sift(planned, stored)
    except ReusedIds as reused:
        ids = [UUID(bytes=one.event_id) for several in reused.events.values() for one in several]
        cursor = connection.cursor(binary=True)
        await cursor.execute(sql.EVENTS_OF_ERASED, [ids])
        sift(planned, stored, {event_id for (event_id,) in await cursor.fetchall()})


def _leaf_there(planned: Sequence[Portion]) -> ChainBroken:
    """Which of several logs it is, the server says with values of the row: name them all."""
    names = sorted({str(portion.batch.name) for portion in planned if portion.events})
    return ChainBroken(
        names[0],
        "the ledger holds a leaf at or after the size of its head, in one of: " + ", ".join(names),
    )


async def _copy_rows(
    connection: PostgresConnection,
    packer: rows.RowPacker,
    planned: Sequence[Portion],
    *,
    stored_at_us: int | None,
) -> None:
    events: list[bytes] = []
    blobs: list[bytes] = []
    for portion in planned:
        log_id, first_leaf = portion.batch.log_id, portion.first_leaf
        events += packer.events(log_id, first_leaf, portion.events, stored_at_us)
        blobs += rows.blobs(log_id, first_leaf, portion.events)
    try:
        await _copy(connection, rows.COPY_EVENTS, events)
        await _copy(connection, rows.COPY_BLOBS, blobs)
    except errors.UniqueViolation:
        raise _leaf_there(planned) from None


async def _copy(connection: PostgresConnection, statement: str, pieces: Sequence[bytes]) -> None:
    if pieces:
        async with connection.cursor() as cursor, cursor.copy(statement) as copy:
            await copy.write(rows.stream(pieces))


async def _finish(
    connection: PostgresConnection,
    planned: Sequence[Portion],
    after: dict[int, HeadState],
    *,
    restored: bool = False,
) -> None:
    """Move the heads, note the intake, COMMIT: one round trip."""
    fresh = [portion for portion in planned if portion.next_offset > portion.first_offset]
    if not fresh:
        await connection.execute("ROLLBACK")
        return
    heads = list(after.values())
    async with connection.pipeline():
        await connection.execute(
            sql.MOVE_HEADS,
            [
                [head.log_id for head in heads],
                [head.next_offset for head in heads],
                [head.frontier.size for head in heads],
                [head.frontier.to_bytes() for head in heads],
                [head.root for head in heads],
            ],
        )
        await connection.execute(
            sql.INSERT_INTAKE,
            [
                [portion.batch.log_id for portion in fresh],
                [portion.first_offset for portion in fresh],
                [portion.next_offset for portion in fresh],
                [portion.first_leaf for portion in fresh],
                [len(portion.events) for portion in fresh],
                [portion.duplicates for portion in fresh],
                [portion.dead_lettered for portion in fresh],
                [portion.holes for portion in fresh],
                [restored] * len(fresh),
            ],
        )
        commit = await connection.execute("COMMIT")
    # A failed transaction answers COMMIT with ROLLBACK, and that is no error to the driver.
    if commit.statusmessage != "COMMIT":
        raise Unavailable("postgres", "the transaction was rolled back at COMMIT")
