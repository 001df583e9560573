"""Ids and times of made events: random, but the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Final

HOUR_US: Final = 3_600_000_000

# Share of a day's events by hour, UTC: offices open at 7, a dip at noon, backups at night.
_HOURS: Final = (2, 2, 3, 2, 2, 2, 4, 8, 14, 16, 15, 13, 9, 13, 15, 14, 12, 9, 6, 5, 4, 3, 3, 2)
_LEAST_SHARE: Final = 0.05  # of an hour that the span only touches, so that no hour is empty


def uuid7(occurred_at_us: int, random: Random) -> str:
    """A version 7 UUID. Source: RFC 9562 §5.7."""
    bits = random.getrandbits(74)
    number = (
        (occurred_at_us // 1000) << 80
        | 0x7 << 76
        | (bits >> 62) << 64
        | 0b10 << 62
        | (bits & 0x3FFF_FFFF_FFFF_FFFF)
    )
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def hexadecimal(digits: int, random: Random) -> str:
    """A random number of so many hexadecimal digits."""
    return f"{random.getrandbits(4 * digits):0{digits}x}"


def times(count: int, *, start_at_us: int, span_us: int, random: Random) -> Iterator[int]:
    """``count`` times from ``start_at_us`` on, ascending, within ``span_us``, dense by day and
    thin by night.
    """
    if count <= 0:
        return
    edges, shares = _hours(start_at_us, span_us)
    total = sum(shares)
    hour, below = 0, 0.0
    for index in range(count):
        position = (index + random.random()) / count * total
        while hour < len(shares) - 1 and position >= below + shares[hour]:
            below += shares[hour]
            hour += 1
        begin, end = edges[hour], edges[hour + 1]
        part = min((position - below) / shares[hour], 1.0)
        yield min(begin + int(part * (end - begin)), end - 1)


def _hours(start_at_us: int, span_us: int) -> tuple[list[int], list[float]]:
    """The edges of the hours within the span, and how much of the events each has."""
    edges = [start_at_us]
    end = start_at_us + max(span_us, 1)
    while edges[-1] < end:
        edges.append(min((edges[-1] // HOUR_US + 1) * HOUR_US, end))
    shares = [
        _HOURS[begin // HOUR_US % 24] * max((after - begin) / HOUR_US, _LEAST_SHARE)
        for begin, after in pairwise(edges)
    ]
    return edges, shares
