"""Legal holds: placed, released, and the one answer to whether something is held, and by what.

The answer is the database's (``held_leaves``), which also refuses to change a held blob or to destroy
a held person's key, whoever asks. A hold counts from the moment that ``place`` returns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pipeline.db.connection import Connection
from pipeline.domain.errors import ConfigurationError, Held

_COLUMNS = """hold_id, tenant, subject_hash, name, event_id, occurred_from, occurred_until, reason, owner,
    placed_by, placed_at, ends_at, released_by, released_at"""
_PLACE = """
INSERT INTO legal_hold (hold_id, tenant, subject_hash, log_id, event_id, occurred_from, occurred_until,
    reason, owner, placed_by, placed_at, ends_at, released_by, released_at)
VALUES (%(hold_id)s, %(tenant)s, %(subject_hash)s,
    (SELECT log_id FROM log_heads WHERE name = %(log)s), %(event_id)s, %(occurred_from)s,
    %(occurred_until)s, %(reason)s, %(owner)s, %(placed_by)s, %(placed_at)s, %(ends_at)s,
    %(released_by)s, %(released_at)s)
ON CONFLICT (hold_id) DO NOTHING
"""
_LOG = "SELECT FROM log_heads WHERE name = %s"
_RELEASE = """
UPDATE legal_hold SET released_by = %s, released_at = now()
WHERE hold_id = %s AND released_at IS NULL
"""
_LIST = f"""
SELECT {_COLUMNS} FROM legal_hold LEFT JOIN log_heads USING (log_id) ORDER BY placed_at, hold_id
"""  # noqa: S608 - a constant
_HELD = "SELECT leaf_index, hold_id FROM held_leaves(%s, %s, %s)"
_ON_SUBJECTS = "SELECT DISTINCT hold_id FROM holds_on_subjects(%s::bytea[])"
_ON_MONTH = "SELECT DISTINCT hold_id FROM holds_on_month(%s) AS held (hold_id)"


@dataclass(frozen=True, slots=True)
class LegalHold:
    """One hold. What is None does not narrow it; a person is named by keyed hash alone."""

    hold_id: UUID
    tenant: str
    subject_hash: bytes | None
    log: str | None
    event_id: UUID | None
    occurred_from: datetime | None
    occurred_until: datetime | None
    reason: str
    owner: str
    placed_by: str
    placed_at: datetime
    ends_at: datetime | None = None
    released_by: str | None = None
    released_at: datetime | None = None

    def stands(self, now: datetime) -> bool:
        """Whether it holds anything at a time."""
        return self.released_at is None and (self.ends_at is None or self.ends_at > now)

    @property
    def scope(self) -> str:
        """In words, without naming a person."""
        parts = [f"tenant {self.tenant}"]
        parts += ["one person"] if self.subject_hash else []
        parts += [f"log {self.log}"] if self.log else []
        parts += [f"event {self.event_id}"] if self.event_id else []
        parts += [f"from {self.occurred_from.isoformat()}"] if self.occurred_from else []
        parts += [f"until {self.occurred_until.isoformat()}"] if self.occurred_until else []
        return ", ".join(parts)


class Holds:
    """The table ``legal_hold``, as audit_redactor. Every call may raise ``Unavailable``."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._connection = Connection(url, name="holds", timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def place(self, hold: LegalHold) -> bool:
        """Store a hold; False when it is there. Durable on return, and in force.

        Raises:
            ConfigurationError: There is no such log.
        """
        row = {name: getattr(hold, name) for name in LegalHold.__dataclass_fields__}
        async with self._connection.session() as connection:
            if hold.log is not None:
                cursor = await connection.execute(_LOG, [hold.log])
                if await cursor.fetchone() is None:
                    raise ConfigurationError(f"there is no log {hold.log}")
            placed = await connection.execute(_PLACE, row)
            return placed.rowcount == 1

    async def release(self, hold_id: UUID, by: str) -> bool:
        """End a hold; False when no such hold stands."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_RELEASE, [by, hold_id])
            return cursor.rowcount == 1

    async def all(self) -> list[LegalHold]:
        """Every hold that ever was, oldest first."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_LIST)
            return [LegalHold(*row) for row in await cursor.fetchall()]

    async def held(self, log_id: int, first_leaf: int, next_leaf: int) -> Mapping[int, list[UUID]]:
        """Which of the leaves before ``next_leaf`` are held, and by what; what is not named is free."""
        found: defaultdict[int, list[UUID]] = defaultdict(list)
        async with self._connection.session() as connection:
            cursor = await connection.execute(_HELD, [log_id, first_leaf, next_leaf])
            for leaf, hold in await cursor.fetchall():
                found[leaf].append(hold)
        return found

    async def on_subjects(self, hashes: Sequence[bytes]) -> list[UUID]:
        """The holds that keep any of these persons from being erased; an erasure waits for them."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_ON_SUBJECTS, [list(hashes)])
            return [hold for (hold,) in await cursor.fetchall()]

    async def on_month(self, month: datetime) -> list[UUID]:
        """The holds on any event of the month that begins at a time."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_ON_MONTH, [month])
            return [hold for (hold,) in await cursor.fetchall()]

    async def refuse_held(self, log_id: int, leaves: Sequence[int], what: str) -> None:
        """Return if none of the leaves (in order, one at least) is held.

        Raises:
            Held: Names the holds.
        """
        held = await self.held(log_id, leaves[0], leaves[-1] + 1)
        if holds := [hold for leaf in leaves for hold in held.get(leaf, ())]:
            raise Held(what, holds)
