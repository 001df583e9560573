"""What a verification reads of PostgreSQL, as ``audit_auditor``: packed, in bounded pieces.

Every call reads what is there now; what it is compared with was fixed before. Nothing is locked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from pipeline.db.connection import Connection
from pipeline.domain.logs import LogName

INTAKE_PAGE: Final = 5_000

_HEADS = """
SELECT log_id, name, size, next_offset, frontier, root, updated_at, topic_id,
    coalesce((SELECT next_leaf FROM follower_position AS f
              WHERE f.log_id = log_heads.log_id AND follower = 'index'), 0),
    coalesce((SELECT next_leaf FROM follower_position AS f
              WHERE f.log_id = log_heads.log_id AND follower = 'archive'), 0)
FROM log_heads ORDER BY topic, partition, epoch
"""
_SIZE = "SELECT size FROM log_heads WHERE log_id = %s"
_LEAVES = """
SELECT count(*), coalesce(string_agg(leaf_hash, ''::bytea ORDER BY leaf_index), ''),
    coalesce(string_agg(int8send(leaf_index) || uuid_send(event_id) || timestamptz_send(occurred_at),
                        ''::bytea ORDER BY leaf_index), '')
FROM leaves WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s
"""
# Of every month: a row that was moved to another one must be found. So many bytes at once.
_ROWS = """
SELECT leaf_index,
    int8send(leaf_index) || uuid_send(event_id) || timestamptz_send(occurred_at) AS place,
    timestamptz_send(stored_at) || timestamptz_send(broker_timestamp) || int4send(schema_id)
        || int8send(source_offset)
        || CASE WHEN actor_ref IS NULL THEN decode(repeat('00', 17), 'hex')
                ELSE '\\x01'::bytea || uuid_send(actor_ref) END AS server,
    json_send(event) AS canonical, family, tenant, action, outcome, severity, actor_type, imported,
    late
FROM audit_logs WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s
ORDER BY leaf_index, occurred_at
"""
_BLOBS = """
SELECT leaf_index, uuid_send(subject_ref), nonce, ciphertext, timestamptz_send(occurred_at)
FROM audit_blobs WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s
ORDER BY leaf_index, subject_ref
"""
_BEYOND = """
SELECT leaf_index, uuid_send(event_id) FROM {table}
WHERE log_id = %s AND (leaf_index >= %s OR leaf_index < 0) ORDER BY leaf_index LIMIT %s
"""
_BLOBS_BEYOND = """
SELECT leaf_index, uuid_send(subject_ref) FROM audit_blobs
WHERE log_id = %s AND (leaf_index >= %s OR leaf_index < 0) ORDER BY leaf_index LIMIT %s
"""
_STORED_AT = "SELECT max(stored_at) FROM audit_logs WHERE log_id = %s AND leaf_index = %s"
_OF_PERIOD = """
SELECT min(leaf_index), max(leaf_index) FROM leaves
WHERE log_id = %s AND occurred_at >= %s AND occurred_at < %s
"""
_PLACE_OF = "SELECT log_id, leaf_index FROM leaves WHERE event_id = %s::uuid"
# Logs that a table has rows of, by one look into its index for each.
_LOG_IDS = """
WITH RECURSIVE found (log_id) AS (
    SELECT min(log_id) FROM {table}
    UNION ALL
    SELECT (SELECT min(log_id) FROM {table} WHERE log_id > found.log_id) FROM found
    WHERE found.log_id IS NOT NULL
)
SELECT log_id FROM found WHERE log_id IS NOT NULL
"""
_TABLES: Final = ("audit_logs", "audit_blobs", "leaves", "intake")
_INTAKE = """
SELECT first_offset, next_offset, first_leaf, accepted, duplicates, dead_lettered, holes, restored,
    stored_at
FROM intake WHERE log_id = %s AND first_offset >= %s ORDER BY first_offset LIMIT %s
"""
_LETTER_KEYS = """
SELECT given.first_offset, destroyed_by, count(source_offset)
FROM unnest(%s::bigint[], %s::bigint[]) AS given (first_offset, next_offset)
LEFT JOIN dead_letter_key ON source_topic = %s AND source_partition = %s AND source_epoch = %s
    AND source_offset >= given.first_offset AND source_offset < given.next_offset
GROUP BY given.first_offset, destroyed_by
"""


class LogState(NamedTuple):
    """A log as it was at one moment; positions of its followers are not beyond its size."""

    log_id: int
    name: LogName
    size: int
    next_offset: int
    frontier: bytes
    root: bytes
    updated_at: datetime
    topic_id: str
    indexed: int
    archived: int


@dataclass(frozen=True, slots=True)
class PackedLeaves:
    """Rows of ``leaves``: ``places`` as ``sinks.archive_facts.PLACE``, ``hashes`` of 32 bytes."""

    count: int
    places: bytes
    hashes: bytes


class EventRow(NamedTuple):
    """A row of ``audit_logs``; ``place`` and ``server`` as in ``sinks.archive_facts``."""

    leaf: int
    place: bytes
    server: bytes
    canonical: bytes
    family: str
    tenant: str
    action: str
    outcome: str
    severity: str
    actor_type: str
    imported: bool
    late: bool


class BlobRow(NamedTuple):
    """A row of ``audit_blobs``; the time as PostgreSQL sends it."""

    leaf: int
    subject_ref: bytes
    nonce: bytes
    ciphertext: bytes
    occurred_at: bytes


class IntakeRow(NamedTuple):
    """A row of ``intake``."""

    first_offset: int
    next_offset: int
    first_leaf: int
    accepted: int
    duplicates: int
    dead_lettered: int
    holes: int
    restored: bool
    stored_at: datetime


class TrailReader:
    """Reads over one connection. Every call may raise ``Unavailable`` and may be repeated."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def logs(self) -> list[LogState]:
        """Every log with its followers' positions, all of one moment."""
        rows = await self._connection.all(_HEADS, [])
        return [LogState(row[0], LogName.parse(row[1]), *row[2:]) for row in rows]

    async def size(self, log_id: int) -> int:
        """How many leaves a log has now."""
        rows = await self._connection.all(_SIZE, [log_id])
        return int(rows[0][0]) if rows else 0

    async def leaves(self, log_id: int, first: int, end: int) -> PackedLeaves:
        """The leaves from ``first`` to before ``end``, as far as they are there."""
        (row,) = await self._connection.all(_LEAVES, [log_id, first, end])
        return PackedLeaves(int(row[0]), row[2], row[1])

    async def rows(self, log_id: int, first: int, end: int) -> list[EventRow]:
        """The events of these leaves, in order; several of one leaf if there are."""
        return [EventRow(*row) for row in await self._connection.all(_ROWS, [log_id, first, end])]

    async def blobs(self, log_id: int, first: int, end: int) -> list[BlobRow]:
        """Their blobs."""
        return [BlobRow(*row) for row in await self._connection.all(_BLOBS, [log_id, first, end])]

    async def beyond(
        self, table: str, log_id: int, size: int, limit: int
    ) -> list[tuple[int, bytes]]:
        """Leaf and event id (of blobs: subject) of rows that no leaf of a log of ``size`` calls for."""
        query = _BLOBS_BEYOND if table == "audit_blobs" else _BEYOND.format(table=_known(table))
        return [
            (row[0], row[1]) for row in await self._connection.all(query, [log_id, size, limit])
        ]

    async def place_of(self, event_id: bytes) -> tuple[int, int] | None:
        """Log and leaf index that ``leaves`` has for an event."""
        rows = await self._connection.all(_PLACE_OF, [event_id.hex()])
        return (rows[0][0], rows[0][1]) if rows else None

    async def stored_at(self, log_id: int, leaf: int) -> datetime | None:
        """When the ledger stored a leaf; None: it has no event of it."""
        rows = await self._connection.all(_STORED_AT, [log_id, leaf])
        return rows[0][0] if rows else None

    async def of_period(self, log_id: int, begins: datetime, ends: datetime) -> tuple[int, int]:
        """The first leaf of a period of ``occurred_at``, and the one after the last; the same where none."""
        ((first, last),) = await self._connection.all(_OF_PERIOD, [log_id, begins, ends])
        return (0, 0) if first is None else (first, last + 1)

    async def foreign_logs(self, known: Sequence[int]) -> list[tuple[str, int]]:
        """(table, log id) of rows whose log is in no head."""
        found = []
        for table in _TABLES:
            rows = await self._connection.all(_LOG_IDS.format(table=table), [])
            found += [(table, row[0]) for row in rows if row[0] not in known]
        return found

    async def intake(self, log_id: int) -> AsyncIterator[IntakeRow]:
        """Every row of a log in the order of offsets, read in pages."""
        after = -(2**63)
        while True:
            rows = await self._connection.all(_INTAKE, [log_id, after, INTAKE_PAGE])
            for row in rows:
                yield IntakeRow(*row)
            if len(rows) < INTAKE_PAGE:
                return
            after = rows[-1][0] + 1

    async def letter_keys(
        self, name: LogName, ranges: Sequence[tuple[int, int]]
    ) -> dict[int, dict[UUID | None, int]]:
        """How many dead letters of a log are known, by the first offset of each range and by the erasure
        that destroyed their key; None: they have it.
        """
        values = [[one for one, _ in ranges], [end for _, end in ranges]]
        rows = await self._connection.all(
            _LETTER_KEYS, [*values, name.topic, name.partition, name.epoch]
        )
        found: dict[int, dict[UUID | None, int]] = defaultdict(dict)
        for first_offset, erasure, count in rows:
            if count:
                found[first_offset][erasure] = count
        return found


def _known(table: str) -> str:
    if table not in _TABLES:
        raise ValueError(f"no such table: {table}")
    return table
