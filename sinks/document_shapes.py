"""How the values of events with the same paths become a document: compiled once per shape.

Events of one family have few shapes (98 in 20,000 generated events of all families): each gets a
function with one dict display, which takes 2 us where a look-up per path takes 8, and a generic pick
and zip 4 (``tests/bench/index_bench.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

import avro_schemas
from sinks.index_fields import fields_of

TARGETS = "audit.target"
SUBJECTS = "audit.subject"
PERSON = ("id", "name", "email")
ECS_VERSION = "8.17.0"
# A schema of many optional fields makes many shapes; those remembered are bounded.
_SHAPES_MAX = 1_000
_HEADS_MAX = 1_000
PEOPLE = frozenset({"user.id", "user.name", "user.email"})
_SOURCE = frozenset({"source.ip", "source.domain"})

Flat = Mapping[str, Any]


class Shape(NamedTuple):
    """What to make of an event's clear values, opened values, and the server's."""

    fields: Callable[[Flat, Flat, Sequence[Any]], dict[str, Any]]
    people: Callable[[Flat, Flat], tuple[Any, ...]]
    has_people: bool
    has_source: bool
    has_targets: bool


class Shapes:
    """The shapes of one family, and the fields that follow from a few symbols of an event."""

    def __init__(self, family: str, server_fields: tuple[str, ...]) -> None:
        self._family = family
        self._fields = fields_of(family)
        self._server_fields = server_fields
        self._is_known = family in avro_schemas.families()
        self._activity = avro_schemas.activity_field(family) if self._is_known else None
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def of(self, clear: Flat, opened: Flat) -> Shape:
        """The shape of events with these paths, in this order."""
        key = (len(clear), *clear, *opened)
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= _SHAPES_MAX:
                self._shapes.clear()
            shape = self._shapes[key] = self._work_out(clear, opened)
        return shape

    def head(self, clear: Mapping[str, Any]) -> bytes:
        """The beginning of a document, up to and with a comma: what all of one kind have."""
        activity = clear.get(self._activity) if self._activity else None
        return self.head_of(activity, clear.get("outcome"), clear.get("severity"))

    def head_of(self, activity: Any, outcome: Any, severity: Any) -> bytes:
        """The same, from the symbols that it follows from."""
        key = (activity, outcome, severity)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            head = self._heads[key] = orjson.dumps(self._classify(*key))[:-1] + b","
        return head

    def _work_out(self, clear: Flat, opened: Flat) -> Shape:
        """Every value as the source of an expression, under the field where it belongs."""
        plain: dict[str, str] = {}
        arrays: dict[str, dict[int, dict[str, str]]] = {}
        unmapped: dict[str, str] = {}
        values = [(path, f"clear[{path!r}]") for path in clear]
        values += [(path, f"opened[{path!r}]") for path in opened]
        for path, value in values:
            name = self._fields.plain.get(path)
            place = None if name else self._place(path)
            if name:
                plain[name] = value
            elif place:
                array, index, member = place
                arrays.setdefault(array, {}).setdefault(index, {})[member] = value
            else:
                unmapped[path] = value
        people = [value for name, value in plain.items() if name in PEOPLE]
        for array in (TARGETS, SUBJECTS):
            for record in arrays.get(array, {}).values():
                people += [value for member, value in record.items() if member in PERSON]
        # Of a field that the server sets too, its value stands.
        plain |= {name: f"server[{at}]" for at, name in enumerate(self._server_fields)}
        has_source = not _SOURCE.isdisjoint(plain)
        for array, records in arrays.items():
            plain[array] = f"[{', '.join(_display(records[index]) for index in sorted(records))}]"
        if unmapped:
            plain["audit.unmapped"] = _display(unmapped)
        return Shape(
            # In sorted order, because the document's keys are sorted and need then only be checked.
            fields=_function("clear, opened, server", _display(dict(sorted(plain.items())))),
            people=_function("clear, opened", f"({''.join(f'{value},' for value in people)})"),
            has_people=bool(people),
            has_source=has_source,
            has_targets=TARGETS in arrays,
        )

    def _place(self, path: str) -> tuple[str, int, str] | None:
        """Where a path lies in an array of records: (field, index, member), if it does."""
        array, _, rest = path.partition(".")
        index, _, member = rest.partition(".")
        field, members = self._fields.groups.get(array, ("", frozenset()))
        if index.isascii() and index.isdigit() and member in members:
            return field, int(index), member
        return None

    def _classify(
        self, activity: str | None, outcome: str | None, severity: str | None
    ) -> dict[str, Any]:
        category, types = ["configuration"], ["info"]
        if self._is_known:
            named = avro_schemas.classification(self._family, activity)
            category, types = list(named.ecs_category), list(named.ecs_type)
        # ECS has the type "error" for events of this category and of few others.
        if outcome == "failure" and category == ["database"]:
            types.append("error")
        fields: dict[str, Any] = {
            "audit.family": self._family,
            "ecs.version": ECS_VERSION,
            "event.category": category,
            "event.dataset": f"audit.{self._family}",
            "event.kind": "event",
            "event.type": types,
        }
        # A symbol of a newer schema has no number; ``audit.severity`` has the symbol.
        number = avro_schemas.severity_numbers().get(severity or "")
        if number is not None:
            fields["event.severity"] = number
        return fields


def _display(expressions: Mapping[str, str]) -> str:
    """A dict display; names are literals, whatever they hold."""
    return "{" + ", ".join(f"{name!r}: {value}" for name, value in expressions.items()) + "}"


def _function(parameters: str, expression: str) -> Callable[..., Any]:
    made: Callable[..., Any] = eval(  # noqa: S307 - paths stand in it as literals only
        compile(f"lambda {parameters}: {expression}", "<document shape>", "eval"), {}
    )
    return made
