"""Tiles of the logs in the archive bucket: written as a log grows, read to prove what is in it.

Tiles follow from the leaves, so they carry no lock: one that was lost or changed is found against a
signed root and made again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterable, Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.compliance.checkpoint_store import TILES_PREFIX
from pipeline.domain.errors import AuditTrailError
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import HASH_BYTES, Frontier
from pipeline.domain.proofs import (
    Subtree,
    SubtreeRoot,
    consistency_proof,
    consistency_subtrees,
    inclusion_proof,
    inclusion_subtrees,
    perfect_subtrees,
    root_over,
)
from pipeline.domain.tiles import LEVEL_MAX, TILE_HEIGHT, TILE_WIDTH, Tile, tile_of, tile_root
from pipeline.logging import log_event
from sinks.s3 import S3

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/octet-stream"
CACHED_TILES = 512  # of 8 KiB each: 4 MiB
_FETCHED_AT_ONCE = 8


class TileRefused(AuditTrailError):
    """A tile is missing, or is not what it must be: make it again from the leaves, or do not trust it."""


def tile_key(name: LogName, tile: Tile) -> str:
    """The object of a tile."""
    return f"{TILES_PREFIX}{name}/{tile.path}"


@dataclass(slots=True)
class Growth:
    """The right edge of a log's tiles: per level the hashes of its last, partial tile.

    It holds at most 255 hashes a level, and from it follow frontier and root.
    """

    size: int = 0
    rows: list[list[bytes]] = field(default_factory=list)

    def frontier(self) -> Frontier:
        """The roots of the perfect subtrees, largest first."""
        hashes: list[bytes] = []
        for row in reversed(self.rows):
            hashes += Frontier().append(row).hashes
        return Frontier(self.size, tuple(hashes))

    def append(self, leaves: Sequence[bytes]) -> list[tuple[Tile, bytes]]:
        """Add leaf hashes; the tiles that became full, levels upwards within each."""
        full: list[tuple[Tile, bytes]] = []
        for leaf in leaves:
            self.size += 1
            level, carried = 0, leaf
            while True:
                if level == len(self.rows):
                    self.rows.append([])
                row = self.rows[level]
                row.append(carried)
                if len(row) < TILE_WIDTH:
                    break
                index = (self.size >> level * TILE_HEIGHT) // TILE_WIDTH - 1
                full.append((Tile(level, index), b"".join(row)))
                carried = tile_root(row)
                row.clear()
                level += 1
        return full

    def partial(self) -> list[tuple[Tile, bytes]]:
        """The partial tiles at this size, levels upwards."""
        return [
            (Tile(level, self._index(level), len(row)), b"".join(row))
            for level, row in enumerate(self.rows)
            if row
        ]

    def _index(self, level: int) -> int:
        return (self.size >> level * TILE_HEIGHT) // TILE_WIDTH


def edge_tiles(size: int) -> list[Tile]:
    """The partial tiles of a log of ``size`` leaves, levels upwards."""
    tiles = []
    for level in range(LEVEL_MAX + 1):
        hashes = size >> level * TILE_HEIGHT
        if not hashes:
            break
        if hashes % TILE_WIDTH:
            tiles.append(Tile(level, hashes // TILE_WIDTH, hashes % TILE_WIDTH))
    return tiles


class TileStore:
    """The tiles of all logs. The S3 client belongs to whoever made it."""

    def __init__(self, s3: S3, *, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    async def get(self, name: LogName, tile: Tile) -> bytes:
        """A tile's hashes, ``tile.width`` of them. A partial one that is gone is read from the full one
        that took its place.

        Raises:
            TileRefused: Neither is there, or it has another length.
            Unavailable: Ask again later.
        """
        found = await self._s3.get(self._bucket, tile_key(name, tile))
        whole = tile
        if found is None and tile.width < TILE_WIDTH:
            whole = Tile(tile.level, tile.index)
            found = await self._s3.get(self._bucket, tile_key(name, whole))
        if found is None:
            raise TileRefused(f"log {name}: {tile.path} is missing")
        if len(found.body) != whole.width * HASH_BYTES:
            raise TileRefused(f"log {name}: {tile.path} has {len(found.body)} bytes")
        return found.body[: tile.width * HASH_BYTES]

    async def edge(self, name: LogName, size: int) -> Growth:
        """The right edge of a log at a size for which tiles were written. It proves nothing yet: compare
        the root of its frontier with a signed one.

        Raises:
            TileRefused: A tile is missing or too short.
            Unavailable: Ask again later.
        """
        tiles = edge_tiles(size)
        bodies = await asyncio.gather(*(self.get(name, tile) for tile in tiles))
        levels = range(-(-size.bit_length() // TILE_HEIGHT))
        growth = Growth(size, [[] for _ in levels])
        for tile, body in zip(tiles, bodies, strict=True):
            growth.rows[tile.level] = _split(body)
        return growth

    async def write_growth(
        self, name: LogName, growth: Growth, pages: AsyncIterable[Sequence[bytes]]
    ) -> None:
        """Append leaf hashes to an edge, which moves with them, and write every tile that becomes full,
        and the partial ones at the end; durable on return. May be repeated: a tile that is there stays,
        unless it differs.

        The hashes must have been proven before: a tile of leaves that are none would stand in the way.

        Raises:
            Unavailable: Some may be written; write the same again later.
        """
        async for leaves in pages:
            for at in range(0, len(leaves), TILE_WIDTH):
                await self._write(name, growth.append(leaves[at : at + TILE_WIDTH]))
        await self._write(name, growth.partial())

    async def _write(self, name: LogName, tiles: Iterable[tuple[Tile, bytes]]) -> None:
        for tile, body in tiles:
            key = tile_key(name, tile)
            if await self._put(key, body, absent=True):
                continue
            held = await self._s3.get(self._bucket, key)
            if held is not None and held.body == body:
                continue
            # Another body; or none, where a gateway counts a delete marker as an object.
            log_event(log, "tile_replaced", level=logging.ERROR, tile=key)
            await self._put(key, body)

    async def _put(self, key: str, body: bytes, *, absent: bool = False) -> bool:
        return await self._s3.put(self._bucket, key, body, content_type=CONTENT_TYPE, absent=absent)


class TileReader:
    """Proofs over one log, from its tiles; a bounded number of them stays in memory."""

    def __init__(
        self, store: TileStore, name: LogName, *, cached_tiles: int = CACHED_TILES
    ) -> None:
        self._store = store
        self._name = name
        self._cached_tiles = cached_tiles
        self._cache: OrderedDict[tuple[int, int], tuple[int, bytes]] = OrderedDict()

    async def subtree_roots(self, subtrees: Iterable[Subtree], size: int) -> SubtreeRoot:
        """A reader of just these subtrees of a log of ``size`` leaves, which was signed with that size.

        Raises:
            TileRefused: A tile is missing or too short.
            Unavailable: Ask again later.
        """
        wanted = list(subtrees)
        places = {subtree: tile_of(*subtree, size) for subtree in wanted}
        limit = asyncio.Semaphore(_FETCHED_AT_ONCE)
        tiles: dict[Tile, bytes] = {}

        async def fetch(tile: Tile) -> None:
            async with limit:
                tiles[tile] = await self._tile(tile)

        await asyncio.gather(*(fetch(tile) for tile in set(places.values())))

        def read(level: int, index: int) -> bytes:
            tile = places[level, index]
            return tile.subtree(tiles[tile], level, index)

        return read

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """The proof that leaf ``index`` is in the log of ``size`` leaves. Raises as ``subtree_roots``;
        ``ValueError`` if there is no such leaf.
        """
        path = inclusion_subtrees(index, size)
        read = await self.subtree_roots([one for group in path for one in group], size)
        return inclusion_proof(index, size, read)

    async def consistency(self, old_size: int, size: int) -> list[bytes]:
        """The proof that the log of ``size`` leaves begins with that of ``old_size``. Raises as
        ``inclusion``.
        """
        path = consistency_subtrees(old_size, size)
        read = await self.subtree_roots([one for group in path for one in group], size)
        return consistency_proof(old_size, size, read)

    async def root(self, size: int) -> bytes:
        """The root that the tiles give. Raises as ``subtree_roots``."""
        subtrees = list(perfect_subtrees(0, size))
        return root_over(subtrees, await self.subtree_roots(subtrees, size))

    async def _tile(self, tile: Tile) -> bytes:
        place = (tile.level, tile.index)
        held = self._cache.get(place)
        if held is not None and held[0] >= tile.width:
            self._cache.move_to_end(place)
            return held[1][: tile.width * HASH_BYTES]
        body = await self._store.get(self._name, tile)
        self._cache[place] = (tile.width, body)
        self._cache.move_to_end(place)
        while len(self._cache) > self._cached_tiles:
            self._cache.popitem(last=False)
        return body


def _split(body: bytes) -> list[bytes]:
    return [body[at : at + HASH_BYTES] for at in range(0, len(body), HASH_BYTES)]
