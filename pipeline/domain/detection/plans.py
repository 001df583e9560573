"""One selection of one rule, compiled: which events it wants, and what it takes of each.

While a range is read only references are taken; cells are made at its end, values hashed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain.detection.cells import FIRST_IDS, BottomK, Cell, PlainCell, trimmed, union
from pipeline.domain.detection.conditions import (
    PLACE,
    Flat,
    PlaceOf,
    Reader,
    holds,
    predicate,
    reader,
)
from pipeline.domain.detection.rules import EVERY, MINUTE_US, TIMED, Kind, Operator, Rule, Selection
from pipeline.domain.records import SealedEvent

ROUTED: Final = ("operation", "change_kind", "action", "outcome")
# (tenant, group, bucket) → (µs, number of the selection, event, values of slots and sums, extra)
Taken = tuple[int, int, SealedEvent, tuple[Any, ...], Any]
Cells = dict[tuple[str, Any, int], list[Taken]]
# Fields that are read of the clear values alone, without a function for each.
_PLAIN: Final = ("producer.service", "producer.instance", "producer.epoch", "action", "operation")
_NONE: Final[tuple[Any, ...]] = ()


class Plan:
    """One selection of one rule."""

    __slots__ = (
        "_extra",
        "_group",
        "_number",
        "_one",
        "_place_of",
        "_plain",
        "_residual",
        "_routed",
        "_values",
        "index",
        "is_of_all_tenants",
        "is_tallied",
        "rule",
        "selection",
        "width",
    )

    def __init__(
        self, index: int, rule: Rule, number: int, selection: Selection, place_of: PlaceOf
    ) -> None:
        self.selection = selection.name
        self.index, self.rule, self._number, self.width = index, rule, number, rule.bucket_us
        self._routed = [
            one
            for one in selection.conditions
            if one.path in ROUTED and one.operator is not Operator.FIELDREF
        ]
        self._residual = predicate([one for one in selection.conditions if one not in self._routed])
        self._group: tuple[Reader, ...] = tuple(reader(name, place_of) for name in rule.group_by)
        self._one = self._group[0] if len(self._group) == 1 else None
        *plain, last = rule.group_by or ("",)
        is_plain = last == "family" and all(name in _PLAIN for name in plain)
        self._plain = (tuple(plain), (selection.family,)) if is_plain else None
        self._values: tuple[Reader | None, ...] = tuple(
            reader(name, place_of) if of in (number, EVERY) else None
            for of, name in (*rule.slots, *rule.sums)
        )
        self._extra = _EXTRA.get(rule.kind)
        self._place_of = place_of if rule.kind is Kind.TRAVEL or rule.field == PLACE else None
        self.is_of_all_tenants = rule.kind in TIMED
        self.is_tallied = (
            self._residual is None
            and not self._values
            and self._extra is None
            and rule.kind is not Kind.TEMPORAL_ORDERED
            and all(name in ROUTED for name in rule.group_by)
            and self.width % MINUTE_US == 0
        )

    def takes(self, values: Mapping[str, Any]) -> bool:
        """Whether events of such a route can be wanted."""
        return all(holds(condition, values[condition.path]) for condition in self._routed)

    def take(
        self, event: SealedEvent, clear: Flat, opened: Flat, at_us: int, tenant: str, cells: Cells
    ) -> None:
        """Take what is counted of the event, if it is wanted."""
        if self._residual is not None and not self._residual(clear, opened):
            return
        extra: Any = None
        if self._place_of is not None:
            extra = self._place_of(event)
            if extra is None:
                return
        group: Any
        if self._one is not None:
            group = self._one(event, clear, opened)
            if group is None:
                return
        else:
            group = self._several(event, clear, opened)
            if None in group:
                return
        if self._extra is not None:
            extra = self._extra(clear, opened, extra)
        values = _NONE
        if self._values:
            values = tuple(
                [None if read is None else read(event, clear, opened) for read in self._values]
            )
        # A producer numbers its events over all tenants.
        key = ("" if self.is_of_all_tenants else tenant, group, at_us // self.width)
        taken = cells.get(key)
        if taken is None:
            cells[key] = [(at_us, self._number, event, values, extra)]
        else:
            taken.append((at_us, self._number, event, values, extra))

    def _several(self, event: SealedEvent, clear: Flat, opened: Flat) -> tuple[Any, ...]:
        if self._plain is not None:
            names, family = self._plain
            return (*map(clear.get, names), *family)
        return tuple([read(event, clear, opened) for read in self._group])

    def counted(self, count: int, first_us: int, last_us: int) -> Cell:
        """A cell of so many events that were only counted."""
        cell = empty_cell(self.rule, first_us, last_us)
        cell.counts[self._number] = count
        return cell


def _place_and_address(clear: Flat, opened: Flat, place: Any) -> tuple[Any, ...]:
    country = int.from_bytes(place.country.encode()[:2])
    address = opened.get("source.ip") or clear.get("source.ip", "")
    return (place.latitude, place.longitude, country, address)


def _heartbeat(clear: Flat, _opened: Flat, _extra: Any) -> tuple[Any, ...]:
    return (clear.get("heartbeat.interval_s", 0), int(clear.get("heartbeat.final", False)))


def _sequence(clear: Flat, _opened: Flat, _extra: Any) -> Any:
    return clear.get("producer.sequence")


_EXTRA: Final = {
    Kind.TRAVEL: _place_and_address,
    Kind.SILENCE: _heartbeat,
    Kind.GAP: _sequence,
}


def empty_cell(rule: Rule, first_us: int, last_us: int) -> Cell:
    """A cell without events."""
    distinct = [BottomK({}) for _ in rule.slots]
    return Cell([0] * len(rule.selections), distinct, [0] * len(rule.sums), first_us, last_us)


class CellMaker:
    """Makes the cells of one rule of what was taken. ``hashed``: (tenant, value) → keyed hash."""

    __slots__ = ("_has_extra", "_hashed", "_kind", "_selections", "_slots", "_sums")

    def __init__(self, rule: Rule, hashed: Any) -> None:
        self._kind = rule.kind
        self._has_extra = rule.kind in _EXTRA
        self._selections = len(rule.selections)
        self._slots, self._sums = len(rule.slots), len(rule.sums)
        self._hashed = hashed

    def cell(self, tenant: str, taken: list[Taken]) -> PlainCell:
        """The cell of at least one event, in its plain form."""
        if len(taken) == 1 and not self._has_extra and not self._sums:
            return self._single(tenant, taken[0])
        counts = [0] * self._selections
        taken.sort(key=_when)
        for one in taken:
            counts[one[1]] += 1
        slots = self._slots
        distinct = [self._sketch(tenant, taken, place) for place in range(slots)] if slots else []
        sums = [
            sum([one[3][place] or 0 for one in taken]) for place in range(slots, slots + self._sums)
        ]
        cell = Cell(counts, distinct, sums, taken[0][0], taken[-1][0])
        cell.ids = [(one[0], one[2].event_id.hex()) for one in taken[:FIRST_IDS]]
        kind = self._kind
        if kind is Kind.TEMPORAL_ORDERED:
            cell.points = trimmed([(one[0], one[1]) for one in taken])
        elif kind is Kind.TRAVEL:
            cell.points = trimmed(
                [(one[0], *one[4][:3], self._hashed(tenant, one[4][3])) for one in taken]
            )
        elif kind is Kind.SILENCE:
            cell.points = trimmed([(one[0], *one[4]) for one in taken])
        elif kind is Kind.GAP:
            cell.intervals = _intervals([one[4] for one in taken])
        return cell.as_plain()

    def _single(self, tenant: str, one: Taken) -> PlainCell:
        # Most cells of a range are of one event: their plain form is written at once.
        at_us, number, event, values, _extra = one
        counts = [0] * self._selections
        counts[number] = 1
        hashed = self._hashed
        distinct = [[] if value is None else [[hashed(tenant, value), 1]] for value in values]
        points = [[at_us, number]] if self._kind is Kind.TEMPORAL_ORDERED else []
        return [counts, distinct, [], at_us, 0, points, [], [[at_us, event.event_id.hex()]]]

    def _sketch(self, tenant: str, taken: list[Taken], place: int) -> BottomK:
        kept: dict[int, int] = {}
        for one in taken:
            value = one[3][place]
            if value is not None:
                hashed = self._hashed(tenant, value)
                kept[hashed] = kept.get(hashed, 0) + 1
        return BottomK(kept)


def _intervals(sequences: list[int]) -> list[tuple[int, int]]:
    first, last = min(sequences), max(sequences)
    if last - first + 1 == len(set(sequences)):
        return [(first, last)]
    return union([(one, one) for one in sequences], [])


def _when(taken: Taken) -> int:
    return taken[0]
