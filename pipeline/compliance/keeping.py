"""What redaction and expiry work with, and the steps that both take: announce, wait, rewrite.

Each step may be repeated after a crash: the request's rows say what is left to do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.compliance.candidates import Candidates, LogSize
from pipeline.compliance.order_store import OrderStore
from pipeline.compliance.trail_events import Announcer, Operator, authority_event
from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.orders import Order
from pipeline.domain.records import SealedBlob
from pipeline.keys.subjects import SubjectKeys
from sinks.archive_reader import ArchivedRange, ArchiveReader
from sinks.holds import Holds
from sinks.index_rewrite import IndexRewriter, Place
from sinks.opening import BlobOpener
from sinks.removals import Removals, Request
from sinks.vault_blobs import BlobsOf, Rewritten, VaultBlobs

INDEX = "index"
ARCHIVE = "archive"
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Keeping:
    """The stores as whoever removes needs them. ``wait_s``: how long a step waits for the worker.

    ``system_tenant``: in whose trail a request stands that is no single tenant's. ``now`` decides what is
    old enough, ``asked_at`` is what a request's event says.
    """

    candidates: Candidates  # as audit_writer
    keys: SubjectKeys
    removals: Removals  # as audit_redactor
    holds: Holds
    orders: OrderStore
    archive: ArchiveReader
    vault: VaultBlobs
    index: IndexRewriter
    announce: Announcer
    operator: str
    system_tenant: str
    wait_s: float
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    asked_at: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def authorise(self, request: Request, order: Order) -> None:
        """Until the ledger holds the leaf that is the request's authority; may be repeated.

        Raises:
            ChainBroken: The order is not the one that the request's row commits to.
            Unavailable: A store, or the worker, is away: nothing was removed; call again.
        """
        if order.hash() != request.order_hash or order.root != request.root:
            raise ChainBroken(
                "orders", f"the rows of request {request.request_id} are not what was ordered"
            )
        await self.orders.put(order)
        tenant = request.tenant or self.system_tenant
        operator = Operator(request.requested_by, tenant)
        await self.announce(authority_event(order, operator, tenant=tenant))
        await self.removals.set_ordered(request.request_id)

    async def until_followed(self, follower: str, next_leaves: Mapping[str, int]) -> None:
        """Return once a follower is past these leaves, by log name: nothing that it still holds in
        memory comes to its store later.

        Raises:
            Unavailable: It is not after ``wait_s``; what was done stays done.
        """
        deadline = time.monotonic() + self.wait_s
        while True:
            followed = await self.candidates.followed(follower)
            behind = {log: leaf for log, leaf in next_leaves.items() if followed.get(log, 0) < leaf}
            if not behind:
                return
            if time.monotonic() >= deadline:
                log, leaf = next(iter(behind.items()))
                raise Unavailable(
                    "worker",
                    f"the {follower} is at leaf {followed.get(log, 0)} of log {log}, not yet at"
                    f" {leaf}; the request is resumed later",
                )
            await self.sleep(_LOOK_S)

    async def objects(
        self, log: LogSize, indexes: Sequence[int]
    ) -> AsyncIterator[tuple[ArchivedRange, list[int]]]:
        """The archive objects that hold some leaves (in order), each with those of them.

        Raises:
            ChainBroken: A leaf is in none.
        """
        left = list(indexes)
        while left:
            found = await self._holder(log, left[0])
            of_this = [leaf for leaf in left if leaf < found.info.next_leaf]
            yield found, of_this
            left = left[len(of_this) :]

    async def rewrite_vault(self, log: LogSize, indexes: Sequence[int]) -> list[Rewritten]:
        """Give leaves of a log (in order) in the vault the blobs that the ledger has of them."""

        async def held(leaves: Sequence[int]) -> dict[int, Sequence[SealedBlob]]:
            return {leaf: event.blobs async for leaf, event in self.candidates.events(log, leaves)}

        return await self._rewrite_vault(log, indexes, held)

    async def empty_vault(self, log: LogSize, indexes: Sequence[int]) -> list[Rewritten]:
        """Leaves of a log (in order) have no blobs any more in the vault."""

        async def none(leaves: Sequence[int]) -> dict[int, Sequence[SealedBlob]]:
            return dict.fromkeys(leaves, ())

        return await self._rewrite_vault(log, indexes, none)

    async def _rewrite_vault(
        self, log: LogSize, indexes: Sequence[int], blobs_of: BlobsOf
    ) -> list[Rewritten]:
        return [
            await self.vault.rewrite(log.log_id, log.name, found.info.first_leaf, leaves, blobs_of)
            async for found, leaves in self.objects(log, indexes)
        ]

    async def rewrite_index(self, log: LogSize, indexes: Sequence[int]) -> int:
        """Overwrite the documents of leaves (in order) with what catch-up would build, and begin to merge
        away what they were; how many.
        """
        opener = BlobOpener(self.keys)

        async def read() -> list[Place]:
            found = [one async for one in self.candidates.events(log, indexes)]
            await opener.open_some(log.name, found)
            return [Place(str(log.name), leaf, event) for leaf, event in found]

        written = await self.index.overwrite(read)
        await self.index.purge(sorted(written.indices))
        return written.documents + written.stubs

    async def _holder(self, log: LogSize, leaf: int) -> ArchivedRange:
        async for found in self.archive.ranges(log.name, leaf):
            if found.info.first_leaf <= leaf:
                return found
            break
        raise ChainBroken(str(log.name), f"no archive object holds leaf {leaf}")


def microseconds(time: datetime) -> int:
    """µs since 1970, exactly."""
    seconds = int(time.replace(microsecond=0).timestamp())
    return seconds * 1_000_000 + time.microsecond
