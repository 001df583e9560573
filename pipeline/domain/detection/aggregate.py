"""Stage 1: a range of accepted leaves becomes signals, where the leaves are.

Rules are compiled once into a dispatch by family, operation, action and outcome: an event that no
rule wants costs a look-up. Values are hashed once per range, not once per event. Rules whose groups the
route already tells, such as calls of an action, cost one count for all of them.

Cost, with the 29 shipped rules, 1,000 events a second, ranges of 1,000 (`scripts/benchmark/detection.py`,
2026-11-27, a busy machine): 22 µs an event. Of these the maps that an event makes of its values at each
look are 5, what rules take of it 7, signals 10; to write those as bytes is 6 more. An event that no rule
wants costs a look at its clear values, 4. 1.2 signals an event, 280 bytes: seven in eight groups of a range
have one event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.detection.cells import Cell, PlainCell, merge_plain
from pipeline.domain.detection.conditions import PlaceOf, nowhere
from pipeline.domain.detection.plans import ROUTED, CellMaker, Cells, Plan
from pipeline.domain.detection.rules import HOUR_US, MINUTE_US, Rule
from pipeline.domain.detection.signals import Signal
from pipeline.domain.records import LeafRange

# How long after it happened (by its broker timestamp) an event still counts. What is later, a replayed
# day or an import, raises nothing. The record says it itself: a range read again counts alike.
LATENESS_US: Final = 6 * HOUR_US
INTAKE: Final = "intake"
INTAKE_COUNTS: Final = ("dead", "all")  # what its selections are named, and so what they count
_ROUTES_MAX: Final = 4_096
_HASHES_MAX: Final = 100_000
# Fields of a group that are shown as they are: closed lists of services, never a person's.
_OPEN: Final = ("producer.", "family", "action", "operation", "log", "reason")
_OPEN_CHARS: Final = 64

# A 64-bit keyed hash of a text of a tenant: HMAC or keyed BLAKE2b under the tenant's key.
KeyedHash = Callable[[str, str], int]
_Route = tuple[tuple[Plan, ...], tuple[Plan, ...]]  # taken one by one; only counted
_Hashes = dict[tuple[str, Any], int]
_Tally = dict[tuple[Any, str, int], list[int]]  # (route, tenant, minute) → count, first, last


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The signals of one range, and how many events came too late to count."""

    signals: Sequence[Signal]
    late: int


@dataclass(frozen=True, slots=True)
class IntakeCounts:
    """One row of the ledger's table ``intake``: offsets ``first`` to ``next - 1`` of a raw topic."""

    log_id: int
    topic: str
    first: int
    next: int
    at_us: int
    accepted: int
    dead: Mapping[str, int]


class Aggregator:
    """The compiled rules. Of one range it keeps nothing for the next but hashes, in memory; when a tenant's
    key rotates, or a person is erased, ``forget`` drops those.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        keyed_hash: KeyedHash,
        *,
        place_of: PlaceOf = nowhere,
        lateness_us: int = LATENESS_US,
    ) -> None:
        self._rules = tuple(rules)
        self._keyed_hash = keyed_hash
        self._lateness_us = lateness_us
        self._plans: dict[str, list[Plan]] = {}
        for index, rule in enumerate(self._rules):
            for number, selection in enumerate(rule.selections):
                plan = Plan(index, rule, number, selection, place_of)
                self._plans.setdefault(selection.family, []).append(plan)
        self._routes: dict[tuple[Any, ...], _Route] = {}
        self._hashes: _Hashes = {}

    def aggregate(self, leaves: LeafRange) -> Aggregated:
        """The signals of a range."""
        if len(self._hashes) >= _HASHES_MAX:
            self._hashes.clear()
        run = _Run(self._rules, self._keyed_hash, self._hashes)
        cells, tally = run.cells, run.tally
        routes, lateness_us, late = self._routes, self._lateness_us, 0
        for event in leaves.events:
            clear = event.clear
            get = clear.get
            key = (
                event.family, get("operation"), get("change_kind"), get("action"), get("outcome")
            )  # fmt: skip
            route = routes.get(key)
            if route is None:
                route = self._route(key)
            plans, counted = route
            if not plans and not counted:
                continue
            at_us, tenant = event.occurred_at_us, get("tenant", "")
            if event.broker_timestamp_ms * 1000 - at_us > lateness_us:
                late += 1
                continue
            if counted:
                _count(tally, (key, tenant, at_us // MINUTE_US), at_us)
            if plans:
                opened = event.opened
                for plan in plans:
                    plan.take(event, clear, opened, at_us, tenant, cells[plan.index])
        self._expand(run)
        return Aggregated(
            run.signals(str(leaves.log_id), leaves.first_leaf, leaves.next_leaf), late
        )

    def _expand(self, run: _Run) -> None:
        for (key, tenant, _minute), (number, first_us, last_us) in run.tally.items():
            for plan in (self._routes.get(key) or self._route(key))[1]:
                run.count(plan, key, tenant, number, first_us, last_us)

    def forget(self) -> None:
        """Drop the hashes that are known."""
        self._hashes.clear()

    def intake(self, counts: IntakeCounts) -> Sequence[Signal]:
        """The signals of a row of ``intake``; its tenant is the empty one: of the whole trail."""
        run = _Run(self._rules, self._keyed_hash, self._hashes)
        dead = sum(counts.dead.values())
        told = {"dead": dead, "all": counts.accepted + dead}
        for plan in self._plans.get(INTAKE, ()):
            number = told[plan.selection]
            run.add(plan, "", counts.topic, plan.counted(number, counts.at_us, counts.at_us))
        return run.signals(f"{counts.log_id}/{INTAKE}", counts.first, counts.next)

    def _route(self, key: tuple[Any, ...]) -> _Route:
        if (
            len(self._routes) >= _ROUTES_MAX
        ):  # actions are a closed list; a producer may not keep it
            self._routes.clear()
        values = dict(zip(ROUTED, key[1:], strict=True))
        found = [plan for plan in self._plans.get(key[0], ()) if plan.takes(values)]
        route = (
            tuple([plan for plan in found if not plan.is_tallied]),
            tuple([plan for plan in found if plan.is_tallied]),
        )
        self._routes[key] = route
        return route


def _count(tally: _Tally, told: tuple[Any, str, int], at_us: int) -> None:
    count = tally.get(told)
    if count is None:
        tally[told] = [1, at_us, at_us]
    else:
        count[0] += 1
        count[1] = min(count[1], at_us)
        count[2] = max(count[2], at_us)


class _Run:
    """What was taken of one range."""

    def __init__(self, rules: Sequence[Rule], keyed_hash: KeyedHash, hashes: _Hashes) -> None:
        self.cells: list[Cells] = [{} for _ in rules]
        self.tally: _Tally = {}
        self._ready: list[dict[tuple[str, Any], dict[int, PlainCell]]] = [{} for _ in rules]
        self._rules = rules
        self._keyed_hash = keyed_hash
        self._hashes = hashes

    def count(
        self, plan: Plan, route: tuple[Any, ...], tenant: str, number: int, first: int, last: int
    ) -> None:
        """So many events of a route, within a minute."""
        values = dict(zip(ROUTED, route[1:], strict=True))
        group = tuple([values[name] for name in plan.rule.group_by])
        if None not in group:
            told = group[0] if len(group) == 1 else group
            self.add(plan, tenant, told, plan.counted(number, first, last))

    def add(self, plan: Plan, tenant: str, group: Any, cell: Cell) -> None:
        """A cell that is ready."""
        cells = self._ready[plan.index].setdefault((tenant, group), {})
        bucket = cell.first_us // plan.width
        plain = cell.as_plain()
        cells[bucket] = merge_plain(cells[bucket], plain) if bucket in cells else plain

    def signals(self, log: str, first: int, following: int) -> list[Signal]:
        """What was counted, by rule; groups and values hashed."""
        made: list[Signal] = []
        for rule, cells, by_group in zip(self._rules, self.cells, self._ready, strict=True):
            maker = CellMaker(rule, self._hash)
            for (tenant, group, bucket), taken in cells.items():
                cell = maker.cell(tenant, taken)
                found = by_group.get((tenant, group))
                if found is None:
                    by_group[tenant, group] = {bucket: cell}
                else:
                    found[bucket] = merge_plain(found[bucket], cell) if bucket in found else cell
            for (tenant, group), found in by_group.items():
                text = self._group(rule, tenant, group)
                made.append(Signal(rule.name, tenant, text, log, first, following, found))
        return made

    def _hash(self, tenant: str, value: Any) -> int:
        known = self._hashes.get((tenant, value))
        if known is None:
            text = value.hex() if isinstance(value, bytes) else str(value)
            known = self._hashes[tenant, value] = self._keyed_hash(tenant, text)
        return known

    def _group(self, rule: Rule, tenant: str, group: Any) -> str:
        if isinstance(group, bytes):
            return group.hex()
        parts = group if isinstance(group, tuple) else (group,)
        return ".".join(
            [
                self._shown(name, tenant, part)
                for name, part in zip(rule.group_by, parts, strict=True)
            ]
        )

    def _shown(self, name: str, tenant: str, value: Any) -> str:
        if isinstance(value, bytes):
            return value.hex()
        if name.startswith(_OPEN) and len(str(value)) <= _OPEN_CHARS:
            return str(value)
        return f"{self._hash(tenant, value):016x}"
