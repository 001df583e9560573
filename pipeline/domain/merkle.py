"""RFC 6962 §2.1 Merkle tree hash, kept as a frontier that grows by appending.

The root after any sequence of appends equals the root of the naive tree over the same leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(canonical: bytes) -> bytes:
    """SHA-256(0x00 ‖ canonical bytes of the sealed event). Source: RFC 6962 §2.1."""
    return sha256(b"\x00" + canonical).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right). Source: RFC 6962 §2.1."""
    return sha256(b"\x01" + left + right).digest()


def parents(hashes: Sequence[bytes]) -> list[bytes]:
    """The node above each pair of hashes: a level of the tree."""
    return [sha256(b"\x01" + hashes[i] + hashes[i + 1]).digest() for i in range(0, len(hashes), 2)]


def packed_parents(hashes: bytes) -> bytes:
    """The same of hashes one after the other."""
    width = 2 * HASH_BYTES
    pairs = [hashes[at : at + width] for at in range(0, len(hashes) - HASH_BYTES, width)]
    return b"".join([sha256(b"\x01" + pair).digest() for pair in pairs])


Parents = Callable[[Sequence[bytes]], list[bytes]]
PackedParents = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Frontier:
    """The roots of the perfect subtrees of a log of ``size`` leaves, largest first.

    One hash for each 1-bit of ``size``, the most significant bit first.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.hashes) != self.size.bit_count():
            raise ValueError(f"{self.size} leaves need {self.size.bit_count()} frontier hashes")

    def append(self, leaves: Sequence[bytes], parents: Parents = parents) -> Frontier:
        """The frontier after appending leaf hashes, in order; level by level, so one hash a node."""
        by_level = dict(zip(_levels(self.size), self.hashes, strict=True))
        level, carried, size = 0, list(leaves), self.size
        position = size
        while carried:
            if position & 1:
                carried.insert(0, by_level.pop(level))
            if len(carried) & 1:
                by_level[level] = carried.pop()
            carried = parents(carried)
            position >>= 1
            level += 1
        size += len(leaves)
        return Frontier(size, tuple(by_level[bit] for bit in _levels(size)))

    def append_packed(self, leaves: bytes, parents: PackedParents = packed_parents) -> Frontier:
        """``append``, of leaf hashes one after the other: no object for each of them."""
        by_level = dict(zip(_levels(self.size), self.hashes, strict=True))
        count = len(leaves) // HASH_BYTES
        level, position, carried = 0, self.size, leaves
        while carried:
            if position & 1:
                carried = by_level.pop(level) + carried
            if len(carried) // HASH_BYTES & 1:
                by_level[level] = carried[-HASH_BYTES:]
                carried = carried[:-HASH_BYTES]
            carried = parents(carried)
            position >>= 1
            level += 1
        size = self.size + count
        return Frontier(size, tuple(by_level[bit] for bit in _levels(size)))

    def root(self) -> bytes:
        """The Merkle tree hash of all leaves so far; of none, SHA-256 of nothing."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root

    def to_bytes(self) -> bytes:
        """The hashes one after the other, as ``log_heads.frontier`` stores them."""
        return b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, size: int, stored: bytes) -> Frontier:
        """Read back what ``to_bytes`` gave for a log of ``size`` leaves."""
        hashes = tuple(
            stored[start : start + HASH_BYTES] for start in range(0, len(stored), HASH_BYTES)
        )
        return cls(size, hashes)


def merkle_root(leaves: Iterable[bytes]) -> bytes:
    """The root over leaf hashes, by the definition; the slow, obvious form that tests hold to."""
    level = list(leaves)
    if not level:
        return EMPTY_ROOT
    if len(level) == 1:
        return level[0]
    split = 1 << ((len(level) - 1).bit_length() - 1)
    return node_hash(merkle_root(level[:split]), merkle_root(level[split:]))


def _levels(size: int) -> list[int]:
    """Levels of the perfect subtrees of ``size`` leaves, largest first."""
    return [bit for bit in range(size.bit_length() - 1, -1, -1) if size >> bit & 1]
