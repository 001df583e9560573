"""What one time bucket of one counter holds. Cells merge in any order and any grouping to the same.

Distinct values are 64-bit keyed hashes: exact up to ``KEPT`` of them, beyond that a bottom-k sketch
(Bar-Yossef et al., 2002: the k smallest hashes; its error is about 1 / √k, 6 % here). Every hash that
is kept has its exact count, whatever the order of merges. Another sketch, such as HyperLogLog of a
kept library, needs no more than ``Sketch`` asks.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import Any, Final, Protocol, Self

KEPT: Final = 256
POINTS: Final = 64  # times of single events that a cell keeps: the earliest 32 and the latest 32
FIRST_IDS: Final = 5
INTERVALS: Final = 64
_HASHES: Final = 1 << 64


class Sketch(Protocol):
    """A set of hashes with how often each came, in bounded memory."""

    def merge(self, other: Self) -> None:
        """Add what another one has."""

    def estimate(self) -> float:
        """How many different hashes there were, about."""


# A cell as lists, texts and integers: see ``Cell.as_plain``.
PlainCell = list[Any]


class BottomK:
    """The ``KEPT`` smallest hashes, each with its exact count."""

    __slots__ = ("kept",)

    def __init__(self, kept: dict[int, int]) -> None:
        """Takes the dict as its own."""
        self.kept = kept
        if len(kept) > KEPT:
            self._trim()

    def merge(self, other: BottomK) -> None:
        kept = self.kept
        for value, count in other.kept.items():
            kept[value] = kept.get(value, 0) + count
        if len(kept) > KEPT:
            self._trim()

    def estimate(self) -> float:
        if len(self.kept) < KEPT:
            return len(self.kept)
        return (KEPT - 1) * _HASHES / max(self.kept)

    def _trim(self) -> None:
        self.kept = {value: self.kept[value] for value in nsmallest(KEPT, self.kept)}


class Cell:
    """Counts of one bucket.

    ``counts``: events by selection. ``points``: (µs, …) of single events, ascending. ``intervals``:
    [first, last] of sequences, ascending, never touching. ``ids``: (µs, event id in hexadecimal) of the first events.
    """

    __slots__ = ("counts", "distinct", "first_us", "ids", "intervals", "last_us", "points", "sums")

    def __init__(
        self,
        counts: list[int],
        distinct: list[BottomK],
        sums: list[int],
        first_us: int,
        last_us: int,
    ) -> None:
        self.counts = counts
        self.distinct = distinct
        self.sums = sums
        self.first_us = first_us
        self.last_us = last_us
        self.points: list[tuple[int, ...]] = []
        self.intervals: list[tuple[int, int]] = []
        self.ids: list[tuple[int, str]] = []

    def merge(self, other: Cell) -> None:
        """Add what another cell of the same bucket has."""
        self.counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        self.sums = [one + two for one, two in zip(self.sums, other.sums, strict=True)]
        for mine, theirs in zip(self.distinct, other.distinct, strict=True):
            mine.merge(theirs)
        self.first_us = min(self.first_us, other.first_us)
        self.last_us = max(self.last_us, other.last_us)
        if other.points:
            self.points = trimmed(self.points + other.points)
        if other.intervals:
            self.intervals = union(self.intervals, other.intervals)
        self.ids = sorted([*self.ids, *other.ids])[:FIRST_IDS]

    def as_plain(self) -> PlainCell:
        """Lists, texts and integers alone; equal cells give equal ones."""
        return [
            self.counts,
            [[list(pair) for pair in sorted(one.kept.items())] for one in self.distinct],
            self.sums,
            self.first_us,
            self.last_us - self.first_us,
            [list(point) for point in self.points],
            [list(pair) for pair in self.intervals],
            [list(pair) for pair in self.ids],
        ]

    @classmethod
    def of_plain(cls, plain: PlainCell) -> Cell:
        """The cell that ``as_plain`` wrote."""
        counts, distinct, sums, first_us, lasting_us, points, intervals, ids = plain
        kept = [BottomK({value: count for value, count in one}) for one in distinct]  # noqa: C416
        made = cls(list(counts), kept, list(sums), first_us, first_us + lasting_us)
        made.points = [tuple(point) for point in points]
        made.intervals = [(first, last) for first, last in intervals]
        made.ids = [(at, event_id) for at, event_id in ids]
        return made


def trimmed(points: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Points ascending; of too many the earliest and the latest."""
    points.sort()
    half = POINTS // 2
    return points if len(points) <= POINTS else points[:half] + points[-half:]


def union(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The sequences of both as intervals. Of too many the lowest are joined: their holes are forgotten."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(one + other):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    if len(joined) > INTERVALS:
        extra = len(joined) - INTERVALS
        joined[: extra + 1] = [(joined[0][0], joined[extra][1])]
    return joined


def merge_plain(one: PlainCell, other: PlainCell) -> PlainCell:
    """What both cells of a bucket have."""
    cell = Cell.of_plain(one)
    cell.merge(Cell.of_plain(other))
    return cell.as_plain()
