"""What gives authority, as it stands: orders in the bucket, erasures, and the trail's leaves about them.

Reads as ``audit_auditor``, in bounded pieces, and judges nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from pipeline.compliance.archive_objects import PARENTS
from pipeline.compliance.grants import Expired
from pipeline.db.connection import Connection
from pipeline.domain.erasure import ACTION_DONE
from pipeline.domain.errors import ChainBroken
from pipeline.domain.logs import SYSTEM_TOPIC, LogName
from pipeline.domain.merkle import Frontier, leaf_hash
from pipeline.domain.orders import ORDERS_PREFIX, Order
from sinks.archive_listing import KeyVersions, key_versions
from sinks.archive_reader import ArchiveReader
from sinks.expiring import ExpiringLeaves, Scope
from sinks.s3 import S3

LEAVES_PAGE: Final = 20_000
REQUESTS_PAGE: Final = 200

_LOGS = 'SELECT log_id, name FROM log_heads ORDER BY name COLLATE "C"'
_STATE = """
SELECT (SELECT count(*) FROM removal_request WHERE state <> 'planned'),
    (SELECT count(*) FROM redaction_request WHERE epoch IS NOT NULL),
    (SELECT count(*) FROM redaction_request WHERE steps ? 'leaves')
"""
_PLANNED = "SELECT EXISTS (SELECT FROM removal_request WHERE request_id = %s AND state = 'planned')"
_LEAF = """
SELECT name, leaf_index, leaf_hash,
    (SELECT json_send(event) FROM audit_logs AS held
     WHERE held.log_id = leaves.log_id AND held.leaf_index = leaves.leaf_index
         AND held.occurred_at = leaves.occurred_at LIMIT 1)
FROM leaves JOIN log_heads USING (log_id)
WHERE event_id = %s AND topic = %s AND leaf_index < size
"""
_ERASURES = """
SELECT request_id, subject_hashes, subject_refs, steps -> %s::text ->> 'event_id'
FROM redaction_request WHERE epoch IS NOT NULL AND request_id > %s ORDER BY request_id LIMIT %s
"""
_LOGS_OF_ERASURE = """
SELECT log_id FROM log_heads
WHERE EXISTS (SELECT FROM redaction_leaf AS affected
              WHERE request_id = %s AND affected.log_id = log_heads.log_id)
ORDER BY name COLLATE "C"
"""
_KEPT = """
SELECT count(*), coalesce(string_agg(leaf_hash, ''::bytea ORDER BY leaf_index), ''), max(leaf_index),
    count(leaf_hash)
FROM (SELECT leaf_index, leaf_hash FROM redaction_leaf LEFT JOIN leaves USING (log_id, leaf_index)
      WHERE request_id = %s AND log_id = %s AND leaf_index > %s ORDER BY leaf_index LIMIT %s) AS page
"""
_HASHES = """
SELECT count(*), coalesce(string_agg(leaf_hash, ''::bytea ORDER BY leaf_index), '')
FROM leaves WHERE log_id = %s AND leaf_index = ANY (%s)
"""
# A page of a log's leaves, parted by the orders whose month they are of and whose bounds they are before.
_OF_MONTHS = """
SELECT number, string_agg(leaf_hash, ''::bytea ORDER BY leaf_index)
FROM leaves JOIN unnest(%(months)s::timestamptz[], %(bounds)s::bigint[]) WITH ORDINALITY
    AS ordered (month, bound, number)
    ON date_trunc('month', occurred_at, 'UTC') = month AND leaf_index < bound
WHERE log_id = %(log_id)s AND leaf_index >= %(first)s AND leaf_index < %(end)s
GROUP BY number
"""
_COMMITTED = """
SELECT leaf_index, request_id FROM redaction_leaf
WHERE log_id = %s AND leaf_index = ANY (%s) AND request_id = ANY (%s)
"""


class ErasureRow(NamedTuple):
    """An erasure that destroyed keys. ``event_id``: of the event that commits to its leaves; None: it has
    not come so far.
    """

    request_id: UUID
    subject_hashes: list[bytes]
    subject_refs: list[UUID]
    event_id: str | None


class AuthorityReader:
    """Over one connection and the archive bucket. Every call may raise ``Unavailable``."""

    def __init__(
        self,
        connection: Connection,
        expiring: ExpiringLeaves,
        s3: S3,
        *,
        archive_bucket: str,
        vault_bucket: str,
    ) -> None:
        self._connection = connection
        self._expiring = expiring
        self._s3 = s3
        self._bucket = archive_bucket
        self._archive = ArchiveReader(s3, archive_bucket=archive_bucket, vault_bucket=vault_bucket)

    async def state(self) -> tuple[int, ...]:
        """Another one as soon as there is more authority than before."""
        return tuple((await self._connection.all(_STATE, []))[0])

    async def logs(self) -> dict[str, int]:
        """Log ids by name, in the order that roots are made in."""
        return {name: log_id for log_id, name in await self._connection.all(_LOGS, [])}

    async def orders(self) -> AsyncIterator[tuple[KeyVersions, bytes | None]]:
        """Every key of an order, with the first version's body; None: there is none."""
        async for found in key_versions(self._s3, self._bucket, ORDERS_PREFIX):
            stored = None
            if found.first is not None:
                stored = await self._s3.get(self._bucket, found.key, version=found.first)
            yield found, None if stored is None else stored.body

    async def is_planned(self, request_id: UUID) -> bool:
        """Whether an order still waits for its leaf: nothing was removed under it."""
        return bool((await self._connection.all(_PLANNED, [request_id]))[0][0])

    async def leaf_of(self, event_id: UUID) -> dict[str, Any] | None:
        """The event of the trail itself with this id, out of the bytes that its leaf commits to; None:
        there is no such leaf, or no store has those bytes.
        """
        for name, leaf, hashed, canonical in await self._connection.all(
            _LEAF, [event_id, SYSTEM_TOPIC]
        ):
            if canonical is None or leaf_hash(canonical) != hashed:
                canonical = await self._archived(LogName.parse(name), leaf)  # noqa: PLW2901
            if canonical is not None and leaf_hash(canonical) == hashed:
                return dict(orjson.loads(canonical))
        return None

    async def erasures(self) -> AsyncIterator[ErasureRow]:
        """Every erasure that destroyed keys."""
        after = UUID(int=0)
        while True:
            values = [f"draft {ACTION_DONE}", after, REQUESTS_PAGE]
            rows = await self._connection.all(_ERASURES, values)
            for row in rows:
                yield ErasureRow(*row)
            if len(rows) < REQUESTS_PAGE:
                return
            after = rows[-1][0]

    async def erased_root(self, request_id: UUID) -> tuple[bytes, int] | None:
        """Root and count of the leaves that an erasure affects; None: one of them is no leaf."""
        tree = Frontier()
        for (log_id,) in await self._connection.all(_LOGS_OF_ERASURE, [request_id]):
            after: int | None = -1
            while after is not None:
                values = [request_id, log_id, after, LEAVES_PAGE]
                ((rows, hashes, after, there),) = await self._connection.all(_KEPT, values)
                if there != rows:
                    return None
                tree = tree.append_packed(hashes, PARENTS)
        return tree.root(), tree.size

    async def redacted_root(self, order: Order) -> tuple[bytes, int] | None:
        """Root and count of the leaves that a redaction names; None: one of them is no leaf."""
        tree, logs = Frontier(), await self.logs()
        for name in sorted(order.leaves):
            indexes = [leaf for leaf, _paths in order.leaves[name]]
            if name not in logs or indexes != sorted(set(indexes)):
                return None
            for start in range(0, len(indexes), LEAVES_PAGE):
                page = indexes[start : start + LEAVES_PAGE]
                ((count, hashes),) = await self._connection.all(_HASHES, [logs[name], page])
                if count != len(page):
                    return None
                tree = tree.append_packed(hashes, PARENTS)
        return tree.root(), tree.size

    async def month_roots(self, months: Sequence[Expired]) -> list[tuple[bytes, int]]:
        """Root and count of the leaves of each expiry of a whole month; one pass over all leaves."""
        trees = [Frontier() for _ in months]
        starts = [one.scope.month for one in months]
        for name, log_id in (await self.logs()).items():
            bounds = [one.bounds.get(name, 0) for one in months]
            values: dict[str, object] = {"months": starts, "bounds": bounds, "log_id": log_id}
            end = max(bounds, default=0)
            for first in range(0, end, LEAVES_PAGE):
                page = {"first": first, "end": min(first + LEAVES_PAGE, end)}
                for number, hashes in await self._connection.all(_OF_MONTHS, values | page):
                    trees[number - 1] = trees[number - 1].append_packed(hashes, PARENTS)
        return [(tree.root(), tree.size) for tree in trees]

    async def class_root(self, scope: Scope, bounds: Mapping[str, int]) -> tuple[bytes, int]:
        """Root and count of the leaves of a class that an expiry is about, by their rows."""
        tree = Frontier()
        for name, log_id in (await self.logs()).items():
            async for page in self._expiring.pages(scope, log_id, bounds.get(name, 0)):
                tree = tree.append_packed(b"".join([leaf.leaf_hash for leaf in page]), PARENTS)
        return tree.root(), tree.size

    async def in_scope(self, scope: Scope, log_id: int, leaves: Collection[int]) -> set[int]:
        """Those of some leaves that an expiry is about."""
        found: set[int] = set()
        first, end = min(leaves), max(leaves) + 1
        async for page in self._expiring.pages(scope, log_id, end, first_leaf=first):
            found.update([leaf.leaf_index for leaf in page])
        return found.intersection(leaves)

    async def committed(
        self, log_id: int, leaves: Sequence[int], requests: Collection[UUID]
    ) -> set[tuple[int, UUID]]:
        """(leaf, request) of the leaves that these erasures commit to."""
        rows = await self._connection.all(_COMMITTED, [log_id, list(leaves), list(requests)])
        return {(leaf, request) for leaf, request in rows}

    async def _archived(self, name: LogName, leaf: int) -> bytes | None:
        """The canonical bytes of a leaf whose row has expired, out of the archive."""
        try:
            async for found in self._archive.ranges(name, leaf):
                if found.info.first_leaf > leaf:
                    return None
                held = await self._archive.read(found, 0)
                return bytes(held.events[leaf - held.first_leaf].canonical)
        except ChainBroken:
            return None  # whoever walks the archive names what is wrong with it
        return None
