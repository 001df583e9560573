"""One proof for many leaves of a log: the hashes of what lies between them, from left to right.

Of a contiguous range that is two times the height of the tree at most, of scattered leaves less than an
inclusion proof each, since neighbours share what stands above them. Source: the tree of RFC 6962 §2.1;
the proof is that of no standard, so ``pipeline/verifier.py`` and RFC.md §14 say how it is read.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.domain.proofs import Subtree, perfect_subtrees


def between(after: int, before: int, size: int) -> Iterator[list[Subtree]]:
    """The largest subtrees of a log of ``size`` leaves that lie between two of its leaves, from left to
    right; each is a list of perfect subtrees, largest first, as ``proofs.root_over`` takes them.

    ``after`` is -1 where no leaf is known before, ``before`` is ``size`` where none is behind.

    Raises:
        ValueError: They are not in order, or not in such a log.
    """
    if not -1 <= after < before <= size:
        raise ValueError(f"a log of {size} leaves has nothing between leaf {after} and {before}")
    if before - after > 1:
        yield from _between(after, before, 0, size)


def _between(after: int, before: int, first: int, end: int) -> Iterator[list[Subtree]]:
    if end <= after + 1 or first >= before:
        return
    if first > after and end <= before:
        yield list(perfect_subtrees(first, end))
        return
    middle = first + (1 << ((end - first - 1).bit_length() - 1))
    yield from _between(after, before, first, middle)
    yield from _between(after, before, middle, end)
