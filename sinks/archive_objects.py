"""Stores one pair of archive objects, or takes over the pair that somebody stored before.

Whatever is interrupted where, and however many workers try: the pair that ends up in the buckets
holds one leaf range, the same in both, and it equals the ledger's leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import Frontier
from pipeline.domain.records import LeafRange
from sinks.archive_buffer import ArchiveBuffer, ObjectPair
from sinks.archive_format import ObjectInfo, archive_key, blobs_key
from sinks.archive_reader import ArchiveReader
from sinks.s3 import S3, Lock, Stored

READ_LEAVES = 5_000  # leaves of one ledger read; only contradictions and crashes need any


class ReadLedger(Protocol):
    """``Ledger.read``: up to ``limit`` consecutive leaves from ``first_leaf`` on."""

    async def __call__(self, log_id: int, first_leaf: int, *, limit: int) -> LeafRange: ...


class ArchiveObjects:
    """The two puts of a range and what their refusals mean."""

    def __init__(
        self,
        s3: S3,
        *,
        archive_bucket: str,
        vault_bucket: str,
        read_ledger: ReadLedger,
        new_buffer: Callable[[LogName, int], ArchiveBuffer],
        ensure_escrowed: Callable[[set[bytes]], Awaitable[None]],
        lock_of: Callable[[ArchiveBuffer], Lock],
        on_stored: Callable[[str, int], None],
    ) -> None:
        self._s3 = s3
        self._archive = archive_bucket
        self._vault = vault_bucket
        self._read_ledger = read_ledger
        self._new_buffer = new_buffer
        self._ensure_escrowed = ensure_escrowed
        self._lock_of = lock_of
        self._on_stored = on_stored

    async def store(self, log_id: int, buffer: ArchiveBuffer) -> int:
        """Make a range durable; the leaf after the range that is stored now.

        That range begins with the buffer's first leaf and may be shorter or longer than it, when
        another worker or an abandoned call came first.

        Raises:
            ChainBroken: What is stored contradicts the ledger.
            Unavailable: Nothing is known; store the same buffer again later.
        """
        await self._ensure_escrowed(buffer.refs)
        pair = await buffer.pair()
        if not await self._put_blobs(pair, absent=True):
            existing = await self._archived(buffer)
            if existing is not None:
                return await self._adopt(log_id, buffer, existing)
            vaulted = await self._s3.head(self._vault, blobs_key(buffer.name, buffer.first_leaf))
            if vaulted is None:
                raise Unavailable("s3", "the vault object came and went")
            found = _info(vaulted, buffer.name)
            if found.root != pair.blobs.root:
                if await self._agrees(log_id, buffer, found):
                    # Whoever put these blobs may put their events at any moment: both objects
                    # must have one range, so this worker's own range gives way.
                    return await self._finish(log_id, found)
                # Leaves that the ledger never had, or lost when it was rolled back.
                if not await self._put_blobs(pair, if_match=vaulted.etag):
                    raise Unavailable("s3", "another worker stores this range")
        return await self._put_leaves(log_id, buffer)

    async def refill(self, log_id: int, first_leaf: int, held: ArchiveBuffer) -> ArchiveBuffer:
        """A buffer from ``first_leaf`` to the end of ``held``, read from the ledger.

        It may hold more than a cut allows. Raises ``Unavailable``.
        """
        refilled = self._new_buffer(held.name, first_leaf)
        await self._read_into(refilled, log_id, held.next_leaf)
        return refilled

    async def restore_blobs(
        self, log_id: int, name: LogName, leaf: int, doubtful: Collection[int]
    ) -> tuple[int, int]:
        """Write the vault's object of the range that holds ``leaf`` again, from the ledger; the first leaf of
        that range, and the one after its last. Durable on return; may be repeated.

        Raises:
            ChainBroken: No archive object holds the leaf, it differs from the ledger, or the ledger's blobs
                of one of its leaves (``doubtful``) may be the wrong ones.
            Unavailable: Nothing is known; call again.
        """
        reader = ArchiveReader(self._s3, archive_bucket=self._archive, vault_bucket=self._vault)
        async for found in reader.ranges(name, leaf):
            info = found.info
            if info.first_leaf > leaf:
                break
            if any(info.first_leaf <= one < info.next_leaf for one in doubtful):
                raise ChainBroken(str(name), f"the ledger's own blobs of the leaves {info.first_leaf} to"
                                  f" {info.last_leaf} are in doubt: nothing was written over")  # fmt: skip
            whole = await self._from_ledger(log_id, info)
            pair = await whole.pair()
            if pair.leaves.root != info.root:
                raise ChainBroken(str(name), f"the ledger's leaves {info.first_leaf} to {info.last_leaf}"
                                  " are not those of the archive's object")  # fmt: skip
            await self._ensure_escrowed(whole.refs)
            key = blobs_key(name, info.first_leaf)
            there = await self._s3.head(self._vault, key)
            etag = there.etag if there is not None else None
            if not await self._put_blobs(pair, absent=there is None, if_match=etag):
                raise Unavailable("s3", "another worker stores these blobs")
            return info.first_leaf, info.next_leaf
        raise ChainBroken(str(name), f"no object of the archive holds leaf {leaf}")

    async def _put_leaves(self, log_id: int, buffer: ArchiveBuffer) -> int:
        pair = await buffer.pair()
        stored = await self._s3.put(
            self._archive,
            archive_key(buffer.name, buffer.first_leaf),
            pair.leaves_body,
            metadata=pair.leaves.to_metadata(),
            body_sha256=pair.leaves.body_sha256,
            absent=True,
            lock=self._lock_of(buffer),
        )
        if stored:
            self._on_stored("archive", len(pair.leaves_body))
            return buffer.next_leaf
        existing = await self._archived(buffer)
        if existing is None:
            raise Unavailable("s3", "the archive object came and went")
        return await self._adopt(log_id, buffer, existing)

    async def _put_blobs(
        self, pair: ObjectPair, *, absent: bool = False, if_match: str | None = None
    ) -> bool:
        stored = await self._s3.put(
            self._vault,
            blobs_key(pair.blobs.name, pair.blobs.first_leaf),
            pair.blobs_body,
            metadata=pair.blobs.to_metadata(),
            body_sha256=pair.blobs.body_sha256,
            absent=absent,
            if_match=if_match,
        )
        if stored:
            self._on_stored("vault", len(pair.blobs_body))
        return stored

    async def _adopt(self, log_id: int, buffer: ArchiveBuffer, existing: ObjectInfo) -> int:
        """Take an archive object for stored after comparing it with the ledger, over its range."""
        span = f"leaves {existing.first_leaf} to {existing.last_leaf}"
        agrees = await self._agrees(log_id, buffer, existing)
        if agrees is None:
            raise ChainBroken(
                str(buffer.name),
                f"the archive holds {span}, the ledger not all of them: was the database rolled "
                f"back? Run `audit-trail restore --log {buffer.name}`",
            )
        if not agrees:
            raise ChainBroken(
                str(buffer.name),
                f"{span} differ between archive and ledger. "
                f"Run `audit-trail compare` and see docs/runbooks/stopped-partition.md",
            )
        vaulted = await self._s3.head(self._vault, blobs_key(buffer.name, buffer.first_leaf))
        if vaulted is None or _info(vaulted, buffer.name).root != existing.root:
            whole = await self._from_ledger(log_id, existing)
            stored = await self._put_blobs(
                await whole.pair(),
                absent=vaulted is None,
                if_match=vaulted.etag if vaulted else None,
            )
            if not stored:
                raise Unavailable("s3", "another worker stores these blobs")
        return existing.next_leaf

    async def _finish(self, log_id: int, found: ObjectInfo) -> int:
        """Put the events that belong to blobs which are in the vault already."""
        whole = await self._from_ledger(log_id, found)
        await self._ensure_escrowed(whole.refs)
        return await self._put_leaves(log_id, whole)

    async def _agrees(self, log_id: int, buffer: ArchiveBuffer, found: ObjectInfo) -> bool | None:
        """Whether the ledger's leaves over an object's range are its; None if it lacks some."""
        hashes = buffer.hashes(found.next_leaf)
        while (leaf := found.first_leaf + len(hashes)) < found.next_leaf:
            limit = min(READ_LEAVES, found.next_leaf - leaf)
            leaves = await self._read_ledger(log_id, leaf, limit=limit)
            if not leaves.events:
                return None
            hashes += [event.leaf_hash for event in leaves.events]
        return Frontier().append(hashes).root() == found.root

    async def _from_ledger(self, log_id: int, found: ObjectInfo) -> ArchiveBuffer:
        whole = self._new_buffer(found.name, found.first_leaf)
        await self._read_into(whole, log_id, found.next_leaf)
        return whole

    async def _read_into(self, buffer: ArchiveBuffer, log_id: int, next_leaf: int) -> None:
        while buffer.next_leaf < next_leaf:
            limit = min(READ_LEAVES, next_leaf - buffer.next_leaf)
            leaves = await self._read_ledger(log_id, buffer.next_leaf, limit=limit)
            if not leaves.events:
                raise Unavailable("postgres", "the ledger does not show leaves that it gave")
            buffer.add_all(leaves.events)

    async def _archived(self, buffer: ArchiveBuffer) -> ObjectInfo | None:
        """What was stored first under the range's key: an overwrite or delete marker hides it."""
        key = archive_key(buffer.name, buffer.first_leaf)
        async for found, version in self._s3.oldest_versions(self._archive, key):
            if found != key:
                break
            stored = await self._s3.head(self._archive, key, version=version)
            return _info(stored, buffer.name) if stored else None
        return None


def _info(stored: Stored, name: LogName) -> ObjectInfo:
    try:
        return ObjectInfo.from_metadata(stored.metadata)
    except ValueError as error:
        raise ChainBroken(
            str(name),
            f"object {stored.key}: {error}. Run `audit-trail compare` and see docs/runbooks/stopped-partition.md",
        ) from None
