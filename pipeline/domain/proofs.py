"""Merkle proofs over one log: that a leaf is in it, and that it only grew.

Proofs are made from a reader of subtree roots, wherever those are (tiles, a ledger), and verified
without any. Source: RFC 9162 §2.1.3 and §2.1.4, whose trees and proofs are those of RFC 6962 §2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pipeline.domain.errors import AuditTrailError
from pipeline.domain.merkle import EMPTY_ROOT, HASH_BYTES, node_hash

# (level, index) → root of the perfect subtree over leaves index * 2**level up to
# (index + 1) * 2**level; level 0 has the leaf hashes themselves.
SubtreeRoot = Callable[[int, int], bytes]
Subtree = tuple[int, int]

PROOF_MAX = 63  # hashes: a log of 2**63 leaves needs no more


class ProofRefused(AuditTrailError):
    """The proof does not show what it was to show. Never retried: what it is about was changed, or the
    proof is of something else.
    """


def inclusion_subtrees(index: int, size: int) -> list[list[Subtree]]:
    """Which hashes prove that leaf ``index`` is in a log of ``size`` leaves, from the leaf to the root:
    each is the root over a list of perfect subtrees, largest first.

    Raises:
        ValueError: There is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a log of {size} leaves has no leaf {index}")
    path: list[list[Subtree]] = []
    first, end = 0, size
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            path.append(list(perfect_subtrees(middle, end)))
            end = middle
        else:
            path.append(list(perfect_subtrees(first, middle)))
            first = middle
    return path[::-1]


def consistency_subtrees(old_size: int, size: int) -> list[list[Subtree]]:
    """Which hashes prove that a log of ``size`` leaves begins with that of ``old_size`` leaves; none
    where one of the two is empty or both are equal.

    Raises:
        ValueError: The older log is the larger one.
    """
    if not 0 <= old_size <= size:
        raise ValueError(f"a log of {size} leaves does not begin with {old_size}")
    path: list[list[Subtree]] = []
    if old_size in (0, size):
        return path
    first, end, whole = 0, size, True
    while old_size != end:
        middle = first + _split(end - first)
        if old_size <= middle:
            path.append(list(perfect_subtrees(middle, end)))
            end = middle
        else:
            path.append(list(perfect_subtrees(first, middle)))
            first, whole = middle, False
    if not whole:
        path.append(list(perfect_subtrees(first, end)))
    return path[::-1]


def perfect_subtrees(first: int, end: int) -> Iterator[Subtree]:
    """The perfect subtrees over the leaves from ``first`` to before ``end``, in their order; ``first``
    must be where a tree of that many leaves may begin.
    """
    while first < end:
        level = (end - first).bit_length() - 1
        yield level, first >> level
        first += 1 << level


def root_over(subtrees: Sequence[Subtree], read: SubtreeRoot) -> bytes:
    """The root over consecutive perfect subtrees, largest first; of none, the empty root."""
    if not subtrees:
        return EMPTY_ROOT
    root = read(*subtrees[-1])
    for subtree in reversed(subtrees[:-1]):
        root = node_hash(read(*subtree), root)
    return root


def inclusion_proof(index: int, size: int, read: SubtreeRoot) -> list[bytes]:
    """The hashes of ``inclusion_subtrees``."""
    return [root_over(subtrees, read) for subtrees in inclusion_subtrees(index, size)]


def consistency_proof(old_size: int, size: int, read: SubtreeRoot) -> list[bytes]:
    """The hashes of ``consistency_subtrees``."""
    return [root_over(subtrees, read) for subtrees in consistency_subtrees(old_size, size)]


def verify_inclusion(
    leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Return if the proof leads from the leaf hash at ``index`` to ``root``.

    Raises:
        ProofRefused: It does not.
    """
    _check(proof)
    if not 0 <= index < size:
        raise ProofRefused(f"a log of {size} leaves has no leaf {index}")
    found = leaf
    for sibling, is_left in _climb(index, size - 1, proof):
        found = node_hash(sibling, found) if is_left else node_hash(found, sibling)
    if found != root:
        raise ProofRefused(f"leaf {index} is not the one in the log of {size} leaves")


def verify_consistency(
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Return if the proof shows that the newer log begins with the older one.

    Raises:
        ProofRefused: It does not: one of the two was rewritten.
    """
    _check(proof)
    if old_size > size:
        raise ProofRefused(f"the log shrank from {old_size} to {size} leaves")
    if old_size in (0, size):
        if proof:
            raise ProofRefused("the proof is too long")
        if old_root != (root if old_size else EMPTY_ROOT):
            raise ProofRefused(f"two roots of {old_size} leaves")
        return
    # The old log is one perfect subtree of the new one: its root stands for the first hash.
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        raise ProofRefused("the proof is too short")
    node, last = old_size - 1, size - 1
    while node & 1:
        node >>= 1
        last >>= 1
    found_old = found = path[0]
    for sibling, is_left in _climb(node, last, path[1:]):
        if is_left:
            found_old = node_hash(sibling, found_old)
            found = node_hash(sibling, found)
        else:
            found = node_hash(found, sibling)
    if found_old != old_root or found != root:
        raise ProofRefused(f"the log of {size} leaves does not begin with that of {old_size}")


def _climb(node: int, last: int, proof: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The hashes of a proof from a node up to the root, each with whether it stands on the left; ``last``
    is the rightmost node of the same level.
    """
    for sibling in proof:
        if last == 0:
            raise ProofRefused("the proof is too long")
        is_left = bool(node & 1) or node == last
        yield sibling, is_left
        while is_left and node and not node & 1:
            node >>= 1
            last >>= 1
        node >>= 1
        last >>= 1
    if last != 0:
        raise ProofRefused("the proof is too short")


def _check(proof: Sequence[bytes]) -> None:
    if len(proof) > PROOF_MAX or any(len(node) != HASH_BYTES for node in proof):
        raise ProofRefused(f"a proof is at most {PROOF_MAX} hashes of {HASH_BYTES} bytes")


def _split(size: int) -> int:
    """The largest power of two below ``size`` (RFC 6962 §2.1)."""
    return 1 << ((size - 1).bit_length() - 1)
