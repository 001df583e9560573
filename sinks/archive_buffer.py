"""Leaves of one log on their way into one archive object, encoded and compressed as they come.

What is held is what will be stored: a restart loses nothing but the work, since the follower
gives the same leaves again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from pipeline.domain.escrow import NOBODY
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import HASH_BYTES, Frontier
from pipeline.domain.records import SealedEvent
from sinks import archive_format, ocf
from sinks.archive_format import ObjectInfo
from sinks.ledger_plan import node_hashes

_STEP = 250  # events encoded at a time: some 256 KiB, 1 ms of the event loop


@dataclass(frozen=True, slots=True)
class ObjectPair:
    """Both objects of one leaf range, ready to be put."""

    leaves: ObjectInfo
    leaves_body: bytes
    blobs: ObjectInfo
    blobs_body: bytes


class ArchiveBuffer:
    """Consecutive leaves from ``first_leaf`` on; full at ``max_events`` or ``max_bytes``.

    Compression runs in the threads of ``executor``, which must outlive the buffer.
    """

    def __init__(
        self,
        name: LogName,
        first_leaf: int,
        *,
        executor: Executor,
        opened_at_s: float,
        max_events: int,
        max_bytes: int,
    ) -> None:
        self.name = name
        self.first_leaf = first_leaf
        self.opened_at_s = opened_at_s  # when the oldest leaf arrived; of no meaning when empty
        self.raw_bytes = 0
        self.refs: set[bytes] = set()  # subjects whose keys the blobs need
        self.tenants: set[str] = set()
        self.max_stored_at_us = 0  # leaves are stored in order: the last one of each addition
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._hashes = bytearray()
        self._first_offset = self._next_offset = 0
        self._min_occurred_at_us = self._max_occurred_at_us = 0
        sync = ocf.sync_marker(archive_format.archive_key(name, first_leaf))
        self._leaves = _Body(executor, sync, ocf.ZSTD_LEVEL)
        self._blobs = _Body(executor, sync, ocf.ZSTD_LEVEL_CIPHERTEXT)
        self._pair: ObjectPair | None = None

    def __len__(self) -> int:
        return len(self._hashes) // HASH_BYTES

    @property
    def next_leaf(self) -> int:
        """The index after the last leaf held."""
        return self.first_leaf + len(self)

    @property
    def full(self) -> bool:
        """No more leaves fit: cut here."""
        return len(self) >= self._max_events or self.raw_bytes >= self._max_bytes

    def add(self, events: Sequence[SealedEvent]) -> int:
        """Take the events that follow ``next_leaf``, as many as fit; how many were taken."""
        taken = 0
        while taken < len(events) and not self.full:
            step = min(_STEP, self._max_events - len(self))
            chosen = events[taken : taken + step]
            self._add(chosen)
            taken += len(chosen)
        return taken

    def add_all(self, events: Sequence[SealedEvent]) -> None:
        """Take all of the events that follow ``next_leaf``, full or not."""
        for start in range(0, len(events), _STEP):
            self._add(events[start : start + _STEP])

    def hashes(self, next_leaf: int) -> list[bytes]:
        """The leaf hashes from ``first_leaf`` up to before ``next_leaf``, as far as held."""
        end = min(next_leaf, self.next_leaf) - self.first_leaf
        held = bytes(self._hashes[: end * HASH_BYTES])
        return [held[at : at + HASH_BYTES] for at in range(0, len(held), HASH_BYTES)]

    async def pair(self) -> ObjectPair:
        """The two objects of everything held (at least one leaf), the same however often asked.

        Nothing may be added from the first call on.
        """
        if self._pair is None:
            leaf_blocks = await self._leaves.blocks()
            blob_blocks = await self._blobs.blocks()
            # Hashing megabytes releases the GIL; 50,000 tree nodes are 25 ms a loop would feel.
            self._pair = await asyncio.to_thread(self._assemble, leaf_blocks, blob_blocks)
            self._leaves.release()
            self._blobs.release()
        return self._pair

    def _add(self, events: Sequence[SealedEvent]) -> None:
        leaf = self.next_leaf
        times = [event.occurred_at_us for event in events]
        if self._hashes:
            times += (self._min_occurred_at_us, self._max_occurred_at_us)
        else:
            self._first_offset = events[0].offset
        self._min_occurred_at_us, self._max_occurred_at_us = min(times), max(times)
        self._next_offset = events[-1].offset + 1
        self._hashes += b"".join([event.leaf_hash for event in events])
        self.tenants.update([event.tenant for event in events])
        self.max_stored_at_us = max(self.max_stored_at_us, events[-1].stored_at_us)
        self.raw_bytes += self._leaves.add(archive_format.leaf_datums(events, leaf), len(events))
        blobs = archive_format.blob_datums(events, leaf)
        if blobs.datums:
            self.refs.update(blobs.refs)
            self.refs.discard(NOBODY)
            self.raw_bytes += self._blobs.add(blobs.pieces, blobs.datums)

    def _assemble(self, leaf_blocks: list[bytes], blob_blocks: list[bytes]) -> ObjectPair:
        describe = partial(
            ObjectInfo,
            name=self.name,
            first_leaf=self.first_leaf,
            last_leaf=self.next_leaf - 1,
            first_offset=self._first_offset,
            next_offset=self._next_offset,
            min_occurred_at_us=self._min_occurred_at_us,
            max_occurred_at_us=self._max_occurred_at_us,
            root=Frontier().append(self.hashes(self.next_leaf), node_hashes).root(),
        )
        leaf_header = ocf.header(archive_format.LEAF_SCHEMA, self._leaves.sync)
        blob_header = ocf.header(archive_format.BLOB_SCHEMA, self._blobs.sync)
        leaves = b"".join((leaf_header, *leaf_blocks))
        blobs = b"".join((blob_header, *blob_blocks))
        return ObjectPair(
            leaves=describe(records=len(self), body_sha256=sha256(leaves).digest()),
            leaves_body=leaves,
            blobs=describe(records=self._blobs.count, body_sha256=sha256(blobs).digest()),
            blobs_body=blobs,
        )


class _Body:
    """The blocks of one container file: full ones compressed or being so, the last one open."""

    def __init__(self, executor: Executor, sync: bytes, level: int) -> None:
        self.sync = sync
        self._level = level
        self.count = 0
        self._executor = executor
        self._closed: list[Future[bytes]] = []
        self._open: list[bytes] = []
        self._open_count = 0
        self._open_bytes = 0

    def add(self, parts: list[bytes], count: int) -> int:
        """Take ``count`` datums; how many bytes they are."""
        size_bytes = sum(map(len, parts))
        self._open += parts
        self._open_count += count
        self._open_bytes += size_bytes
        self.count += count
        if self._open_bytes >= ocf.BLOCK_BYTES:
            self._close_block()
        return size_bytes

    async def blocks(self) -> list[bytes]:
        if self._open:
            self._close_block()
        # Shielded: a cancelled write must not cancel a block, which the next try needs.
        return [await asyncio.shield(asyncio.wrap_future(block)) for block in self._closed]

    def release(self) -> None:
        """Drop the blocks: they are in the object now."""
        self._closed.clear()

    def _close_block(self) -> None:
        block = self._executor.submit(
            ocf.block, self._open, self._open_count, self.sync, self._level
        )
        self._closed.append(block)
        self._open, self._open_count, self._open_bytes = [], 0, 0
