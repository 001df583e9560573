"""A detection rule: which events it looks at, how they are counted, and what makes an alert of them.

The shape is that of Sigma correlations (SigmaHQ specification 2.1), with several measures instead of
one, and with kinds that a count alone cannot express.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as defaulted
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
# A window is counted over buckets of its timespan / 12. It holds 13 of them, so that no window of the
# timespan is missed; what it counts may be older than the timespan by up to a twelfth of it.
BUCKETS: Final = 12
EVERY: Final = -1  # in place of a selection's number: all of them


class Level(StrEnum):
    """How grave an alert is; Sigma's words."""

    INFORMATIONAL = "informational"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Kind(StrEnum):
    """How events are correlated: the first four are Sigma's."""

    EVENT_COUNT = "event_count"
    VALUE_COUNT = "value_count"
    TEMPORAL = "temporal"
    TEMPORAL_ORDERED = "temporal_ordered"
    TRAVEL = "travel"
    FIRST_SEEN = "first_seen"
    DORMANT = "dormant"
    HOURS = "hours"
    BASELINE = "baseline"
    SILENCE = "silence"
    GAP = "gap"


WINDOWED: Final = frozenset(
    {Kind.EVENT_COUNT, Kind.VALUE_COUNT, Kind.TEMPORAL, Kind.TEMPORAL_ORDERED}
)
# These alert by time passing (see ``due``), and count over all tenants: their tenant is the empty one.
TIMED: Final = frozenset({Kind.SILENCE, Kind.GAP})
# What each of the other kinds measures, beside the counts of its window.
MEASURED: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.TRAVEL: ("distance-km", "speed-km-h"),
    Kind.FIRST_SEEN: ("known-days",),
    Kind.DORMANT: ("idle-days",),
    Kind.HOURS: ("events", "times-usual", "share-of-usual"),
    Kind.BASELINE: ("value", "z", "history-buckets"),
    Kind.SILENCE: ("missed-intervals",),
    Kind.GAP: ("missing", "waited-minutes"),
}


class Operator(StrEnum):
    """How a value is compared; Sigma's modifiers."""

    EQUALS = "equals"
    NEQ = "neq"
    EXISTS = "exists"
    STARTSWITH = "startswith"
    ENDSWITH = "endswith"
    CONTAINS = "contains"
    GTE = "gte"
    LTE = "lte"
    FIELDREF = "fieldref"


@dataclass(frozen=True, slots=True)
class Condition:
    """One value of an event against ``values``: any of them, with NEQ none of them.

    ``path`` is flat (``targets.0.id``); ``targets.*.id`` is any of them.
    """

    path: str
    operator: Operator
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Events of one family for which every condition holds."""

    name: str
    family: str
    conditions: tuple[Condition, ...] = ()


class Of(StrEnum):
    """What a measure is."""

    COUNT = "count"  # events of a selection
    DISTINCT = "distinct"  # different values of a field
    SUM = "sum"  # of a field
    RATIO = "ratio"  # of two measures
    MAX_PER = "max-per"  # events of the value of a field that has most
    SHARE = "share"  # of the values of a field that have so many events each
    LASTING = "lasting"  # seconds from the first to the last event
    GIVEN = "given"  # what the kind measures


@dataclass(frozen=True, slots=True)
class Measure:
    """A number, and the bound that it must keep. Without a selection it is of all. Of measures with ``is_any`` one must hold, of others all."""

    name: str
    of: Of
    selection: str = ""
    field: str = ""
    operands: tuple[str, str] = ("", "")
    band: tuple[int, int] = (0, 0)
    gte: float | None = None
    lte: float | None = None
    is_any: bool = False

    def holds(self, value: float, override: float | None = None) -> bool:
        """Whether the value keeps the bound, or the one that a tenant has instead."""
        if self.gte is not None and value < (self.gte if override is None else override):
            return False
        return self.lte is None or value <= (self.lte if override is None else override)


@dataclass(frozen=True)
class Rule:
    """One detection. ``overrides``: tenant → measure → the bound that holds there."""

    name: str
    title: str
    level: Level
    status: str
    description: str
    references: tuple[str, ...]
    tags: tuple[str, ...]
    false_positives: tuple[str, ...]
    runbook: str
    dedup_us: int
    kind: Kind
    selections: tuple[Selection, ...]
    group_by: tuple[str, ...]
    timespan_us: int
    measures: tuple[Measure, ...]
    field: str = ""  # FIRST_SEEN: whose value; BASELINE: what is summed, else events are counted
    learn_us: int = 0  # how long a group is known before its rule may say anything
    overrides: Mapping[str, Mapping[str, float]] = defaulted(default_factory=dict)

    @cached_property
    def bucket_us(self) -> int:
        """How long one bucket of its counters is."""
        if self.kind in (Kind.FIRST_SEEN, Kind.HOURS, Kind.DORMANT):
            return HOUR_US
        if self.kind is Kind.BASELINE:
            return max(self.timespan_us, 1)
        return max(self.timespan_us // BUCKETS, 1)

    @cached_property
    def slots(self) -> tuple[tuple[int, str], ...]:
        """The distinct fields that are counted: (number of the selection, field), each once."""
        wanted = [
            (self.number(measure.selection), measure.field)
            for measure in self.measures
            if measure.of in (Of.DISTINCT, Of.MAX_PER, Of.SHARE)
        ]
        if self.kind is Kind.FIRST_SEEN:
            wanted.append((EVERY, self.field))
        return tuple(dict.fromkeys(wanted))

    @cached_property
    def sums(self) -> tuple[tuple[int, str], ...]:
        """The fields that are summed: (number of the selection, field), each once."""
        wanted = [
            (self.number(measure.selection), measure.field)
            for measure in self.measures
            if measure.of is Of.SUM
        ]
        if self.kind is Kind.BASELINE and self.field:
            wanted.append((EVERY, self.field))
        return tuple(dict.fromkeys(wanted))

    def number(self, selection: str) -> int:
        """The place of a selection; ``EVERY`` for all of them together."""
        return EVERY if not selection else self._places[selection]

    @cached_property
    def ordered_measures(self) -> tuple[Measure, ...]:
        """Cheap ones first, ratios after what they are of."""
        rank = {Of.COUNT: 0, Of.RATIO: 2}
        return tuple(sorted(self.measures, key=lambda one: rank.get(one.of, 1)))

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {one.name: place for place, one in enumerate(self.selections)}

    def holds(self, tenant: str, values: Mapping[str, float]) -> bool:
        """Whether values make an alert for a tenant. A measure that has no value does not hold."""
        bounds = self.overrides.get(tenant, {})
        kept: list[bool] = []
        for measure in self.measures:
            value = values.get(measure.name)
            holds = value is not None and measure.holds(value, bounds.get(measure.name))
            if measure.is_any:
                kept.append(holds)
            elif not holds:
                return False
        return any(kept) or not kept


@dataclass(frozen=True, slots=True)
class Refused:
    """A rule file, or a part of the overrides, that is not used; what was loaded before stays."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules that are in force, by name ascending, and the files that were refused."""

    rules: Sequence[Rule] = ()
    refusals: Sequence[Refused] = ()

    def __getitem__(self, name: str) -> Rule:
        """Raises ``KeyError``."""
        for rule in self.rules:
            if rule.name == name:
                return rule
        raise KeyError(name)
