"""Reading leaves back from the PostgreSQL ledger, for catch-up.

Guarantees that what is returned is what was hashed: every event's bytes are hashed again and
compared with its leaf.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import orjson

from pipeline.db.connection import PostgresConnection
from pipeline.domain.errors import ChainBroken
from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, SealedBlob, SealedEvent
from sinks import ledger_sql as sql
from sinks.base import READ_BYTES
from sinks.rows import POSTGRES_EPOCH_US

_FIXED = struct.Struct("!qqqqi16s").unpack
_TIME = struct.Struct("!q").unpack


async def read_leaves(
    connection: PostgresConnection, log_id: int, name: LogName, first_leaf: int, limit: int
) -> LeafRange:
    """As ``Ledger.read``.

    Raises:
        ChainBroken: A row is missing, or is not what its leaf was made of.
    """
    cursor = connection.cursor(binary=True)
    leaf_range = (log_id, first_leaf, first_leaf + limit)
    await cursor.execute(sql.READ_LEAVES, leaf_range)
    leaves = await cursor.fetchall()
    if not leaves:
        return LeafRange(log_id, name, first_leaf, [])
    times = [_TIME(time)[0] for _index, _hash, time in leaves]
    # Only the months of these leaves are looked at; a second on each side, since to_timestamp
    # takes floating point.
    months = (
        (min(times) + POSTGRES_EPOCH_US) / 1e6 - 1,
        (max(times) + POSTGRES_EPOCH_US) / 1e6 + 1,
    )
    await cursor.execute(sql.READ_EVENTS, (*leaf_range, *months, READ_BYTES))
    events = {row[0]: row for row in await cursor.fetchall()}
    if sum([len(row[-1]) for row in events.values()]) >= READ_BYTES:  # there may be more
        leaves = leaves[: max(events) + 1 - first_leaf]
    await cursor.execute(sql.READ_BLOBS, (log_id, first_leaf, first_leaf + len(leaves), *months))
    blobs: dict[int, list[SealedBlob]] = {}
    for index, subject_ref, nonce, ciphertext in await cursor.fetchall():
        blobs.setdefault(index, []).append(SealedBlob(subject_ref, nonce, ciphertext))
    return LeafRange(
        log_id,
        name,
        first_leaf,
        [
            _event(name, index, leaf_hash, events.get(index), blobs.get(index, []))
            for index, leaf_hash, _time in leaves
        ],
    )


async def read_some_leaves(
    connection: PostgresConnection, log_id: int, name: LogName, indexes: Sequence[int]
) -> list[tuple[int, SealedEvent]]:
    """The leaves of one log with these indexes, ascending; those that it does not have are left out.

    Raises:
        ChainBroken: A row is missing, or is not what its leaf was made of.
    """
    cursor = connection.cursor(binary=True)
    await cursor.execute(sql.SOME_LEAVES, [log_id, list(indexes)])
    leaves = await cursor.fetchall()
    if not leaves:
        return []
    times = [_TIME(time)[0] for _index, _hash, time in leaves]
    months = (
        (min(times) + POSTGRES_EPOCH_US) / 1e6 - 1,
        (max(times) + POSTGRES_EPOCH_US) / 1e6 + 1,
    )
    wanted = (log_id, [index for index, _hash, _time in leaves], *months)
    await cursor.execute(sql.SOME_EVENTS, wanted)
    events = {row[0]: row for row in await cursor.fetchall()}
    await cursor.execute(sql.SOME_BLOBS, wanted)
    blobs: dict[int, list[SealedBlob]] = {}
    for index, subject_ref, nonce, ciphertext in await cursor.fetchall():
        blobs.setdefault(index, []).append(SealedBlob(subject_ref, nonce, ciphertext))
    return [
        (index, _event(name, index, leaf_hash, events.get(index), blobs.get(index, [])))
        for index, leaf_hash, _time in leaves
    ]


def _event(
    name: LogName,
    index: int,
    leaf_hash: bytes,
    row: tuple[Any, ...] | None,
    blobs: list[SealedBlob],
) -> SealedEvent:
    if row is None:
        raise ChainBroken(
            str(name),
            f"leaf {index} has no row in audit_logs: it has expired, or it is lost (audit-trail verify"
            " tells which); the archive has it",
        )
    _index, fixed, actor_ref, family, canonical = row
    if sha256(b"\x00" + canonical).digest() != leaf_hash:
        raise ChainBroken(
            str(name),
            f"leaf {index}: the row in audit_logs is not what was hashed; the archive object that"
            " holds the leaf tells which of the two was changed",
        )
    offset, occurred, stored, broker, schema_id, event_id = _FIXED(fixed)
    return SealedEvent(
        event_id=event_id,
        family=family,
        occurred_at_us=occurred + POSTGRES_EPOCH_US,
        offset=offset,
        broker_timestamp_ms=(broker + POSTGRES_EPOCH_US) // 1000,
        schema_id=schema_id,
        clear=orjson.loads(canonical)["clear"],
        opened={},
        canonical=canonical,
        leaf_hash=leaf_hash,
        blobs=blobs,
        actor_ref=actor_ref,
        stored_at_us=stored + POSTGRES_EPOCH_US,
    )
