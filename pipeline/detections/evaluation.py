"""How good the rules are: made attacks among made load, through both stages.

What is found is counted by rule, and what fires on load alone by 100,000 events. Seeds that rules were
tuned with are refused as evidence: figures of an evaluation are of another seed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pipeline.detections.events import Accepting, ranges
from pipeline.detections.trials import trial_hash
from pipeline.domain.detection.aggregate import Aggregator
from pipeline.domain.detection.alerts import Alert
from pipeline.domain.detection.conditions import Place
from pipeline.domain.detection.counters import Counters
from pipeline.domain.detection.rules import DAY_US, Rule
from pipeline.domain.detection.signals import Key
from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, SealedEvent
from pipeline.generator.attacks import ATTACKS, LabelledEvent, labelled
from pipeline.generator.scene import PLACES

TUNING_SEEDS: Final = (1, 2, 3)  # rules may be changed by what these show
DEFAULT_SEED: Final = 20_261_127  # and never by what this one shows
START_US: Final = 1_788_912_000_000_000  # 2026-09-09 00:00 UTC
FALSE_PER_100K_MAX: Final = 1.0

# Which rules are meant to find an attack: one of them is enough.
EXPECTED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **{name: (name,) for name in ATTACKS},
        "mass-export": ("export-created",),
        "mfa-fatigue": ("mfa-fatigue", "mfa-fatigue-success"),
    }
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is made: ``count`` events of load over ``days``, ``each`` of every attack after ``quiet_days``."""

    seed: int = DEFAULT_SEED
    count: int = 100_000
    days: int = 21
    quiet_days: int = 14
    each: int = 3
    people_per_tenant: int = 2_000

    def events(self) -> Iterator[LabelledEvent]:
        """By time ascending; the same scope gives the same."""
        return labelled(
            self.count,
            seed=self.seed,
            start_at_us=START_US,
            span_us=self.days * DAY_US,
            quiet_us=self.quiet_days * DAY_US,
            each=self.each,
            people_per_tenant=self.people_per_tenant,
        )


@dataclass(slots=True)
class RuleFigures:
    """What one rule did. ``staged``: attacks that it is meant to find, by label."""

    rule: Rule
    staged: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)
    alerts: int = 0
    false_alerts: int = 0

    @property
    def missed(self) -> int:
        return len(self.staged - self.found)


@dataclass(slots=True)
class Figures:
    """What all rules did."""

    rules: dict[str, RuleFigures]
    normal_events: int = 0
    attack_events: int = 0
    staged: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)  # by a rule that is meant to

    @property
    def missed(self) -> Sequence[str]:
        """Labels of attacks that no rule found that is meant to."""
        return sorted(self.staged - self.found)

    @property
    def false_alerts(self) -> int:
        return sum([one.false_alerts for one in self.rules.values()])

    def per_100k(self, alerts: int) -> float:
        """So many alerts of 100,000 normal events."""
        return alerts * 100_000 / max(self.normal_events, 1)

    @property
    def good(self) -> bool:
        """Every attack found, and no more false alerts than promised."""
        return not self.missed and self.per_100k(self.false_alerts) <= FALSE_PER_100K_MAX


def evaluate(
    rules: Sequence[Rule], scope: Scope, *, on_events: Callable[[int], None] = lambda _number: None
) -> Figures:
    """The figures of a scope. ``on_events`` is told how many more events are done, now and then."""
    truth = _Truth(rules)
    figures = Figures({rule.name: RuleFigures(rule) for rule in rules})
    alerts = list(run(rules, _told(truth.watched(scope.events(), figures), on_events)))
    for label in figures.staged:
        for name in EXPECTED[label.split("/")[0]]:
            if name in figures.rules:
                figures.rules[name].staged.add(label)
    for alert in alerts:
        one = figures.rules[alert.rule]
        one.alerts += 1
        labels = truth.labels(alert)
        one.false_alerts += not labels
        one.found |= labels & one.staged
        figures.found |= labels & one.staged
    return figures


def _told(events: Iterable[SealedEvent], on_events: Callable[[int], None]) -> Iterator[SealedEvent]:
    for number, event in enumerate(events, 1):
        yield event
        if number % 1_000 == 0:
            on_events(1_000)


def run(rules: Sequence[Rule], events: Iterable[SealedEvent]) -> Iterator[Alert]:
    """The alerts of events that come by time, each family as a log."""
    aggregator = Aggregator(rules, trial_hash, place_of=place_of_made)
    counters = Counters(rules)
    for leaves in ranges(events):
        yield from counters.apply(aggregator.aggregate(leaves).signals)
        yield from counters.tick(leaves.events[-1].occurred_at_us)


def place_of_made(event: SealedEvent) -> Place | None:
    """Where a made address is: attackers far away, everybody else at home."""
    address = event.clear.get("source.ip")
    if not isinstance(address, str):
        return None
    for name, place in PLACES.items():
        if address.startswith(place.network.removesuffix("::/32") + ":"):
            return _PLACES[name]
    return _PLACES["São Paulo" if address.startswith("2001:db8:dead:") else "Berlin"]


_PLACES: Final = {
    name: Place(round(place.latitude), round(place.longitude), place.country)
    for name, place in PLACES.items()
}


class _Truth:
    """Which counters the events of attacks are counted by, and when."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._aggregator = Aggregator(rules, trial_hash, place_of=place_of_made)
        self._labels: dict[Key, list[tuple[int, str]]] = defaultdict(list)

    def watched(self, events: Iterable[LabelledEvent], figures: Figures) -> Iterator[SealedEvent]:
        """The events; what has a label is noted on the way."""
        accepting = Accepting()
        for one in events:
            event = accepting(one.family, one.event)
            if one.label:
                figures.attack_events += 1
                figures.staged.add(one.label)
                self._note(event, one.label)
            else:
                figures.normal_events += 1
            yield event

    def _note(self, event: SealedEvent, label: str) -> None:
        leaves = LeafRange(0, LogName("truth", 0, 0), 0, [event])
        for signal in self._aggregator.aggregate(leaves).signals:
            self._labels[signal.key].append((event.occurred_at_us, label))

    def labels(self, alert: Alert) -> set[str]:
        """The attacks of which an event is within the alert's window."""
        noted = self._labels.get((alert.rule, alert.tenant, alert.group), ())
        first_us, last_us = alert.window_start_us, alert.window_end_us
        return {label for at_us, label in noted if first_us <= at_us <= last_us}


def per_day(alerts: Iterable[Alert]) -> Counter[tuple[int, str]]:
    """Alerts by (day since 1970, rule)."""
    return Counter((alert.window_end_us // DAY_US, alert.rule) for alert in alerts)
