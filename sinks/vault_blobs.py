"""The one function that rewrites blobs in the vault: after a redaction, and when they expire.

Guarantees that no held leaf's blobs change, that no other leaf's do, and that two who rewrite the
same object at once lose neither's change (``If-Match``). The object's metadata says what is in it now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol

from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.records import SealedBlob
from sinks import ocf
from sinks.archive_format import BLOB_SCHEMA, ObjectInfo, archive_key, blob_datum, blobs_key
from sinks.archive_reader import read_blobs
from sinks.s3 import S3

_TRIES = 5  # each lost one is another rewrite of the same object that was done


# The blobs that leaves have now; none: they have no more.
BlobsOf = Callable[[Sequence[int]], Awaitable[Mapping[int, Sequence[SealedBlob]]]]


class RefuseHeld(Protocol):
    """``sinks.holds.Holds.refuse_held``."""

    async def __call__(self, log_id: int, leaves: Sequence[int], what: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of one object: its size in bytes before and after, and blobs that it has no more."""

    before_bytes: int
    after_bytes: int
    removed: int

    @property
    def freed_bytes(self) -> int:
        """How much smaller it is."""
        return self.before_bytes - self.after_bytes


class VaultBlobs:
    """Blob objects of the vault bucket; the S3 client belongs to whoever made it."""

    def __init__(self, s3: S3, bucket: str, refuse_held: RefuseHeld) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._refuse_held = refuse_held

    async def rewrite(
        self,
        log_id: int,
        name: LogName,
        first_leaf: int,
        leaves: Sequence[int],
        blobs_of: BlobsOf,
    ) -> Rewritten:
        """Give leaves of one object the blobs of ``blobs_of`` instead of theirs; none: they have no more.

        ``blobs_of`` is asked at each try, once the object was read: a blob that was cut before is then
        not put back by somebody who had read it earlier. Durable on return; doing it again changes
        nothing. ``leaves`` are of the object only.

        Raises:
            Held: One of the leaves is under a legal hold; nothing was changed.
            ChainBroken: The object is missing, or is not what was stored.
            Unavailable: Nothing is known; call again.
        """
        key = blobs_key(name, first_leaf)
        for _ in range(_TRIES):
            # Before every try: a hold may have come while another one wrote.
            await self._refuse_held(log_id, sorted(leaves), f"vault object {key}")
            stored = await self._s3.get(self._bucket, key)
            if stored is None:
                raise ChainBroken(str(name), f"{key}: its vault object is missing")
            try:
                info = ObjectInfo.from_metadata(stored.metadata)
            except ValueError as error:
                raise ChainBroken(str(name), f"object {key}: {error}") from None
            held = await asyncio.to_thread(read_blobs, info, stored)
            body, records = await asyncio.to_thread(_encode, info, held, await blobs_of(leaves))
            if body == stored.body:
                return Rewritten(len(body), len(body), 0)
            changed = replace(info, records=records, body_sha256=sha256(body).digest())
            if await self._s3.put(
                self._bucket,
                key,
                body,
                metadata=changed.to_metadata(),
                body_sha256=changed.body_sha256,
                if_match=stored.etag,
            ):
                return Rewritten(len(stored.body), len(body), info.records - records)
        raise Unavailable("s3", f"others keep rewriting {key}")


def _encode(
    info: ObjectInfo,
    held: Mapping[int, Sequence[SealedBlob]],
    instead: Mapping[int, Sequence[SealedBlob]],
) -> tuple[bytes, int]:
    """The whole body, in the form that the archive follower writes, and how many blobs it has."""
    sync = ocf.sync_marker(archive_key(info.name, info.first_leaf))
    parts = [ocf.header(BLOB_SCHEMA, sync)]
    pieces: list[bytes] = []
    count = size_bytes = records = 0
    for leaf in sorted(held.keys() | instead.keys()):
        for blob in instead.get(leaf, held.get(leaf, ())):
            pieces.append(blob_datum(leaf, blob))
            size_bytes += len(pieces[-1])
            count += 1
        if size_bytes >= ocf.BLOCK_BYTES:
            parts.append(ocf.block(pieces, count, sync, ocf.ZSTD_LEVEL_CIPHERTEXT))
            records += count
            pieces, count, size_bytes = [], 0, 0
    if count:
        parts.append(ocf.block(pieces, count, sync, ocf.ZSTD_LEVEL_CIPHERTEXT))
    return b"".join(parts), records + count
