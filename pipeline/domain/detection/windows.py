"""The measures of a window: its cells, or the single events in order, as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from pipeline.domain.detection.cells import FIRST_IDS, BottomK, Cell
from pipeline.domain.detection.rules import BUCKETS, EVERY, Measure, Of, Rule


def window(cells: Mapping[int, Cell], end: int) -> list[Cell]:
    """The cells of the window that ends with a bucket, by time."""
    return [cells[bucket] for bucket in range(end - BUCKETS, end + 1) if bucket in cells]


def values(rule: Rule, cells: Sequence[Cell]) -> dict[str, float]:
    """Every measure of a window; one that has no value is left out."""
    merged = [BottomK({}) for _ in rule.slots]
    for cell in cells:
        for whole, part in zip(merged, cell.distinct, strict=True):
            whole.merge(part)
    found: dict[str, float] = {}
    for measure in rule.measures:
        if measure.of is Of.RATIO:
            over, under = (found.get(name) for name in measure.operands)
            if over is not None and under:
                found[measure.name] = over / under
        elif (value := _value(rule, measure, cells, merged)) is not None:
            found[measure.name] = value
    return found


def _value(
    rule: Rule, measure: Measure, cells: Sequence[Cell], merged: Sequence[BottomK]
) -> float | None:
    number = rule.number(measure.selection)
    if measure.of is Of.COUNT:
        return sum([sum(cell.counts) if number == EVERY else cell.counts[number] for cell in cells])
    if measure.of is Of.SUM:
        place = rule.sums.index((number, measure.field))
        return sum([cell.sums[place] for cell in cells])
    if measure.of is Of.LASTING:
        return (cells[-1].last_us - cells[0].first_us) / 1_000_000
    if measure.of is Of.GIVEN:
        return None
    sketch = merged[rule.slots.index((number, measure.field))]
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
