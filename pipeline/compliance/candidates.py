"""Finding the events that a redaction or an expiry may be about, and reading them from the ledger.

As audit_writer, who sees every tenant's rows; nothing is changed here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pipeline.db.connection import Connection
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import LogName
from pipeline.domain.records import SealedEvent
from sinks.ledger import PostgresLedger

PAGE_LEAVES = 20_000  # leaf indexes that one question is about
RUN_LEAVES = 1_000  # leaves of one read

_LOGS = """
SELECT log_id, name, size FROM log_heads ORDER BY name COLLATE "C"
"""
_PLACE = """
SELECT log_id, name, leaf_index, tenant FROM leaves JOIN log_heads USING (log_id)
JOIN audit_logs USING (log_id, leaf_index, occurred_at) WHERE leaves.event_id = %s
"""
_FOUND = """
SELECT leaf_index FROM audit_logs
WHERE log_id = %(log_id)s AND leaf_index >= %(first)s AND leaf_index < %(next)s
    AND (%(tenants)s::text[] IS NULL OR tenant = ANY (%(tenants)s))
    AND (%(families)s::text[] IS NULL OR family = ANY (%(families)s))
    AND (%(actions)s::text[] IS NULL OR action = ANY (%(actions)s))
    AND (%(occurred_from)s::timestamptz IS NULL OR occurred_at >= %(occurred_from)s)
    AND (%(occurred_until)s::timestamptz IS NULL OR occurred_at < %(occurred_until)s)
    AND (%(old_at)s::timestamptz IS NULL OR (occurred_at <= %(old_at)s AND stored_at <= %(old_at)s))
ORDER BY leaf_index
"""
_PRESENT = """
SELECT leaf_index FROM audit_logs WHERE log_id = %s AND leaf_index = ANY (%s) ORDER BY leaf_index
"""
_OLD_UNTIL = """
SELECT coalesce(min(leaf_index), %(next)s) FROM audit_logs
WHERE log_id = %(log_id)s AND leaf_index >= %(first)s AND leaf_index < %(next)s
    AND (stored_at > %(old_at)s OR occurred_at > %(old_at)s)
"""
_ARCHIVED = """
SELECT name, coalesce(min(next_leaf) FILTER (WHERE follower = %s), 0) FROM log_heads
LEFT JOIN follower_position USING (log_id) GROUP BY name
"""


class LogSize(NamedTuple):
    """A log and how many leaves it has."""

    log_id: int
    name: LogName
    size: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events. Empty and None: all of them. ``old_at``: both their times are at or before it."""

    tenants: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    occurred_from: datetime | None = None
    occurred_until: datetime | None = None
    old_at: datetime | None = None


class Candidates:
    """Questions to the ledger. Every call may raise ``Unavailable``."""

    def __init__(self, url: str, ledger: PostgresLedger, *, timeout_s: float = 10.0) -> None:
        self._connection = Connection(url, name="candidates", timeout_s=timeout_s)
        self._ledger = ledger

    async def close(self) -> None:
        """Close the connection; the ledger belongs to whoever made it."""
        await self._connection.close()

    async def logs(self) -> list[LogSize]:
        """Every log, in the order that roots are made in."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_LOGS)
            return [
                LogSize(i, LogName.parse(name), size) for i, name, size in await cursor.fetchall()
            ]

    async def place(self, event_id: UUID) -> tuple[LogSize, int, str]:
        """Log, leaf and tenant of one event.

        Raises:
            ConfigurationError: The ledger does not have it.
        """
        async with self._connection.session() as connection:
            cursor = await connection.execute(_PLACE, [event_id])
            row = await cursor.fetchone()
        if row is None:
            raise ConfigurationError(f"the ledger has no event {event_id}")
        return LogSize(row[0], LogName.parse(row[1]), row[2] + 1), row[2], row[3]

    async def indexes(
        self, log: LogSize, selection: Selection, *, first_leaf: int = 0
    ) -> AsyncIterator[list[int]]:
        """Leaf indexes of the chosen events of a log, in order, a page at a time."""
        for first in range(first_leaf, log.size, PAGE_LEAVES):
            values = self._values(log, selection, first, min(first + PAGE_LEAVES, log.size))
            async with self._connection.session() as connection:
                cursor = await connection.execute(_FOUND, values)
                found = [leaf for (leaf,) in await cursor.fetchall()]
            yield found

    async def present(self, log_id: int, indexes: Sequence[int]) -> list[int]:
        """Those of the leaves whose rows are there; the others' months have expired."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_PRESENT, [log_id, list(indexes)])
            return [leaf for (leaf,) in await cursor.fetchall()]

    async def old_until(
        self, log: LogSize, first_leaf: int, next_leaf: int, old_at: datetime
    ) -> int:
        """The first of the leaves that is not old enough yet, or ``next_leaf``."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(
                _OLD_UNTIL,
                {"log_id": log.log_id, "first": first_leaf, "next": next_leaf, "old_at": old_at},
            )
            (until,) = await cursor.fetchone() or (next_leaf,)
            return int(until)

    async def events(
        self, log: LogSize, indexes: Sequence[int]
    ) -> AsyncIterator[tuple[int, SealedEvent]]:
        """The events of some leaves (in order), with their blobs; each verified against its leaf.

        Raises:
            ChainBroken: A row is missing, or is not what was hashed.
        """
        for first, count in runs(indexes):
            leaf = first
            while leaf < first + count:
                found = await self._ledger.read(log.log_id, leaf, limit=first + count - leaf)
                if not found.events:
                    return
                for event in found.events:
                    yield leaf, event
                    leaf += 1

    async def followed(self, follower: str) -> dict[str, int]:
        """How far a follower is, by log name: all leaves before are durable in its store."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_ARCHIVED, [follower])
            return dict(await cursor.fetchall())

    @staticmethod
    def _values(log: LogSize, selection: Selection, first: int, following: int) -> dict[str, Any]:
        return {
            "log_id": log.log_id,
            "first": first,
            "next": following,
            "tenants": list(selection.tenants) or None,
            "families": list(selection.families) or None,
            "actions": list(selection.actions) or None,
            "occurred_from": selection.occurred_from,
            "occurred_until": selection.occurred_until,
            "old_at": selection.old_at,
        }


def runs(indexes: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive indexes (in order) as (first, count), at most ``RUN_LEAVES`` each."""
    found: list[tuple[int, int]] = []
    for index in indexes:
        if found and index == sum(found[-1]) and found[-1][1] < RUN_LEAVES:
            found[-1] = found[-1][0], found[-1][1] + 1
        else:
            found.append((index, 1))
    return found
