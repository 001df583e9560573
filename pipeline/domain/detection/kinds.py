"""How each kind of rule finds something in its counter: findings by time, before dedup.

A kind changes what its counter remembers. What it has seen once it does not find again, however a
history is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import asin, cos, radians, sin, sqrt
from statistics import median
from typing import Final

from pipeline.domain.detection import windows
from pipeline.domain.detection.cells import Cell, union
from pipeline.domain.detection.rows import HISTORY_KEPT, Row
from pipeline.domain.detection.rules import BUCKETS, DAY_US, EVERY, HOUR_US, MINUTE_US, Kind, Rule

POINTS_KEPT: Final = 8  # places of a traveller
VALUES_KEPT: Final = 64  # of FIRST_SEEN
_EARTH_KM: Final = 6_371
_FORGET_HOURS: Final = 180 * 24
NIGHT: Final = range(2, 6)  # UTC; Panther's
KNOWN_EVENTS: Final = 10
_PART_OF_WEEK: Final = {"d": 5 / 7, "w": 2 / 7}
_WEEKEND_FROM: Final = 5  # Monday is 0
_EPOCH_WEEKDAY: Final = 3  # 1970-01-01 was a Thursday
_MAD_TO_SIGMA: Final = 1.4826


@dataclass(frozen=True, slots=True)
class Finding:
    """Measures at a time, and whether they are beyond the rule's bounds is not judged yet."""

    start_us: int
    end_us: int
    bucket: int
    values: Mapping[str, float]
    cells: Sequence[Cell] = ()  # where the ids of the first events are


Find = Callable[[Rule, Row, Mapping[int, Cell], str], Iterator[Finding]]


def _windowed(rule: Rule, row: Row, new: Mapping[int, Cell], tenant: str) -> Iterator[Finding]:
    ends = {end for bucket in new for end in range(bucket, bucket + BUCKETS + 1)}
    for end in sorted(ends & row.cells.keys()):
        cells = windows.window(row.cells, end)
        start_us, end_us = cells[0].first_us, cells[-1].last_us
        if rule.kind is Kind.TEMPORAL_ORDERED:
            for at_us, values in windows.ordered(rule, cells):
                if at_us // rule.bucket_us == end:
                    yield Finding(start_us, at_us, end, values, cells)
        else:
            values = windows.values(rule, tenant, cells)
            yield Finding(start_us, end_us, end, values, cells)


def _travel(rule: Rule, row: Row, new: Mapping[int, Cell], _tenant: str) -> Iterator[Finding]:
    known = [tuple(point) for point in row.memory.get("points", [])]
    fresh = {point for cell in new.values() for point in cell.points}
    points = sorted({*known, *fresh})
    seen = [new[bucket] for bucket in sorted(new)]
    for before, after in pairwise(points):
        is_new = before in fresh or after in fresh
        lasting_us = max(after[0] - before[0], 1)
        if not is_new or before[4] == after[4] or lasting_us > rule.timespan_us:
            continue
        km = distance_km(before[1:3], after[1:3])
        values = {"distance-km": km, "speed-km-h": km / (lasting_us / HOUR_US)}
        yield Finding(before[0], after[0], after[0] // rule.bucket_us, values, seen)
    row.memory["points"] = [list(point) for point in points[-POINTS_KEPT:]]


def distance_km(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Great circle by the haversine formula, between latitudes and longitudes in degrees."""
    lat, to_lat = radians(one[0]), radians(other[0])
    half = sin((to_lat - lat) / 2) ** 2 + cos(lat) * cos(to_lat) * (
        sin(radians(other[1] - one[1]) / 2) ** 2
    )
    return 2 * _EARTH_KM * asin(sqrt(half))


def _first_seen(rule: Rule, row: Row, new: Mapping[int, Cell], _tenant: str) -> Iterator[Finding]:
    seen: dict[str, int] = row.memory.setdefault("seen", {})
    since_us: int = row.memory.setdefault("since", min(cell.first_us for cell in new.values()))
    place = rule.slots.index((EVERY, rule.field))
    for bucket in sorted(new):
        cell = new[bucket]
        known_us = cell.first_us - since_us
        for value in sorted(cell.distinct[place].kept):
            last_us = seen.get(str(value))
            is_new = last_us is None or cell.first_us - last_us > rule.timespan_us
            if is_new and known_us >= rule.learn_us:
                values = {"known-days": known_us / DAY_US}
                yield Finding(cell.first_us, cell.last_us, bucket, values, [cell])
            seen[str(value)] = max(cell.last_us, last_us or 0)
    if len(seen) > VALUES_KEPT:
        for old in sorted(seen, key=lambda one: seen[one])[: len(seen) - VALUES_KEPT]:
            del seen[old]


def _dormant(_rule: Rule, row: Row, new: Mapping[int, Cell], _tenant: str) -> Iterator[Finding]:
    for bucket in sorted(new):
        cell, last_us = new[bucket], row.memory.get("last")
        if last_us is not None:
            values = {"idle-days": (cell.first_us - last_us) / DAY_US}
            yield Finding(last_us, cell.first_us, bucket, values, [cell])
        row.memory["last"] = max(cell.last_us, last_us or 0)


def _hours(rule: Rule, row: Row, new: Mapping[int, Cell], _tenant: str) -> Iterator[Finding]:
    """An hour of the day, on working days or at the weekend, in which somebody usually does less. As long
    as little is known of somebody, the night is unusual and the day is not.
    """
    slots: dict[str, int] = row.memory.setdefault("slots", {})
    since: int = row.memory.setdefault("since", min(new))
    for bucket in sorted(new):
        slot = hour_slot(bucket)
        added = sum(new[bucket].counts)
        cell = row.cells.get(bucket, new[bucket])
        here = sum(cell.counts)
        # What the current hour has is not what is usual: it is taken out again.
        before = {**slots, slot: slots.get(slot, 0) - (here - added)}
        known_us = (bucket - since) * HOUR_US
        if known_us >= rule.learn_us and sum(before.values()) >= KNOWN_EVENTS:
            # An hour with its neighbours, less what chance alone may add: few events are no habit.
            near = [before.get(hour_slot(bucket + one), 0) for one in (-1, 0, 1)]
            usual = (sum(near) - sqrt(sum(near))) / 3
            same = sum([count for name, count in before.items() if name[0] == slot[0]])
            days = known_us / DAY_US * _PART_OF_WEEK[slot[0]]
            share, times = usual / max(same / 24, 1 / 24), here / max(usual / days, 0.5)
        else:
            an_hour = sum(before.values()) / max(bucket - since, 1)
            share, times = float(bucket % 24 not in NIGHT), here / max(an_hour, 0.5)
        values = {"events": here, "times-usual": times, "share-of-usual": share}
        yield Finding(cell.first_us, cell.last_us, bucket, values, [cell])
        slots[slot] = slots.get(slot, 0) + added
    newest = max(new)
    if newest - since > _FORGET_HOURS:  # what is usual fades: half of it every 90 days
        row.memory["slots"] = {name: (count + 1) // 2 for name, count in slots.items()}
        row.memory["since"] = (since + newest) // 2


def hour_slot(hour: int) -> str:
    """``d7``: seven o'clock UTC on a working day; ``w7``: at the weekend."""
    is_weekend = (hour // 24 + _EPOCH_WEEKDAY) % 7 >= _WEEKEND_FROM
    return f"{'w' if is_weekend else 'd'}{hour % 24}"


def _baseline(rule: Rule, row: Row, new: Mapping[int, Cell], _tenant: str) -> Iterator[Finding]:
    """Against the median of earlier buckets, in robust standard deviations (median absolute deviation)."""
    history: dict[str, int] = row.memory.setdefault("history", {})
    for bucket in sorted(new):
        cell = new[bucket]
        value = history.get(str(bucket), 0) + (cell.sums[0] if rule.field else sum(cell.counts))
        history[str(bucket)] = value
        before = [was for when, was in history.items() if int(when) < bucket]
        if before:
            middle = median(before)
            spread = _MAD_TO_SIGMA * median([abs(was - middle) for was in before])
            values = {
                "value": value,
                "z": (value - middle) / max(spread, middle / 10, 1),
                "history-buckets": len(before),
            }
            whole = row.cells.get(bucket, cell)
            yield Finding(whole.first_us, whole.last_us, bucket, values, [whole])
    for old in sorted(history, key=int)[:-HISTORY_KEPT]:
        del history[old]


def _silence(_rule: Rule, row: Row, new: Mapping[int, Cell], _tenant: str) -> Iterator[Finding]:
    heard = [point for cell in new.values() for point in cell.points]
    latest = max([*heard, tuple(row.memory.get("heard", (0, 0, 1)))])
    row.memory["heard"] = list(latest)
    return iter(())


def _gap(rule: Rule, row: Row, new: Mapping[int, Cell], _tenant: str) -> Iterator[Finding]:
    known = [(first, last) for first, last in row.memory.get("intervals", [])]
    for cell in new.values():
        known = union(known, cell.intervals)
    row.memory["intervals"] = [list(pair) for pair in known]
    # A hole is waited for from when it was noticed: partitions of one topic are read apart.
    noticed: dict[str, int] = row.memory.get("holes", {})
    row.memory["holes"] = {
        str(before[1] + 1): noticed.get(str(before[1] + 1), row.newest_us)
        for before, _after in pairwise(known)
    }
    yield from _open_holes(rule, row, row.newest_us)


def _open_holes(rule: Rule, row: Row, now_us: int) -> Iterator[Finding]:
    intervals = [(first, last) for first, last in row.memory.get("intervals", [])]
    holes: dict[str, int] = row.memory.get("holes", {})
    for before, after in pairwise(list(intervals)):
        noticed_us = holes.get(str(before[1] + 1), now_us)
        waited_us = now_us - noticed_us
        if waited_us < rule.timespan_us:
            continue
        missing = after[0] - before[1] - 1
        values = {"missing": missing, "waited-minutes": waited_us / MINUTE_US}
        yield Finding(noticed_us, now_us, before[1] + 1, values)
        # Told once: from now on the hole is as good as filled.
        intervals = union(intervals, [(before[1] + 1, after[0] - 1)])
        holes.pop(str(before[1] + 1), None)
    row.memory["intervals"] = [list(pair) for pair in intervals]


def due(rule: Rule, row: Row, now_us: int) -> Iterator[Finding]:
    """What is found because time passed and nothing came. ``now_us`` is event time: the newest of the log."""
    if rule.kind is Kind.GAP:
        yield from _open_holes(rule, row, now_us)
        return
    at_us, interval_s, is_final = row.memory.get("heard", (0, 0, 1))
    if is_final or interval_s <= 0 or row.memory.get("told") == at_us:
        return
    missed = (now_us - at_us) / (interval_s * 1_000_000)
    finding = Finding(at_us, now_us, at_us, {"missed-intervals": missed})
    yield finding


FIND: Final[Mapping[Kind, Find]] = {
    Kind.EVENT_COUNT: _windowed,
    Kind.VALUE_COUNT: _windowed,
    Kind.TEMPORAL: _windowed,
    Kind.TEMPORAL_ORDERED: _windowed,
    Kind.TRAVEL: _travel,
    Kind.FIRST_SEEN: _first_seen,
    Kind.DORMANT: _dormant,
    Kind.HOURS: _hours,
    Kind.BASELINE: _baseline,
    Kind.SILENCE: _silence,
    Kind.GAP: _gap,
}
