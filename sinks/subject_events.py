"""What the ledger holds on a person: generations, the places of their events, dead letters, holds.

As audit_writer, who sees every tenant; by keyed hash and reference alone, and no key is made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from pipeline.db.connection import Connection

PAGE_EVENTS = 500

_GENERATIONS = """
SELECT subject_hash, generation, subject_ref, tenant, id_type, first_occurred_at, created_at, erased_at
FROM subjects_by_hash(%s::bytea[])
"""
_EVENTS = """
SELECT DISTINCT blobs.occurred_at, log_heads.name COLLATE "C" AS name, blobs.leaf_index, blobs.log_id
FROM audit_blobs AS blobs JOIN log_heads USING (log_id)
WHERE blobs.subject_ref = ANY (%(refs)s)
    AND (blobs.occurred_at, log_heads.name COLLATE "C", blobs.leaf_index)
        > (%(at)s::timestamptz, %(name)s::text COLLATE "C", %(leaf)s::bigint)
ORDER BY 1, 2, 3 LIMIT %(limit)s
"""
_LETTERS = "SELECT count(*) FROM dead_letter_key WHERE raw_key_hash = ANY (%s)"
_CUT = """
SELECT log_id, leaf_index, paths FROM redaction_flag
WHERE log_id = ANY (%s) AND leaf_index = ANY (%s) AND redacted_at IS NOT NULL
"""
_HOLDS = "SELECT count(DISTINCT hold_id) FROM holds_on_subjects(%s::bytea[])"


@dataclass(frozen=True, slots=True)
class Generation:
    """One life of a subject: a person who comes back after an erasure has another."""

    subject_hash: bytes
    generation: int
    subject_ref: UUID
    tenant: str
    id_type: str
    first_occurred_at: datetime
    created_at: datetime
    erased_at: datetime | None


class Named(NamedTuple):
    """Where an event is that names a person."""

    occurred_at: datetime
    log: str
    leaf_index: int
    log_id: int


class SubjectEvents:
    """Questions about persons over one connection. Every call may raise ``Unavailable``."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._connection = Connection(url, name="subject-events", timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def generations(self, hashes: Sequence[bytes]) -> list[Generation]:
        """What is known of persons by keyed hash; nobody is made."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_GENERATIONS, [list(hashes)])
            return [Generation(*row) for row in await cursor.fetchall()]

    async def pages(self, refs: Sequence[UUID]) -> AsyncIterator[list[Named]]:
        """The events that hold values of these subjects, by time, so many as a page has."""
        after: tuple[object, str, int] = ("-infinity", "", -1)
        while True:
            at, name, leaf = after
            values = {
                "refs": list(refs),
                "at": at,
                "name": name,
                "leaf": leaf,
                "limit": PAGE_EVENTS,
            }
            async with self._connection.session() as connection:
                cursor = await connection.execute(_EVENTS, values)
                page = [Named(*row) for row in await cursor.fetchall()]
            if not page:
                return
            yield page
            after = page[-1][:3]

    async def redacted(self, page: Sequence[Named]) -> dict[tuple[int, int], set[str]]:
        """The paths that were cut from events of a page, by log id and leaf."""
        logs, leaves = [one.log_id for one in page], [one.leaf_index for one in page]
        found: dict[tuple[int, int], set[str]] = {}
        async with self._connection.session() as connection:
            cursor = await connection.execute(_CUT, [logs, leaves])
            for log_id, leaf, paths in await cursor.fetchall():
                found.setdefault((log_id, leaf), set()).update(paths)
        return found

    async def dead_letters(self, raw_key_hashes: Sequence[bytes]) -> int:
        """How many records under these raw keys were refused, and are kept encrypted."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_LETTERS, [list(raw_key_hashes)])
            (count,) = await cursor.fetchone() or (0,)
            return int(count)

    async def holds(self, hashes: Sequence[bytes]) -> int:
        """How many legal holds keep these persons' events."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_HOLDS, [list(hashes)])
            (count,) = await cursor.fetchone() or (0,)
            return int(count)
