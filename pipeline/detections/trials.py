"""A rule's own tests: its events through both stages, as one range and one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from pipeline.detections.own_tests import RuleTest, TestEvent
from pipeline.detections.reading import RuleFile
from pipeline.domain.detection.aggregate import INTAKE, Aggregator, IntakeCounts
from pipeline.domain.detection.conditions import Place
from pipeline.domain.detection.counters import Counters
from pipeline.domain.detection.rules import Rule
from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, SealedEvent

TENANT: Final = "acme"
START_US: Final = 1_789_984_800_000_000  # Monday 2026-09-21 10:00 UTC
_LOG: Final = LogName("audit.raw.trial", 0, 0)
_NUMBER: Final = re.compile(r"\{n(?:%(\d+))?\}")
_BASE: Final = {
    "outcome": "success",
    "severity": "informational",
    "actor.type": "user",
    "actor.tenant": TENANT,
    "actor.id_type": "user_id",
    "actor.id": "u-1",
    "producer.service": "trial",
    "action": "trial.run",
}


@dataclass(frozen=True, slots=True)
class Result:
    """How one test went."""

    rule: str
    test: str
    wanted: int
    found: int
    found_one_by_one: int

    @property
    def passed(self) -> bool:
        return self.wanted == self.found == self.found_one_by_one


def trial_hash(tenant: str, text: str) -> int:
    """A keyed hash whose key is no secret: for trials alone."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8, key=tenant.encode()[:64]).digest())


def flat_event(
    family: str, values: dict[str, Any], at_us: int, number: int, *, broker_us: int | None = None
) -> SealedEvent:
    """An event of flat values, as if it was accepted at once."""
    known = values.get("actor.id_type", "unknown") != "unknown" and values.get("actor.id")
    owner = f"{values.get('actor.tenant')}/{values.get('actor.id_type')}/{values.get('actor.id')}"
    return SealedEvent(
        event_id=number.to_bytes(16),
        family=family,
        occurred_at_us=at_us,
        offset=number,
        broker_timestamp_ms=(at_us if broker_us is None else broker_us) // 1000,
        schema_id=0,
        clear=values,
        opened={},
        canonical=b"",
        leaf_hash=b"",
        blobs=(),
        actor_ref=blake2b(owner.encode(), digest_size=16).digest() if known else None,
    )


def place_of_trial(event: SealedEvent) -> Place | None:
    """``place: [latitude, longitude, country]`` of a test's event."""
    told = event.clear.get("place")
    return Place(*told) if told else None


def run_tests(file: RuleFile) -> Iterator[Result]:
    """Each test of a file."""
    for test in file.tests:
        whole, single = (_alerts(file.rule, test, cut) for cut in (1 << 30, 1))
        yield Result(file.rule.name, test.name, test.alerts, whole, single)


def _alerts(rule: Rule, test: RuleTest, cut: int) -> int:
    aggregator = Aggregator([rule], trial_hash, place_of=place_of_trial)
    counters = Counters([rule])
    events, end_us = _made(test.events)
    found = 0
    for start in range(0, len(events), cut):
        leaves = LeafRange(1, _LOG, start, events[start : start + cut])
        found += len(counters.apply(aggregator.aggregate(leaves).signals))
    for counts in _intake(test.events):
        found += len(counters.apply(aggregator.intake(counts)))
    if test.wait_us:
        found += len(counters.tick(end_us + test.wait_us))
    return found


def _made(told: Sequence[TestEvent]) -> tuple[list[SealedEvent], int]:
    at_us = START_US
    made: list[SealedEvent] = []
    for one in told:
        at_us += one.after_us
        if one.family == INTAKE:
            continue
        for number in range(one.repeat):
            if number:
                at_us += one.step_us
            values = {**_BASE, "tenant": TENANT}
            for key, value in one.values.items():
                values[key] = _numbered(value, number)
                if values[key] is None:
                    del values[key]
            broker_us = at_us + one.late_us
            made.append(flat_event(one.family, values, at_us, len(made), broker_us=broker_us))
    return made, at_us


def _intake(told: Sequence[TestEvent]) -> Iterator[IntakeCounts]:
    at_us, first = START_US, 0
    for one in told:
        at_us += one.after_us
        for number in range(one.repeat if one.family == INTAKE else 0):
            at_us += one.step_us if number else 0
            every, dead = one.values["all"], one.values["dead"]
            log = str(one.values.get("log", "audit.raw.authentication"))
            counts = (every - dead, {"malformed": dead})
            yield IntakeCounts(1, log, first, first + every, at_us, *counts)
            first += every


def _numbered(value: Any, number: int) -> Any:
    if isinstance(value, list):
        return [_numbered(one, number) for one in value]
    if not isinstance(value, str):
        return value
    if value == "{n}":
        return number
    return _NUMBER.sub(lambda found: str(number % int(found[1]) if found[1] else number), value)
