"""Rules in words: durations and conditions as people read them."""

from __future__ import annotations

from typing import Final

from pipeline.domain.detection.rules import DAY_US, HOUR_US, MINUTE_US, Measure, Of, Rule

_UNITS: Final = ((DAY_US, "d"), (HOUR_US, "h"), (MINUTE_US, "m"), (1_000_000, "s"))


def duration_text(duration_us: int) -> str:
    """As a rule file has it: 15m."""
    for unit_us, name in _UNITS:
        if duration_us and duration_us % unit_us == 0:
            return f"{duration_us // unit_us}{name}"
    return f"{duration_us / 1_000_000:g}s"


def condition_text(rule: Rule) -> str:
    """All measures that have a bound."""
    bounded = [one for one in rule.measures if one.gte is not None or one.lte is not None]
    every = [_bound(one) for one in bounded if not one.is_any]
    some = [_bound(one) for one in bounded if one.is_any]
    if some:
        every.append(f"({' or '.join(some)})")
    return " and ".join(every)


def measure_text(measure: Measure) -> str:
    """What a measure is, without its bound."""
    of = measure.selection or "all"
    texts = {
        Of.COUNT: f"events of {of}",
        Of.DISTINCT: f"different `{measure.field}` of {of}",
        Of.SUM: f"sum of `{measure.field}`",
        Of.RATIO: " / ".join(measure.operands),
        Of.MAX_PER: f"events of the `{measure.field}` that has most",
        Of.SHARE: f"share of `{measure.field}` with {measure.band[0]} to {measure.band[1]} events",
        Of.LASTING: "seconds from first to last",
        Of.GIVEN: "measured by the type",
    }
    return texts[measure.of]


def _bound(measure: Measure) -> str:
    if measure.gte is not None:
        return f"{measure.name} >= {measure.gte:g}"
    return f"{measure.name} <= {measure.lte:g}"
