"""Tiles: the hashes of a log in files of 256, which never change once they are full.

Tile n of level l holds the roots of 256 perfect subtrees of 256**l leaves each, one after the other.
Source: C2SP tlog-tiles, "Merkle Tree".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.domain.merkle import HASH_BYTES, parents

TILE_WIDTH = 256
TILE_HEIGHT = 8  # levels of the tree in a tile
TILE_BYTES = TILE_WIDTH * HASH_BYTES
LEVEL_MAX = 63

_PATH = re.compile(
    r"tile/(0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII
)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Which tile; ``width`` hashes of it are there, 256 in a full one."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """``tile/0/x001/x234/067``, and ``.p/<width>`` behind a partial one's."""
        digits = f"{self.index % 1000:03d}"
        rest = self.index // 1000
        while rest:
            digits = f"x{rest % 1000:03d}/{digits}"
            rest //= 1000
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{self.level}/{digits}{partial}"

    @classmethod
    def parse(cls, path: str) -> Tile:
        """Read back what ``path`` gave.

        Raises:
            ValueError: Not the path of a tile, or another way to write one.
        """
        found = _PATH.fullmatch(path)
        if found is not None:
            level, digits, width = found.groups()
            tile = cls(
                int(level), int(digits.replace("x", "").replace("/", "")), int(width or TILE_WIDTH)
            )
            if tile.level <= LEVEL_MAX and tile.width <= TILE_WIDTH and tile.path == path:
                return tile
        raise ValueError("not the path of a tile")

    def subtree(self, hashes: bytes, level: int, index: int) -> bytes:
        """The root of a perfect subtree that lies in this tile; ``hashes`` are the tile's.

        Raises:
            ValueError: It does not lie in this tile, or the tile is too short for it.
        """
        height = level - self.level * TILE_HEIGHT
        first = (index << height) - self.index * TILE_WIDTH if height >= 0 else -1
        if not 0 <= height <= TILE_HEIGHT or not 0 <= first <= self.width - (1 << height):
            raise ValueError("the subtree is not in this tile")
        row = [
            hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES]
            for at in range(first, first + (1 << height))
        ]
        if len(row[-1]) != HASH_BYTES:
            raise ValueError(f"the tile has fewer than {self.width} hashes")
        while len(row) > 1:
            row = parents(row)
        return row[0]


def tile_of(level: int, index: int, size: int) -> Tile:
    """The tile of a log of ``size`` leaves in which the root of a perfect subtree is found.

    A subtree of 256**n leaves is one hash of level n, never worked out from level n - 1.
    """
    tile_level, height = divmod(level, TILE_HEIGHT)
    at = (index << height) // TILE_WIDTH
    width = min((size >> tile_level * TILE_HEIGHT) - at * TILE_WIDTH, TILE_WIDTH)
    if width <= 0:
        raise ValueError(f"a log of {size} leaves has no such subtree")
    return Tile(tile_level, at, width)


def tiles_between(old_size: int, size: int) -> Iterator[Tile]:
    """The tiles that a log of ``size`` leaves has and one of ``old_size`` had not, in the order in which
    each can be made from those before: levels upwards, partial ones too.
    """
    for level in range(LEVEL_MAX + 1):
        hashes = size >> level * TILE_HEIGHT
        had = old_size >> level * TILE_HEIGHT
        if hashes == had:
            return
        for index in range(had // TILE_WIDTH, -(-hashes // TILE_WIDTH)):
            yield Tile(level, index, min(hashes - index * TILE_WIDTH, TILE_WIDTH))


def tile_root(hashes: Sequence[bytes]) -> bytes:
    """The one hash of a full tile in the level above."""
    row = list(hashes)
    while len(row) > 1:
        row = parents(row)
    return row[0]
