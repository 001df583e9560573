"""Retention policies and what the months of the ledger hold, for expiry. As audit_redactor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.db.connection import Connection

_SET = """
INSERT INTO retention_policy (tenant, class, days, set_by) VALUES (%s, %s, %s, %s)
ON CONFLICT (tenant, class) DO UPDATE
SET days = excluded.days, set_by = excluded.set_by, set_at = now()
"""
_REMOVE = "DELETE FROM retention_policy WHERE tenant = %s AND class = %s"
_ALL = "SELECT tenant, class, days, set_by, set_at FROM retention_policy ORDER BY tenant, class"
_MONTHS = "SELECT month, events, bytes FROM month_sizes()"
_CONTENTS = """
SELECT log_id, name, tenant, class, events, next_leaf, first_stored_at, last_stored_at
FROM month_contents(%s) JOIN log_heads USING (log_id) ORDER BY name COLLATE "C", tenant, class
"""


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long a tenant's events of one class are kept; ``class_`` empty: all others of the tenant."""

    tenant: str
    class_: str
    days: int
    set_by: str
    set_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Month:
    """A month that has partitions: about how many events, and their bytes with all blobs and indexes."""

    start: datetime
    events: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What a month has of one log, tenant and retention class. Their last leaf is before ``next_leaf``."""

    log_id: int
    log: str
    tenant: str
    class_: str
    events: int
    next_leaf: int
    first_stored_at: datetime
    last_stored_at: datetime


class Retention:
    """Policies and months over one connection. Every call may raise ``Unavailable``."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._connection = Connection(url, name="retention", timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def set(self, policy: RetentionPolicy) -> None:
        """Set or replace a policy; durable on return."""
        async with self._connection.session() as connection:
            await connection.execute(
                _SET, [policy.tenant, policy.class_, policy.days, policy.set_by]
            )

    async def remove(self, tenant: str, class_: str) -> bool:
        """Take a policy away; False when there was none."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_REMOVE, [tenant, class_])
            return cursor.rowcount == 1

    async def policies(self) -> list[RetentionPolicy]:
        """Every policy, by tenant and class."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_ALL)
            return [RetentionPolicy(*row) for row in await cursor.fetchall()]

    async def months(self) -> list[Month]:
        """Every month that has partitions, oldest first."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_MONTHS)
            return [
                Month(start.astimezone(UTC), events, size)
                for start, events, size in await cursor.fetchall()
            ]

    async def contents(self, month: Month) -> Sequence[Contents]:
        """What a month holds, by log (in the order of roots), tenant and class; reads all of it."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_CONTENTS, [month.start])
            return [Contents(*row) for row in await cursor.fetchall()]
