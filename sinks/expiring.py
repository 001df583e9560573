"""The leaves that an expiry is about, found the same way before and after: for roots, vault and proofs.

Of a whole month by the leaves alone, which outlive it; of a tenant's class by the rows of the month,
which stay. As audit_writer, who sees every tenant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from pipeline.db.connection import Connection

PAGE_LEAVES = 20_000

_OF_MONTH = """
SELECT leaf_index, leaf_hash, occurred_at, event_id FROM leaves
WHERE log_id = %(log_id)s AND leaf_index >= %(first)s AND leaf_index < %(next)s
    AND occurred_at >= %(start)s AND occurred_at < %(end)s
ORDER BY leaf_index
"""
_OF_CLASS = """
SELECT leaf_index, leaf_hash, occurred_at, leaves.event_id FROM audit_logs
JOIN leaves USING (log_id, leaf_index, occurred_at)
WHERE log_id = %(log_id)s AND leaf_index >= %(first)s AND leaf_index < %(next)s
    AND occurred_at >= %(start)s AND occurred_at < %(end)s AND tenant = %(tenant)s
    AND (%(class)s::text IS NULL OR coalesce(event #>> '{clear,retention_class}', '') = %(class)s)
    AND stored_at <= %(until)s
    AND (%(after)s::timestamptz IS NULL OR stored_at > %(after)s)
ORDER BY leaf_index
"""


class ExpiringLeaf(NamedTuple):
    """One leaf of an expiry."""

    leaf_index: int
    leaf_hash: bytes
    occurred_at: datetime
    event_id: object


@dataclass(frozen=True, slots=True)
class Scope:
    """What expires of a month; ``tenant`` None: all of it. ``stored_after`` is not included."""

    month: datetime
    tenant: str | None = None
    class_: str | None = None
    stored_after: datetime | None = None
    stored_until: datetime | None = None

    @property
    def end(self) -> datetime:
        """The next month's start."""
        year, month = divmod(self.month.year * 12 + self.month.month, 12)
        return datetime(year, month + 1, 1, tzinfo=UTC)


class ExpiringLeaves:
    """Questions to the ledger over one connection. Every call may raise ``Unavailable``."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._connection = Connection(url, name="expiring", timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def pages(
        self, scope: Scope, log_id: int, next_leaf: int, *, first_leaf: int = 0
    ) -> AsyncIterator[list[ExpiringLeaf]]:
        """Leaves of one log from ``first_leaf`` to before ``next_leaf``, in order, so many as a page has;
        never an empty one.
        """
        for first in range(first_leaf, next_leaf, PAGE_LEAVES):
            values = {
                "log_id": log_id,
                "first": first,
                "next": min(first + PAGE_LEAVES, next_leaf),
                "start": scope.month,
                "end": scope.end,
                "tenant": scope.tenant,
                "class": scope.class_,
                "until": scope.stored_until,
                "after": scope.stored_after,
            }
            query = _OF_MONTH if scope.tenant is None else _OF_CLASS
            async with self._connection.session() as connection:
                cursor = await connection.execute(query, values)
                found = [ExpiringLeaf(*row) for row in await cursor.fetchall()]
            if found:
                yield found
