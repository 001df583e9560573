"""Requests to remove: their rows and flags, and the blobs in the ledger that they cut. As audit_redactor.

Guarantees that a blob is cut and its flag set in one transaction, so that after a crash the flags say
exactly what is left to do; and that nothing is cut before the ledger has the request's leaf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from pipeline.db.connection import Connection
from pipeline.domain.errors import AuditTrailError, ConfigurationError, Held
from pipeline.domain.records import SealedBlob
from sinks.rewrite_numbers import next_number

FLAGS_AT_ONCE = 1_000

_INSERT = """
INSERT INTO removal_request (request_id, kind, tenant, class, month, days, stored_after, stored_until,
    bounds, policy, reason, requested_by, requested_at, event_id, leaves, root, order_hash)
VALUES (%(request_id)s, %(kind)s, %(tenant)s, %(class_)s, %(month)s, %(days)s, %(stored_after)s,
    %(stored_until)s, %(bounds)s, %(policy)s, %(reason)s, %(requested_by)s, %(requested_at)s,
    %(event_id)s, %(leaves)s, %(root)s, %(order_hash)s)
ON CONFLICT (request_id) DO NOTHING
"""
_FLAG = """
INSERT INTO redaction_flag (request_id, log_id, leaf_index, occurred_at, paths, reason, redacted_by)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_COLUMNS = """request_id, kind, state, tenant, class, month, days, stored_after, stored_until, bounds,
    policy, reason, requested_by, requested_at, event_id, leaves, root, order_hash, counts, done_at"""
_GET = f"SELECT {_COLUMNS} FROM removal_request WHERE request_id = %s"  # noqa: S608 - a constant
_LIST = f"SELECT {_COLUMNS} FROM removal_request ORDER BY requested_at, request_id"  # noqa: S608
_IN_LEDGER = "SELECT EXISTS (SELECT FROM leaves WHERE event_id = %s)"
_ORDERED = """
UPDATE removal_request SET state = 'ordered' WHERE request_id = %s AND state = 'planned'
    AND EXISTS (SELECT FROM leaves WHERE leaves.event_id = removal_request.event_id)
"""
_DONE = """
UPDATE removal_request SET state = 'done', counts = counts || %s, done_at = now()
WHERE request_id = %s AND state = 'ordered'
"""
_COUNT = "UPDATE removal_request SET counts = counts || %s WHERE request_id = %s"
_FLAGS = """
SELECT log_id, name, leaf_index, occurred_at, paths, redacted_at IS NOT NULL
FROM redaction_flag JOIN log_heads USING (log_id)
WHERE request_id = %s ORDER BY name COLLATE "C", leaf_index
"""
_LOCK = """
SELECT FROM removal_request WHERE request_id = %s AND state = 'ordered' FOR SHARE
"""
_CUT = """
UPDATE audit_blobs SET nonce = %s, ciphertext = %s
WHERE log_id = %s AND leaf_index = %s AND occurred_at = %s AND subject_ref = %s AND nonce = %s
"""
_MARK = """
UPDATE redaction_flag SET redacted_at = now()
WHERE request_id = %s AND log_id = %s AND leaf_index = %s AND redacted_at IS NULL
"""
_DELETE_BLOBS = """
DELETE FROM audit_blobs USING unnest(%s::bigint[], %s::timestamptz[]) AS gone (leaf, at)
WHERE log_id = %s AND leaf_index = gone.leaf AND occurred_at = gone.at
RETURNING octet_length(ciphertext)
"""
_DROP_MONTH = "SELECT drop_month(%s, %s)"


@dataclass(frozen=True, slots=True)
class Request:
    """A row of ``removal_request``; columns mean what its comments say."""

    request_id: UUID
    kind: str
    state: str
    tenant: str | None
    class_: str | None
    month: date | None
    days: int | None
    stored_after: datetime | None
    stored_until: datetime | None
    bounds: Mapping[str, int]
    policy: str | None
    reason: str
    requested_by: str
    requested_at: datetime
    event_id: UUID
    leaves: int
    root: bytes
    order_hash: bytes
    counts: Mapping[str, Any]
    done_at: datetime | None


@dataclass(frozen=True, slots=True)
class Flag:
    """One event of a redaction; ``redacted``: the ledger's blobs of it are cut."""

    log_id: int
    log: str
    leaf_index: int
    occurred_at: datetime
    paths: tuple[str, ...]
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """The blobs that an event has from now on, as far as they change, each with the nonce of the blob
    that it was made of.
    """

    flag: Flag
    blobs: Sequence[tuple[bytes, SealedBlob]]


class CutMeanwhile(AuditTrailError):
    """Two requests cut the same blob at once, and this one read it before the other wrote."""


class Removals:
    """The removal tables over one connection. Every call may raise ``Unavailable`` and be repeated."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._connection = Connection(url, name="removals", timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def next_rewrite(self) -> int:
        """See ``sinks.rewrite_numbers``."""
        return await next_number(self._connection)

    async def insert(self, request: Request, flags: Sequence[Flag] = ()) -> None:
        """Store a request with its flags, all or nothing; one that is there stays. Durable on return."""
        row = {name: getattr(request, name) for name in Request.__dataclass_fields__}
        row["bounds"] = Jsonb(dict(request.bounds))
        rows = [
            (request.request_id, flag.log_id, flag.leaf_index, flag.occurred_at, list(flag.paths),
             request.reason, request.requested_by)
            for flag in flags
        ]  # fmt: skip
        async with self._connection.session() as connection, connection.transaction():
            await connection.execute(_INSERT, row)
            for start in range(0, len(rows), FLAGS_AT_ONCE):
                await connection.cursor().executemany(_FLAG, rows[start : start + FLAGS_AT_ONCE])

    async def get(self, request_id: UUID) -> Request:
        """One request.

        Raises:
            ConfigurationError: There is none with this id.
        """
        async with self._connection.session() as connection:
            cursor = await connection.execute(_GET, [request_id])
            row = await cursor.fetchone()
        if row is None:
            raise ConfigurationError(f"there is no request {request_id}")
        return Request(*row)

    async def all(self) -> list[Request]:
        """Every request, oldest first."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_LIST)
            return [Request(*row) for row in await cursor.fetchall()]

    async def in_ledger(self, event_id: UUID) -> bool:
        """Whether an event is a leaf."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_IN_LEDGER, [event_id])
            (there,) = await cursor.fetchone() or (False,)
            return bool(there)

    async def set_ordered(self, request_id: UUID) -> None:
        """Removal may begin: only once the ledger has the request's leaf, else nothing changes."""
        async with self._connection.session() as connection:
            await connection.execute(_ORDERED, [request_id])

    async def set_done(self, request_id: UUID, counts: Mapping[str, Any]) -> None:
        """Everything is gone from every store."""
        async with self._connection.session() as connection:
            await connection.execute(_DONE, [Jsonb(dict(counts)), request_id])

    async def count(self, request_id: UUID, counts: Mapping[str, Any]) -> None:
        """Remember what was removed so far."""
        async with self._connection.session() as connection:
            await connection.execute(_COUNT, [Jsonb(dict(counts)), request_id])

    async def flags(self, request_id: UUID) -> list[Flag]:
        """The events of a redaction, in the order that its root is made in."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_FLAGS, [request_id])
            return [
                Flag(log_id, log, leaf, at, tuple(paths), redacted)
                for log_id, log, leaf, at, paths, redacted in await cursor.fetchall()
            ]

    async def cut(self, request_id: UUID, cuts: Sequence[Cut]) -> None:
        """Write the blobs and set the flags, in one transaction; durable on return.

        Raises:
            Held: A legal hold covers one of them; nothing was changed.
            ConfigurationError: The request's leaf is not in the ledger.
            CutMeanwhile: Another request has changed one of the blobs since it was read: read them
                again. Nothing was changed.
        """
        async with self._connection.session(psycopg.errors.ObjectInUse) as connection:
            try:
                async with connection.transaction():
                    cursor = await connection.execute(_LOCK, [request_id])
                    if cursor.rowcount == 0:
                        raise ConfigurationError(f"request {request_id} is not ordered")
                    for cut in cuts:
                        flag = cut.flag
                        place = (flag.log_id, flag.leaf_index, flag.occurred_at)
                        for read, (ref, nonce, ciphertext) in cut.blobs:
                            changed = (nonce, ciphertext, *place, UUID(bytes=ref), read)
                            if (await connection.execute(_CUT, changed)).rowcount == 0:
                                raise CutMeanwhile(f"a blob of leaf {flag.leaf_index} was changed")
                        await connection.execute(_MARK, [request_id, *place[:2]])
            except psycopg.errors.ObjectInUse:
                raise Held(f"request {request_id}", ["on one of its events"]) from None

    async def delete_blobs(
        self, request_id: UUID, log_id: int, leaves: Sequence[tuple[int, datetime]]
    ) -> tuple[int, int]:
        """Remove all blobs of some leaves of a log; how many there were, and their bytes.

        Raises:
            Held, ConfigurationError: As ``cut``.
        """
        columns = [[leaf for leaf, _ in leaves], [at for _, at in leaves]]
        async with self._connection.session(psycopg.errors.ObjectInUse) as connection:
            try:
                async with connection.transaction():
                    cursor = await connection.execute(_LOCK, [request_id])
                    if cursor.rowcount == 0:
                        raise ConfigurationError(f"request {request_id} is not ordered")
                    cursor = await connection.execute(_DELETE_BLOBS, [*columns, log_id])
                    sizes = [size for (size,) in await cursor.fetchall()]
            except psycopg.errors.ObjectInUse:
                raise Held(f"request {request_id}", ["on one of its events"]) from None
        return len(sizes), sum(sizes)

    async def drop_month(self, month: datetime, request_id: UUID) -> int:
        """Drop the partitions of a month; the bytes that it freed, none if it is gone.

        Raises:
            Held: A hold, rows that came after the order, or a log that is not archived so far.
        """
        async with self._connection.session(psycopg.errors.ObjectInUse) as connection:
            try:
                cursor = await connection.execute(_DROP_MONTH, [month, request_id])
                (freed,) = await cursor.fetchone() or (0,)
                return int(freed)
            except psycopg.errors.ObjectInUse as refusal:
                # The function's own words: log ids and counts, nothing of an event.
                raise Held(f"month {month:%Y-%m}", [refusal.diag.message_primary]) from None
