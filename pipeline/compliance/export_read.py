"""Reading the events of an export from the ledger: in the order of their leaves, filtered by the server.

Guarantees that each event's bytes are those of its leaf, that its tenant is one that was asked for, by
these bytes and not by a column, and that every leaf whose row is gone is named.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from pipeline.compliance.absence import Absence, Part
from pipeline.compliance.export_filters import ExportFilters
from pipeline.compliance.findings import Store
from pipeline.db.connection import Connection
from pipeline.domain.errors import ChainBroken
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import leaf_hash
from pipeline.domain.records import SealedBlob, SealedEvent
from sinks.base import READ_BYTES
from sinks.rows import POSTGRES_EPOCH_US

# Leaves that one statement looks at: it is bounded whatever the filters let in.
WINDOW_LEAVES = 5_000
CHECKPOINTS_MAX = 64  # of one log in one bundle
_VERIFY = "run: audit-trail verify"

_LOGS = "SELECT log_id, name, size FROM log_heads ORDER BY name"
# Up to the event before which so many bytes were given, as in sinks.ledger_sql.
_EVENTS = """
SELECT leaf_index, fixed, actor_ref, family, canonical, leaf_hash
FROM (
    SELECT *, sum(octet_length(canonical)) OVER (ORDER BY leaf_index ROWS UNBOUNDED PRECEDING) AS total
    FROM (
        SELECT leaf_index,
            int8send(source_offset) || timestamptz_send(occurred_at) || timestamptz_send(stored_at)
                || timestamptz_send(broker_timestamp) || int4send(schema_id) || uuid_send(event_id)
                AS fixed,
            uuid_send(actor_ref) AS actor_ref, family, json_send(event) AS canonical,
            (SELECT leaf_hash FROM leaves
             WHERE leaves.log_id = audit_logs.log_id AND leaves.leaf_index = audit_logs.leaf_index)
                AS leaf_hash
        FROM audit_logs
        WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s{conditions}
        OFFSET 0  -- each form is made once
    ) AS events
) AS counted
WHERE total - octet_length(canonical) < %s
ORDER BY leaf_index
"""
# The leaves of a window and period that have no row: whose events they were, nobody can say.
_WITHOUT_ROW = """
SELECT leaf_index, event_id, (extract(epoch FROM occurred_at) * 1000000)::bigint FROM leaves
WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s{period}
    AND NOT EXISTS (
        SELECT FROM audit_logs
        WHERE audit_logs.log_id = leaves.log_id AND audit_logs.leaf_index = leaves.leaf_index
            AND audit_logs.occurred_at = leaves.occurred_at
    )
ORDER BY leaf_index
"""
_BLOBS = """
SELECT leaf_index, uuid_send(subject_ref), nonce, ciphertext FROM audit_blobs
WHERE log_id = %s AND leaf_index = ANY (%s)
    AND occurred_at >= to_timestamp(%s) AND occurred_at <= to_timestamp(%s)
ORDER BY leaf_index, subject_ref
"""
# Signed, so that the table may be asked: what is wrong in it is refused.
_CHECKPOINTS = """
SELECT size, note
FROM (
    SELECT size, note, row_number() OVER (ORDER BY size) AS number, count(*) OVER () AS total
    FROM checkpoints WHERE log_id = %s AND size > %s AND size <= %s
) AS numbered
WHERE number = 1 OR number = total OR number %% (total / %s + 1) = 0
ORDER BY size
"""
_PLACE = (
    "SELECT log_id, name, leaf_index FROM leaves JOIN log_heads USING (log_id) WHERE event_id = %s"
)
_NEWEST = "SELECT size, note FROM checkpoints WHERE log_id = %s ORDER BY size DESC LIMIT 1"
_CANONICAL = """
SELECT event::text FROM audit_logs JOIN leaves USING (log_id, leaf_index, occurred_at)
WHERE log_id = %s AND leaf_index = %s
"""
_HASHES = """
SELECT leaf_hash FROM leaves
WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s ORDER BY leaf_index
"""
_SUBJECT_REFS = "SELECT subject_ref FROM subject_refs(%s::bytea[])"

_fixed = struct.Struct("!qqqqi16s").unpack


@dataclass(frozen=True, slots=True)
class ExportedEvent:
    """A leaf with its event; ``sealed``: subject → path → base64 of the commitment."""

    leaf_index: int
    event: SealedEvent
    sealed: Mapping[str, Mapping[str, str]]


class ExportPage(NamedTuple):
    """Consecutive leaves: the events that the filters let in, in order, and the leaves of the period
    whose row is gone, whoever's they were.
    """

    events: list[ExportedEvent]
    gone: list[Absence]


class ExportReader:
    """The ledger, as whoever exports sees it. Calls may be repeated; they raise ``Unavailable``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def logs(self) -> list[tuple[int, LogName, int]]:
        """Every log with its size, by name."""
        async with self._connection.session() as session:
            rows = await (await session.execute(_LOGS)).fetchall()
        return [(log_id, LogName.parse(name), size) for log_id, name, size in rows]

    async def checkpoints(self, log_id: int, after: int, size: int) -> list[tuple[int, bytes]]:
        """Size and note of checkpoints over more than ``after`` leaves and up to ``size``, by size: the
        first, the last, and at most ``CHECKPOINTS_MAX`` - 2 between, evenly.
        """
        async with self._connection.session() as session:
            cursor = await session.execute(_CHECKPOINTS, [log_id, after, size, CHECKPOINTS_MAX - 2])
            return [(row[0], row[1].encode()) for row in await cursor.fetchall()]

    async def newest_checkpoint(self, log_id: int) -> tuple[int, bytes] | None:
        """Size and note of the one over the most leaves."""
        async with self._connection.session() as session:
            row = await (await session.execute(_NEWEST, [log_id])).fetchone()
        return None if row is None else (row[0], row[1].encode())

    async def canonical(self, log_id: int, leaf: int) -> bytes | None:
        """The bytes of one event; None if its row is gone."""
        async with self._connection.session() as session:
            row = await (await session.execute(_CANONICAL, [log_id, leaf])).fetchone()
        return None if row is None else row[0].encode()

    async def place(self, event_id: UUID) -> tuple[int, LogName, int] | None:
        """Where an event's leaf is: log and index; None if the ledger does not have it."""
        async with self._connection.session() as session:
            row = await (await session.execute(_PLACE, [event_id])).fetchone()
        return None if row is None else (row[0], LogName.parse(row[1]), row[2])

    async def leaf_hashes(self, log_id: int, first: int, end: int) -> list[bytes]:
        """The leaf hashes of a range, in order."""
        async with self._connection.session() as session:
            cursor = session.cursor(binary=True)
            await cursor.execute(_HASHES, [log_id, first, end])
            return [row[0] for row in await cursor.fetchall()]

    async def events(
        self, log_id: int, name: LogName, filters: ExportFilters, size: int
    ) -> AsyncIterator[ExportPage]:
        """The events among the first ``size`` leaves that the filters let in, in order, page by page; a
        page may be empty.

        Raises:
            ChainBroken: A row is not what its leaf was made of.
        """
        leaf = filters.from_leaf
        last = size if filters.to_leaf is None else min(size, filters.to_leaf)
        while leaf < last:
            end = min(leaf + WINDOW_LEAVES, last)
            page, leaf = await self._window(log_id, name, filters, leaf, end)
            yield page

    async def _window(
        self, log_id: int, name: LogName, filters: ExportFilters, first: int, end: int
    ) -> tuple[ExportPage, int]:
        conditions, values = filters.conditions()
        period, times = filters.period()
        async with self._connection.session() as session:
            cursor = session.cursor(binary=True)
            await cursor.execute(
                _EVENTS.format(conditions=conditions), [log_id, first, end, *values, READ_BYTES]
            )
            page = [_exported(name, filters, row) for row in await cursor.fetchall()]
            if sum(len(one.event.canonical) for one in page) >= READ_BYTES:
                end = page[-1].leaf_index + 1
            await cursor.execute(_WITHOUT_ROW.format(period=period), [log_id, first, end, *times])
            gone = [_absence(name, row) for row in await cursor.fetchall()]
        return ExportPage(page, gone), end

    async def blobs(self, log_id: int, page: list[ExportedEvent]) -> Mapping[int, list[SealedBlob]]:
        """The blobs of some events, by leaf."""
        if not page:
            return {}
        times = [one.event.occurred_at_us / 1e6 for one in page]
        leaves = [one.leaf_index for one in page]
        async with self._connection.session() as session:
            cursor = session.cursor(binary=True)
            # A second on each side, since to_timestamp takes floating point.
            await cursor.execute(_BLOBS, [log_id, leaves, min(times) - 1, max(times) + 1])
            found: dict[int, list[SealedBlob]] = {}
            for leaf, subject_ref, nonce, ciphertext in await cursor.fetchall():
                found.setdefault(leaf, []).append(SealedBlob(subject_ref, nonce, ciphertext))
        return found

    async def subject_refs(self, hashes: list[bytes]) -> list[UUID]:
        """The refs of all generations of subjects, by their hashes. Needs the writer's role."""
        async with self._connection.session() as session:
            cursor = await session.execute(_SUBJECT_REFS, [hashes])
            return [row[0] for row in await cursor.fetchall()]


def _absence(name: LogName, row: tuple[Any, ...]) -> Absence:
    leaf, event_id, occurred_at_us = row
    return Absence(
        Part.EVENT,
        Store.LEDGER,
        str(name),
        leaf,
        f"leaf {leaf} has no row in audit_logs",
        str(event_id),
        occurred_at_us=occurred_at_us,
    )


def _exported(name: LogName, filters: ExportFilters, row: tuple[Any, ...]) -> ExportedEvent:
    index, fixed, actor_ref, family, canonical, hashed = row
    if leaf_hash(canonical) != hashed:
        raise ChainBroken(
            str(name), f"leaf {index}: the row in audit_logs is not what was hashed; {_VERIFY}"
        )
    offset, occurred, stored, broker, schema_id, event_id = _fixed(fixed)
    body = orjson.loads(canonical)
    if filters.tenants and body["clear"]["tenant"] not in filters.tenants:
        raise ChainBroken(str(name), f"leaf {index} is of another tenant than its row; {_VERIFY}")
    event = SealedEvent(
        event_id=event_id,
        family=family,
        occurred_at_us=occurred + POSTGRES_EPOCH_US,
        offset=offset,
        broker_timestamp_ms=(broker + POSTGRES_EPOCH_US) // 1000,
        schema_id=schema_id,
        clear=body["clear"],
        opened={},
        canonical=canonical,
        leaf_hash=hashed,
        blobs=(),
        actor_ref=actor_ref,
        stored_at_us=stored + POSTGRES_EPOCH_US,
    )
    return ExportedEvent(index, event, body["sealed"])
