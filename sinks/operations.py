"""What operators see and change beside the ledger: pauses, lag, recorded schemas.

Guarantees that a pause, once noted, stands over restarts until a person lifts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.db.connection import Connection
from pipeline.domain.logs import LogName
from sinks.recorded_schemas import RecordedSchemas

_PAUSE = """
INSERT INTO partition_pause (topic, partition, reason, detail, first_offset, next_offset)
VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (topic, partition) WHERE resumed_at IS NULL DO NOTHING
"""
_PAUSES = """
SELECT topic, partition, reason, detail, first_offset, next_offset, since FROM partition_pause
WHERE resumed_at IS NULL ORDER BY topic, partition
"""
_RESUME = """
UPDATE partition_pause SET resumed_at = now()
WHERE topic = %s AND partition = %s AND resumed_at IS NULL
"""
# ``cut before``: as the command says that was carried out before the database was restored.
_DELETED_BELOW = """
SELECT max((steps -> step -> 'deleted_below' ->> %s)::bigint)
FROM redaction_request, unnest(ARRAY['topics', 'cut before']) AS step
"""
_HEADS = """
SELECT log_id, name, size, next_offset, root, updated_at FROM log_heads
ORDER BY topic, partition, epoch
"""
_POSITIONS = """
SELECT follower, log_id, next_leaf, updated_at FROM follower_position ORDER BY follower, log_id
"""


@dataclass(frozen=True, slots=True)
class Pause:
    """A partition that stands still until a person resumes it; offsets where they are known.

    ``reason`` is one of a closed set, ``detail`` the same in a sentence.
    """

    topic: str
    partition: int
    reason: str
    detail: str
    first_offset: int | None
    next_offset: int | None
    since: datetime


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A log as ``log_heads`` has it."""

    log_id: int
    name: LogName
    size: int
    next_offset: int
    root: bytes
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class PositionRow:
    """How far one follower is on one log."""

    follower: str
    log_id: int
    next_leaf: int
    updated_at: datetime


class Operations:
    """Operators' tables in PostgreSQL, over one connection. Every call may raise ``Unavailable``."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._connection = Connection(url, name="operations", timeout_s=timeout_s)
        self.schemas = RecordedSchemas(self._connection)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def pause(
        self,
        topic: str,
        partition: int,
        *,
        reason: str,
        detail: str,
        first_offset: int | None = None,
        next_offset: int | None = None,
    ) -> bool:
        """Note a pause; False when the partition is paused already, and stays as it is."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(
                _PAUSE, [topic, partition, reason, detail, first_offset, next_offset]
            )
            return cursor.rowcount == 1

    async def pauses(self) -> list[Pause]:
        """The pauses that stand."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_PAUSES)
            return [Pause(*row) for row in await cursor.fetchall()]

    async def resume(self, topic: str, partition: int) -> bool:
        """Lift a pause; False when there was none."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_RESUME, [topic, partition])
            return cursor.rowcount == 1

    async def deleted_below(self, topic: str, partition: int) -> int:
        """Up to where erasures deleted the records of a partition, the ledger and the archive having
        them; 0: they did not.
        """
        async with self._connection.session() as connection:
            cursor = await connection.execute(_DELETED_BELOW, [f"{topic}/{partition}"])
            (offset,) = await cursor.fetchone() or (None,)
            return int(offset or 0)

    async def heads(self) -> list[HeadRow]:
        """Every log."""
        async with self._connection.session() as connection:
            cursor = await connection.cursor(binary=True).execute(_HEADS)
            return [
                HeadRow(log_id, LogName.parse(name), size, next_offset, root, updated_at)
                for log_id, name, size, next_offset, root, updated_at in await cursor.fetchall()
            ]

    async def positions(self) -> list[PositionRow]:
        """Every follower's position on every log that it has begun."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_POSITIONS)
            return [PositionRow(*row) for row in await cursor.fetchall()]
