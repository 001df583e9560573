"""Reads leaf ranges back from the archive, each one verified before it is given.

Always the first version of an object: whoever overwrites or hides one later changes nothing here.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from io import BytesIO
from typing import Any, cast

import fastavro
import orjson

from pipeline.codec.types import without_logical_types
from pipeline.domain.errors import ChainBroken
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import Frontier, leaf_hash
from pipeline.domain.records import LeafRange, SealedBlob, SealedEvent
from sinks import ocf
from sinks.archive_format import (
    ARCHIVE_PREFIX,
    BLOB_SCHEMA,
    LEAF_SCHEMA,
    ObjectInfo,
    archive_key,
    archive_prefix,
    blobs_key,
)
from sinks.s3 import S3, Stored

_LOOK_BACK = 4_096  # leaves; times eight until an object is found


@dataclass(frozen=True, slots=True)
class ArchivedRange:
    """An object of the archive bucket: what its metadata says, and which version it is."""

    info: ObjectInfo
    version: str


class ArchiveReader:
    """The archive of all logs, read only. The S3 client belongs to whoever made it."""

    def __init__(self, s3: S3, *, archive_bucket: str, vault_bucket: str) -> None:
        self._s3 = s3
        self._archive = archive_bucket
        self._vault = vault_bucket

    async def answers(self) -> None:
        """Return if the archive can be asked now. Raises ``Unavailable``."""
        await self._s3.call(partial(self._s3.client.head_bucket, Bucket=self._archive))

    async def logs(self) -> list[LogName]:
        """Every log that has an object here, whether the database knows it or not. Raises ``Unavailable``."""
        folders = [ARCHIVE_PREFIX]
        for _ in ("topic", "partition", "epoch"):
            folders = [
                inner
                for folder in folders
                for inner in await self._s3.folders(self._archive, folder)
            ]
        return sorted(
            LogName.parse(folder.removeprefix(ARCHIVE_PREFIX).rstrip("/")) for folder in folders
        )

    async def ranges(self, name: LogName, from_leaf: int = 0) -> AsyncIterator[ArchivedRange]:
        """The objects of a log that hold ``from_leaf`` or later leaves, in order.

        Raises:
            ChainBroken: An object without our metadata, or whose metadata and key disagree.
            Unavailable: Ask again later.
        """
        prefix = archive_prefix(name)
        after = await self._before(name, from_leaf)
        holder: tuple[str, str] | None = None  # the last object that begins at or before the leaf
        async for key, version in self._s3.oldest_versions(self._archive, prefix, after=after):
            if key <= archive_key(name, from_leaf):
                holder = key, version
                continue
            if holder is not None:
                async for found in self._describe(name, *holder, from_leaf):
                    yield found
                holder = None
            async for found in self._describe(name, key, version, from_leaf):
                yield found
        if holder is not None:
            async for found in self._describe(name, *holder, from_leaf):
                yield found

    async def first_offset(self, name: LogName) -> int | None:
        """Where a log began: the offset of its first archived leaf; None if it has none here.

        Raises as ``ranges``.
        """
        async for found in self.ranges(name):
            return found.info.first_offset
        return None

    async def read(self, found: ArchivedRange, log_id: int) -> LeafRange:
        """The leaves of one object with their blobs; ``opened`` is empty.

        Raises:
            ChainBroken: Body, leaf hashes, root or blobs are not what was stored; names the leaf.
            Unavailable: Ask again later.
        """
        info = found.info
        name = str(info.name)
        key = archive_key(info.name, info.first_leaf)
        leaves = await self._s3.get(self._archive, key, version=found.version)
        blobs = await self._s3.get(self._vault, blobs_key(info.name, info.first_leaf))
        if leaves is None or blobs is None:
            missing = "archive" if leaves is None else "vault"
            raise ChainBroken(name, f"{key}: its {missing} object is missing")
        vaulted = _info(blobs, info.name)
        if vaulted.root != info.root:
            raise ChainBroken(name, f"{key}: the vault holds blobs of another range")
        events = await asyncio.to_thread(_events, info, leaves, vaulted, blobs)
        return LeafRange(log_id, info.name, info.first_leaf, events)

    async def _describe(
        self, name: LogName, key: str, version: str, from_leaf: int
    ) -> AsyncIterator[ArchivedRange]:
        """The object, if it holds the leaf or later ones."""
        stored = await self._s3.head(self._archive, key, version=version)
        if stored is None:
            return
        info = _info(stored, name)
        if key != archive_key(name, info.first_leaf) or info.name != name:
            raise ChainBroken(str(name), f"object {key} says that it holds other leaves")
        if info.next_leaf > from_leaf:
            yield ArchivedRange(info, version)

    async def _before(self, name: LogName, from_leaf: int) -> str:
        """A key from beyond which a listing holds the object with ``from_leaf``, and few others."""
        back = _LOOK_BACK
        while from_leaf > back:
            start = archive_key(name, from_leaf - back)
            prefix = archive_prefix(name)
            async for key, _ in self._s3.oldest_versions(self._archive, prefix, after=start):
                if key <= archive_key(name, from_leaf):
                    return start
                break
            back *= 8
        return ""


def read_blobs(info: ObjectInfo, stored: Stored) -> dict[int, list[SealedBlob]]:
    """The blobs of one vault object, by leaf, in their order.

    Raises:
        ChainBroken: The body is not what its metadata says.
    """
    name = str(info.name)
    if sha256(stored.body).digest() != info.body_sha256:
        raise ChainBroken(name, f"{stored.key}: the body is not what was stored")
    by_leaf: defaultdict[int, list[SealedBlob]] = defaultdict(list)
    count = 0
    for datum in _datums(stored, BLOB_SCHEMA, name):
        blob = SealedBlob(datum["subject_ref"], datum["nonce"], datum["ciphertext"])
        by_leaf[datum["leaf_index"]].append(blob)
        count += 1
    if count != info.records:
        raise ChainBroken(name, f"{stored.key}: {count} blobs, metadata says {info.records}")
    return by_leaf


def _events(
    info: ObjectInfo, leaves: Stored, vaulted: ObjectInfo, blobs: Stored
) -> list[SealedEvent]:
    name = str(info.name)
    if sha256(leaves.body).digest() != info.body_sha256:
        raise ChainBroken(name, f"{leaves.key}: the body is not what was stored")
    by_leaf = read_blobs(vaulted, blobs)

    events: list[SealedEvent] = []
    for leaf, datum in enumerate(_datums(leaves, LEAF_SCHEMA, name), info.first_leaf):
        if datum["leaf_index"] != leaf or leaf_hash(datum["event"]) != datum["leaf_hash"]:
            raise ChainBroken(name, f"{leaves.key}: leaf {leaf} is not what was hashed")
        events.append(_event(datum, by_leaf.pop(leaf, ())))
    root = Frontier().append([event.leaf_hash for event in events]).root()
    if by_leaf or len(events) != info.records or root != info.root:
        raise ChainBroken(name, f"{leaves.key}: not the leaves that its metadata names")
    return events


def _datums(stored: Stored, schema: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Datums of one container file, times as the integers that they are stored as."""
    plain = fastavro.parse_schema(without_logical_types(schema))
    try:
        for count, block in ocf.blocks(stored.body):
            stream = BytesIO(block)
            for _ in range(count):
                datum = fastavro.schemaless_reader(stream, plain, None)
                yield cast("dict[str, Any]", datum)
    except (ValueError, EOFError) as error:
        raise ChainBroken(name, f"{stored.key}: {type(error).__name__}") from None


def _event(datum: Mapping[str, Any], blobs: Any) -> SealedEvent:
    sealed = orjson.loads(datum["event"])
    return SealedEvent(
        event_id=datum["event_id"],
        family=sealed["family"],
        occurred_at_us=datum["occurred_at"],
        offset=datum["source_offset"],
        broker_timestamp_ms=datum["broker_timestamp"],
        schema_id=datum["schema_id"],
        clear=sealed["clear"],
        opened={},
        canonical=datum["event"],
        leaf_hash=datum["leaf_hash"],
        blobs=tuple(blobs),
        actor_ref=datum["actor_ref"],
        stored_at_us=datum["stored_at"],
    )


def _info(stored: Stored, name: LogName) -> ObjectInfo:
    try:
        return ObjectInfo.from_metadata(stored.metadata)
    except ValueError as error:
        raise ChainBroken(str(name), f"object {stored.key}: {error}") from None
