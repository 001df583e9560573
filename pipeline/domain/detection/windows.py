"""The measures of a window: its cells, or the single events in order, as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from pipeline.domain.detection.cells import FIRST_IDS, BottomK, Cell
from pipeline.domain.detection.rules import BUCKETS, EVERY, Measure, Of, Rule


def window(cells: Mapping[int, Cell], end: int) -> list[Cell]:
    """The cells of the window that ends with a bucket, by time."""
    return [cells[bucket] for bucket in range(end - BUCKETS, end + 1) if bucket in cells]


def values(rule: Rule, tenant: str, cells: Sequence[Cell]) -> dict[str, float]:
    """The measures of a window, up to one that all must hold and that does not; one without a value is
    left out.
    """
    bounds = rule.overrides.get(tenant, {})
    sketches: dict[int, BottomK] = {}
    found: dict[str, float] = {}
    for measure in rule.ordered_measures:
        value = _value(rule, measure, cells, sketches, found)
        if value is not None:
            found[measure.name] = value
        if not measure.is_any and not (
            value is not None and measure.holds(value, bounds.get(measure.name))
        ):
            return found
    return found


def _value(
    rule: Rule,
    measure: Measure,
    cells: Sequence[Cell],
    sketches: dict[int, BottomK],
    found: Mapping[str, float],
) -> float | None:
    if measure.of is Of.GIVEN:
        return None
    if measure.of is Of.RATIO:
        over, under = (found.get(name) for name in measure.operands)
        return over / under if over is not None and under else None
    number = rule.number(measure.selection)
    if measure.of is Of.COUNT:
        return sum([sum(cell.counts) if number == EVERY else cell.counts[number] for cell in cells])
    if measure.of is Of.SUM:
        place = rule.sums.index((number, measure.field))
        return sum([cell.sums[place] for cell in cells])
    if measure.of is Of.LASTING:
        return (cells[-1].last_us - cells[0].first_us) / 1_000_000
    return _of_values(measure, cells, rule.slots.index((number, measure.field)), sketches)


def _of_values(
    measure: Measure, cells: Sequence[Cell], place: int, sketches: dict[int, BottomK]
) -> float | None:
    if place not in sketches:
        sketch = sketches[place] = BottomK({})
        for cell in cells:
            sketch.merge(cell.distinct[place])
    sketch = sketches[place]
    if measure.of is Of.DISTINCT:
        return sketch.estimate()
    if not sketch.kept:
        return None
    if measure.of is Of.MAX_PER:
        return max(sketch.kept.values())
    low, high = measure.band
    within = sum([low <= count <= high for count in sketch.kept.values()])
    return within / len(sketch.kept)


def first_ids(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The ids of the first events."""
    found = sorted([one for cell in cells for one in cell.ids])[:FIRST_IDS]
    return tuple([str(UUID(event_id)) for _at_us, event_id in found])


def ordered(rule: Rule, cells: Sequence[Cell]) -> Iterator[tuple[int, dict[str, float]]]:
    """At each event of the last selection: its time, and the measures of the timespan before it.

    Counts are of single events, exact up to what a cell keeps of them.
    """
    points = sorted([point for cell in cells for point in cell.points])
    last = len(rule.selections) - 1
    begin = 0
    counts = [0] * (last + 1)
    for at_us, number in points:
        while points[begin][0] < at_us - rule.timespan_us:
            counts[points[begin][1]] -= 1
            begin += 1
        counts[number] += 1
        if number == last:
            yield (
                at_us,
                {
                    measure.name: sum(counts)
                    if not measure.selection
                    else counts[rule.number(measure.selection)]
                    for measure in rule.measures
                    if measure.of is Of.COUNT
                },
            )
