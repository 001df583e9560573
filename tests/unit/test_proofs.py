"""Proofs, tiles, notes and checkpoints, against published vectors and the naive tree."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.merkle import EMPTY_ROOT, Frontier, leaf_hash, merkle_root
from pipeline.domain.proofs import (
    ProofRefused,
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from pipeline.domain.tiles import TILE_WIDTH, Tile, tile_of, tile_root, tiles_between

# The eight leaves, roots and proofs of the tests of Google's certificate-transparency log, which
# implementations of RFC 6962 are held to.
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = [  # (leaf, size, hashes)
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY = [  # (old size, size, hashes)
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]

sizes = st.integers(1, 700)


def leaves_of(size: int) -> list[bytes]:
    return [leaf_hash(number.to_bytes(4, "big")) for number in range(size)]


def reader(leaves: list[bytes]):
    return lambda level, index: merkle_root(leaves[index << level : index + 1 << level])


def test_roots_of_the_published_leaves() -> None:
    leaves = [leaf_hash(entry) for entry in INPUTS]
    for size, root in enumerate(ROOTS, 1):
        assert Frontier().append(leaves[:size]).root().hex() == root
        assert merkle_root(leaves[:size]).hex() == root


@pytest.mark.parametrize(("index", "size", "hashes"), INCLUSION)
def test_published_inclusion_proofs(index: int, size: int, hashes: list[str]) -> None:
    leaves = [leaf_hash(entry) for entry in INPUTS]
    proof = inclusion_proof(index, size, reader(leaves))
    assert [node.hex() for node in proof] == hashes
    verify_inclusion(leaves[index], index, size, bytes.fromhex(ROOTS[size - 1]), proof)


@pytest.mark.parametrize(("old_size", "size", "hashes"), CONSISTENCY)
def test_published_consistency_proofs(old_size: int, size: int, hashes: list[str]) -> None:
    leaves = [leaf_hash(entry) for entry in INPUTS]
    proof = consistency_proof(old_size, size, reader(leaves))
    assert [node.hex() for node in proof] == hashes
    roots = [bytes.fromhex(root) for root in ROOTS]
    verify_consistency(old_size, roots[old_size - 1], size, roots[size - 1], proof)


@given(size=sizes, data=st.data())
def test_a_proof_holds_for_its_leaf_and_for_no_other(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size)
    index = data.draw(st.integers(0, size - 1))
    root = merkle_root(leaves)
    proof = inclusion_proof(index, size, reader(leaves))
    verify_inclusion(leaves[index], index, size, root, proof)

    other = (
        data.draw(st.integers(0, size - 1).filter(lambda other: other != index)) if size > 1 else 1
    )
    for wrong in (
        (leaves[index], other, size, root, proof),
        (sha256(b"").digest(), index, size, root, proof),
        (leaves[index], index, size, sha256(b"").digest(), proof),
        (leaves[index], index, size, root, [*proof, root]),
        (leaves[index], size, size, root, proof),
    ):
        with pytest.raises(ProofRefused):
            verify_inclusion(*wrong)
    if proof:
        with pytest.raises(ProofRefused):
            verify_inclusion(leaves[index], index, size, root, proof[:-1])


@given(size=sizes, data=st.data())
def test_a_log_that_grew_is_proven_and_one_that_changed_is_not(
    size: int, data: st.DataObject
) -> None:
    leaves = leaves_of(size)
    old_size = data.draw(st.integers(0, size))
    old_root, root = merkle_root(leaves[:old_size]), merkle_root(leaves)
    proof = consistency_proof(old_size, size, reader(leaves))
    verify_consistency(old_size, old_root, size, root, proof)

    changed = leaves[:]
    if old_size:
        at = data.draw(st.integers(0, old_size - 1))
        changed[at] = sha256(changed[at]).digest()
        with pytest.raises(ProofRefused):
            verify_consistency(
                old_size,
                old_root,
                size,
                merkle_root(changed),
                consistency_proof(old_size, size, reader(changed)),
            )
    for wrong in (
        (old_size, sha256(b"x").digest(), size, root, proof),
        (old_size, old_root, size, root, [*proof, root]),
        (size + 1, root, size, root, proof),
    ):
        with pytest.raises(ProofRefused):
            verify_consistency(*wrong)
    if proof:
        with pytest.raises(ProofRefused):
            verify_consistency(old_size, old_root, size, root, proof[:-1])


def test_the_empty_log_begins_every_log() -> None:
    leaves = leaves_of(3)
    verify_consistency(0, EMPTY_ROOT, 3, merkle_root(leaves), [])
    with pytest.raises(ProofRefused):
        verify_consistency(0, leaves[0], 3, merkle_root(leaves), [])


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(1, 1, 17), "tile/1/001.p/17"),
        (Tile(0, 1000), "tile/0/x001/000"),
        (Tile(63, 999, 255), "tile/63/999.p/255"),
    ],
)
def test_paths_of_tiles(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/64/000",
        "tile/00/000",
        "tile/0/0",
        "tile/0/x000/000",
        "tile/0/000.p/256",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/../000",
        "tile/0/x001/x234/067/",
        "tile/0/001/002",
        "tile/entries/000",
        "tile/0/٠٠٠",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="tile"):
        Tile.parse(path)


def test_tiles_of_the_published_size() -> None:
    """C2SP tlog-tiles: what a log of 70,000 leaves has."""
    found = list(tiles_between(0, 70_000))
    full = [tile for tile in found if tile.width == TILE_WIDTH]
    partial = [tile for tile in found if tile.width != TILE_WIDTH]
    assert [sum(tile.level == level for tile in full) for level in (0, 1, 2)] == [273, 1, 0]
    assert partial == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]


@given(steps=st.lists(st.integers(0, 70_000), min_size=1, max_size=4))
def test_every_subtree_of_a_log_is_in_its_tiles(steps: list[int]) -> None:
    """However a log grew, a tile is made from those below it, and gives the roots of the naive tree."""
    size, stored = 0, {}
    leaves = leaves_of(sum(steps))
    for step in steps:
        for tile in tiles_between(size, size + step):
            first, end = tile.index * TILE_WIDTH, tile.index * TILE_WIDTH + tile.width
            if tile.level == 0:
                row = leaves[first:end]
            else:
                row = [
                    tile_root(stored[Tile(tile.level - 1, below)]) for below in range(first, end)
                ]
            stored[tile] = row
        size += step
    subtrees = [(0, size - 1), (9, (size >> 9) - 1), (size.bit_length() - 1, 0)] if size else []
    for level, index in subtrees:
        if index < 0:
            continue
        tile = tile_of(level, index, size)
        assert (
            tile.subtree(b"".join(stored[tile]), level, index)
            == Frontier().append(leaves[index << level : index + 1 << level]).root()
        )
