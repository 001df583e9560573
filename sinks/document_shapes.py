"""How the values of events with the same paths become a document: worked out once per shape.

Events of one family have few shapes (98 in 20,000 generated events of all families), so that an
event costs one look-up for all its paths, and the rest runs in compiled code: 3 times as fast as a
look-up per path, measured by ``tests/bench/index_bench.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
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
_PEOPLE = frozenset({"user.id", "user.name", "user.email"})
_SOURCE = frozenset({"source.ip", "source.domain"})

Pick = Callable[[tuple[Any, ...]], Sequence[Any]]


class Shape(NamedTuple):
    """What to take from the tuple of all values: clear, opened, server, in this order."""

    names: tuple[str, ...]
    pick: Pick
    arrays: tuple[tuple[str, tuple[tuple[tuple[str, ...], Pick], ...]], ...]
    unmapped: tuple[str, ...]
    unmapped_values: Pick
    people: Pick
    has_people: bool
    has_source: bool

    def unmapped_of(self, values: tuple[Any, ...]) -> tuple[tuple[str, ...], Sequence[Any]]:
        """Paths that this release does not know, and their values."""
        return self.unmapped, self.unmapped_values(values)


class Shapes:
    """The shapes of one family, and the fields that follow from a few symbols of an event."""

    def __init__(self, family: str, server_fields: tuple[str, ...]) -> None:
        self._family = family
        self._fields = fields_of(family)
        self._server_fields = server_fields
        self._is_known = family in avro_schemas.families()
        self._activity = avro_schemas.activity_field(family) if self._is_known else None
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def of(self, paths: tuple[str, ...]) -> Shape:
        """The shape of events with these paths, in this order."""
        shape = self._shapes.get(paths)
        if shape is None:
            if len(self._shapes) >= _SHAPES_MAX:
                self._shapes.clear()
            shape = self._shapes[paths] = self._work_out(paths)
        return shape

    def head(self, clear: Mapping[str, Any]) -> bytes:
        """The beginning of a document, up to and with a comma: what all of one kind have."""
        activity = clear.get(self._activity) if self._activity else None
        key = (activity, clear.get("outcome"), clear.get("severity"))
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            head = self._heads[key] = orjson.dumps(self._classify(*key))[:-1] + b","
        return head

    def _work_out(self, paths: tuple[str, ...]) -> Shape:
        plain: dict[str, int] = {}
        arrays: dict[str, dict[int, dict[str, int]]] = {}
        unmapped: dict[str, int] = {}
        for at, path in enumerate(paths):
            name = self._fields.plain.get(path)
            place = None if name else self._place(path)
            if name:
                plain[name] = at
            elif place:
                array, index, member = place
                arrays.setdefault(array, {}).setdefault(index, {})[member] = at
            else:
                unmapped[path] = at
        people = [at for name, at in plain.items() if name in _PEOPLE]
        for array in (TARGETS, SUBJECTS):
            for record in arrays.get(array, {}).values():
                people += [at for member, at in record.items() if member in PERSON]
        # Of a field that the server sets too, its value stands.
        plain |= {name: at for at, name in enumerate(self._server_fields, len(paths))}
        # In sorted order, because the document's keys are sorted and need then only be checked.
        names = tuple(sorted(plain))
        return Shape(
            names=names,
            pick=_picker([plain[name] for name in names]),
            arrays=tuple(
                (array, tuple(_record(records[index]) for index in sorted(records)))
                for array, records in sorted(arrays.items())
            ),
            unmapped=tuple(unmapped),
            unmapped_values=_picker(list(unmapped.values())),
            people=_picker(people),
            has_people=bool(people),
            has_source=not _SOURCE.isdisjoint(plain),
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


def _record(members: Mapping[str, int]) -> tuple[tuple[str, ...], Pick]:
    names = tuple(sorted(members))
    return names, _picker([members[name] for name in names])


def _picker(places: Sequence[int]) -> Pick:
    """``itemgetter``, which gives no tuple for fewer than two places."""
    if not places:
        return lambda _values: ()
    if len(places) == 1:
        only = places[0]
        return lambda values: (values[only],)
    return itemgetter(*places)
