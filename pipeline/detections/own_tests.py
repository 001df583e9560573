"""The tests that stand in a rule's file: events, and how many alerts they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pipeline.detections.fields import check_path, duration_us
from pipeline.detections.lines import Part, Unreadable
from pipeline.domain.detection.rules import Operator, Rule

_CONTROLS: Final = ("use", "family", "after", "repeat", "step", "late")


@dataclass(frozen=True, slots=True)
class TestEvent:
    """So many events, ``step_us`` apart. ``values`` are flat; ``{n}`` in a text is the number of each."""

    __test__ = False  # not a class of tests

    family: str
    values: dict[str, Any]
    after_us: int = 0
    repeat: int = 1
    step_us: int = 0
    late_us: int = 0


@dataclass(frozen=True, slots=True)
class RuleTest:
    """Events, and how many alerts they make."""

    name: str
    events: tuple[TestEvent, ...]
    alerts: int
    wait_us: int = 0


def read_test(part: Part, rule: Rule) -> RuleTest:
    """Raises ``Unreadable`` if it is none."""
    told = part.mapping("a test")
    for key in ("name", "events", "alerts"):
        if key not in told:
            raise Unreadable(part.line, f"a test: {key} is missing")
    events = tuple(_event(one, rule) for one in told["events"].list("events"))
    wait = duration_us(told["wait"], "wait") if "wait" in told else 0
    return RuleTest(told["name"].text("name"), events, told["alerts"].integer("alerts"), wait)


def _event(part: Part, rule: Rule) -> TestEvent:
    told = part.mapping("an event")
    values: dict[str, Any] = {}
    use = told["use"].text("use") if "use" in told else rule.selections[0].name
    found = [one for one in rule.selections if one.name == use]
    if not found:
        raise Unreadable(part.line, f"there is no selection {use}")
    family = told["family"].text("family") if "family" in told else found[0].family
    if "family" not in told:
        for condition in found[0].conditions:
            if condition.operator is Operator.EQUALS and "*" not in condition.path:
                values[condition.path] = condition.values[0]
    for key, value in told.items():
        if key in _CONTROLS:
            continue
        if key != "place":
            check_path(value, key, {family})
        whole = value.value
        values[key] = [one.value for one in whole] if isinstance(whole, list) else whole
    return TestEvent(
        family,
        values,
        after_us=duration_us(told["after"], "after") if "after" in told else 0,
        repeat=told["repeat"].integer("repeat") if "repeat" in told else 1,
        step_us=duration_us(told["step"], "step") if "step" in told else 0,
        late_us=duration_us(told["late"], "late") if "late" in told else 0,
    )
