"""What the signer reads of the ledger, as ``audit_signer``: heads, leaf hashes, and no event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from pipeline.db.connection import Connection
from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import LogName

PAGE_LEAVES = 8_192  # leaf hashes of one read: 256 KiB

_SELECT = """
SELECT head.log_id, name, size, root, coalesce(next_leaf, 0)
FROM log_heads AS head
LEFT JOIN follower_position AS archive ON archive.log_id = head.log_id AND follower = 'archive'
"""
_HEADS = f"{_SELECT} ORDER BY topic, partition, epoch"
_HEAD = f"{_SELECT} WHERE head.log_id = %s"
_LEAVES = """
SELECT leaf_index, leaf_hash FROM leaves
WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s ORDER BY leaf_index
"""
_LONGEST_RETENTION = "SELECT max(retention_days) FROM tenants"


@dataclass(frozen=True, slots=True)
class SignableHead:
    """A log as the ledger has it now. The archive holds its first ``archived`` leaves."""

    log_id: int
    name: LogName
    size: int
    root: bytes
    archived: int


class SignerLedger:
    """Reads over a connection that belongs to whoever made it. Every call may raise ``Unavailable``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def heads(self) -> list[SignableHead]:
        """Every log, those of earlier epochs too."""
        async with self._connection.session() as session:
            rows = await (await session.execute(_HEADS)).fetchall()
        return [_head(row) for row in rows]

    async def head(self, log_id: int) -> SignableHead:
        """One log, as it is now."""
        async with self._connection.session() as session:
            row = await (await session.execute(_HEAD, (log_id,))).fetchone()
        if row is None:
            raise Unavailable("postgres", f"the ledger does not show the head of log {log_id}")
        return _head(row)

    async def leaf_hashes(
        self, head: SignableHead, first: int, end: int
    ) -> AsyncIterator[list[bytes]]:
        """The hashes of leaves ``first`` to ``end - 1``, in pages of ``PAGE_LEAVES`` at most.

        Raises:
            ChainBroken: One of them is missing.
            Unavailable: Ask again later.
        """
        while first < end:
            page_end = min(first + PAGE_LEAVES, end)
            async with self._connection.session() as session:
                cursor = session.cursor(binary=True)
                await cursor.execute(_LEAVES, (head.log_id, first, page_end))
                rows = await cursor.fetchall()
            for place, (index, _) in enumerate(rows, first):
                if index != place:
                    raise _missing(head.name, place)
            if len(rows) != page_end - first:
                raise _missing(head.name, first + len(rows))
            yield [leaf_hash for _, leaf_hash in rows]
            first = page_end

    async def longest_retention_days(self) -> int:
        """Of the tenants that have a retention of their own; 0 if none has."""
        async with self._connection.session() as session:
            row = await (await session.execute(_LONGEST_RETENTION)).fetchone()
        return int(row[0] or 0) if row else 0


def _head(row: tuple[Any, ...]) -> SignableHead:
    log_id, name, size, root, archived = row
    return SignableHead(log_id, LogName.parse(name), size, root, archived)


def _missing(name: LogName, leaf: int) -> ChainBroken:
    return ChainBroken(
        str(name), f"leaf {leaf} is missing in the table leaves: see docs/runbooks/refused-log.md"
    )
