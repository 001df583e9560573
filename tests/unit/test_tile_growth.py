"""The right edge of the tiles: from it follow the root, and every tile that a growth makes."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compliance.tile_store import Growth, edge_tiles
from pipeline.domain.merkle import merkle_root
from pipeline.domain.tiles import Tile, tiles_between

LEAVES = [sha256(b"%d" % leaf).digest() for leaf in range(1_500)]


@given(cuts=st.lists(st.integers(0, 400), max_size=5))
def test_whatever_the_pages_root_and_tiles_are_those_of_the_naive_tree(cuts: list[int]) -> None:
    growth = Growth()
    tiles: dict[Tile, bytes] = {}

    for count in cuts:
        before = growth.size
        new = growth.append(LEAVES[before : min(before + count, len(LEAVES))]) + growth.partial()
        tiles.update(new)
        assert {tile for tile, _ in new} >= set(tiles_between(before, growth.size))

    assert growth.frontier().root() == merkle_root(LEAVES[: growth.size])
    for tile, body in tiles.items():
        width = 256**tile.level
        for at in range(tile.width):
            first = (tile.index * 256 + at) * width
            expected = merkle_root(LEAVES[first : first + width])
            assert body[at * 32 : (at + 1) * 32] == expected


@pytest.mark.parametrize(
    ("size", "paths"),
    [
        (0, []),
        (1, ["tile/0/000.p/1"]),
        (256, ["tile/1/000.p/1"]),
        (70_000, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]),  # of C2SP tlog-tiles
    ],
)
def test_the_partial_tiles_of_a_size(size: int, paths: list[str]) -> None:
    assert [tile.path for tile in edge_tiles(size)] == paths
