"""The frontier gives the root of RFC 6962 §2.1, whatever way the leaves came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.merkle import EMPTY_ROOT, Frontier, leaf_hash, merkle_root

# The test vectors of the certificate-transparency repositories (RFC 6962 reference inputs).
INPUTS = [
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]  # fmt: skip
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


def test_the_reference_vectors() -> None:
    leaves = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]

    assert [merkle_root(leaves[: n + 1]).hex() for n in range(8)] == ROOTS
    assert merkle_root([]) == EMPTY_ROOT


@given(cuts=st.lists(st.integers(0, 40), max_size=12))
def test_any_history_of_batches_gives_the_root_of_the_naive_tree(cuts: list[int]) -> None:
    frontier, leaves = Frontier(), []

    for batch, count in enumerate(cuts):
        fresh = [leaf_hash(bytes([batch, n])) for n in range(count)]
        leaves += fresh
        frontier = frontier.append(fresh)
        stored = Frontier.from_bytes(frontier.size, frontier.to_bytes())
        assert stored == frontier

    assert frontier.size == len(leaves)
    assert frontier.root() == merkle_root(leaves)


def test_a_frontier_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="frontier hashes"):
        Frontier.from_bytes(3, bytes(32))
