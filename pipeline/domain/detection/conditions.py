"""Conditions as functions of an event's flat values, and what a field of an event is to a rule.

Besides flat paths a field may be ``actor`` or ``target`` (who it is: never a name), ``family``,
``place.country`` or, for intake, ``log``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pipeline.domain.detection.rules import Condition, Operator
from pipeline.domain.records import SealedEvent

PLACE: Final = "place.country"
Flat = Mapping[str, Any]
Predicate = Callable[[Flat, Flat], bool]
# Values of lists that every element has, in clear: without a first one there is none.
_IN_CLEAR: Final = ("targets.*.relation", "targets.*.type", "resources.*.type", "changes.*.path")
_ELEMENTS_MAX: Final = 64  # docs/events.md, Limits


class Place(NamedTuple):
    """Where an address is, about: whole degrees, so that no counter holds where somebody lives."""

    latitude: int
    longitude: int
    country: str  # ISO 3166-1 alpha-2


PlaceOf = Callable[[SealedEvent], Place | None]


def nowhere(_event: SealedEvent) -> Place | None:
    """No event has a place."""
    return None


def values_of(clear: Flat, opened: Flat, path: str) -> Iterator[Any]:
    """The values at a path; elements of a list one by one."""
    if "*" in path:
        yield from _elements(clear, opened, path)
        return
    value = clear.get(path)
    if value is None:
        value = opened.get(path)
    if isinstance(value, list | tuple):
        yield from value
    elif value is not None:
        yield value


def _elements(clear: Flat, opened: Flat, path: str) -> Iterator[Any]:
    before, after = path.split("*", 1)
    for number in range(_ELEMENTS_MAX):
        one = f"{before}{number}{after}"
        value = clear.get(one)
        if value is None:
            value = opened.get(one)
        if value is not None:
            yield value
        # Every element of a list has one of these; the next one may have the value.
        elif f"{before}{number}.tenant" not in clear and f"{before}{number}.path" not in clear:
            return


def predicate(conditions: Sequence[Condition]) -> Predicate | None:
    """Whether all conditions hold; None: there are none."""
    tests = [_test(condition) for condition in conditions]
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda clear, opened: all(test(clear, opened) for test in tests)


def holds(condition: Condition, value: Any) -> bool:
    """Whether a condition holds of the only value at its path (None: there is none)."""
    alone = {} if value is None else {condition.path: value}
    return _test(condition)(alone, {})


def _test(condition: Condition) -> Predicate:
    path, wanted = condition.path, condition.values
    if condition.operator is Operator.FIELDREF:
        other = str(wanted[0])

        def refers(clear: Flat, opened: Flat) -> bool:
            others = set(values_of(clear, opened, other))
            return any(value in others for value in values_of(clear, opened, path))

        return refers
    if condition.operator is Operator.EXISTS:
        exists = bool(wanted[0])
        if "*" not in path:
            return lambda clear, opened: (path in opened or path in clear) is exists
        return lambda clear, opened: any(True for _ in values_of(clear, opened, path)) is exists
    if condition.operator is Operator.NEQ:
        return lambda clear, opened: (
            not any(value in wanted for value in values_of(clear, opened, path))
        )
    compare = _COMPARE[condition.operator]
    if "*" in path and path.startswith(_IN_CLEAR):
        first = path.replace("*", "0")
        return lambda clear, opened: (
            first in clear
            and any(
                compare(value, one) for value in values_of(clear, opened, path) for one in wanted
            )
        )
    return lambda clear, opened: any(
        compare(value, one) for value in values_of(clear, opened, path) for one in wanted
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_COMPARE: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    Operator.EQUALS: lambda value, one: bool(value == one),
    Operator.STARTSWITH: lambda value, one: isinstance(value, str) and value.startswith(one),
    Operator.ENDSWITH: lambda value, one: isinstance(value, str) and value.endswith(one),
    Operator.CONTAINS: lambda value, one: isinstance(value, str) and one in value,
    Operator.GTE: lambda value, one: _number(value) and value >= one,
    Operator.LTE: lambda value, one: _number(value) and value <= one,
}

# Reads a field of an event: None: it has none. Bytes are a subject_ref.
Reader = Callable[[SealedEvent, Flat, Flat], Any]


def reader(field: str, place_of: PlaceOf = nowhere) -> Reader:
    """How a field is read."""
    if field == "actor":
        return _actor
    if field == "target":
        return _target
    if field == "family":
        return lambda event, _clear, _opened: event.family
    if field == PLACE:
        return lambda event, _clear, _opened: getattr(place_of(event), "country", None)

    def one(_event: SealedEvent, clear: Flat, opened: Flat) -> Any:
        value = opened.get(field)
        return clear.get(field) if value is None else value

    return one


def _actor(event: SealedEvent, clear: Flat, opened: Flat) -> Any:
    if event.actor_ref is not None:
        return event.actor_ref
    # A typed name that no known subject has, or the actor of an event of another system.
    found = opened.get("actor.id") or clear.get("actor.id")
    return None if found is None else f"{clear.get('actor.id_type')}/{found}"


def _target(_event: SealedEvent, clear: Flat, opened: Flat) -> Any:
    found = opened.get("targets.0.id") or clear.get("targets.0.id")
    if found is None:
        return None
    return f"{clear.get('targets.0.tenant')}/{clear.get('targets.0.id_type')}/{found}"
