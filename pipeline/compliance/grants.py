"""What is missing by authority: erasures, redactions and expiries whose leaf names them and commits to
their leaves. Bounds where an order is by bounds; of redactions some 12 bytes for each leaf that they name.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from pipeline.domain.orders import Expiry, Order
from sinks.expiring import Scope

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Expired(NamedTuple):
    """Leaves of a month that an order is about. ``scope.tenant`` None: all before ``bounds``."""

    request_id: UUID
    scope: Scope
    bounds: Mapping[str, int]

    def covers(self, log: str, leaf: int, occurred_at_us: int | None) -> bool:
        """Whether a leaf lies within month and bounds."""
        if occurred_at_us is None or leaf >= self.bounds.get(log, 0):
            return False
        return self.scope.month <= _time(occurred_at_us) < self.scope.end

    def includes(self, other: Expired) -> bool:
        """Whether nothing of ``other`` is beyond this one, which takes a whole month."""
        return self.scope.month == other.scope.month and all(
            bound <= self.bounds.get(log, 0) for log, bound in other.bounds.items()
        )


class _Redacted(NamedTuple):
    """Of one order and log: leaves ascending, and for each which of the known sets of paths."""

    request_id: UUID
    leaves: array[int]
    paths: array[int]
    last_so_far: int  # of this order and those that begin before it


@dataclass(slots=True)
class Grants:
    """``months``: whole ones; ``classes``: a tenant's, whose blobs alone go; ``erased``: by subject;
    ``erasures``: all of them.
    """

    months: list[Expired] = field(default_factory=list)
    classes: list[Expired] = field(default_factory=list)
    erased: dict[bytes, list[UUID]] = field(default_factory=lambda: defaultdict(list))
    erasures: set[UUID] = field(default_factory=set)
    _redacted: dict[str, list[_Redacted]] = field(default_factory=lambda: defaultdict(list))
    _path_sets: list[frozenset[str]] = field(default_factory=list)
    _number_of: dict[frozenset[str], int] = field(default_factory=dict)

    def add_redaction(self, order: Order) -> None:
        """Believe an order whose root and leaf are right."""
        for log, named in order.leaves.items():
            leaves, paths = array("q"), array("i")
            for leaf, of_leaf in named:
                leaves.append(leaf)
                paths.append(self._number(frozenset(of_leaf)))
            if leaves:
                one = _Redacted(order.request_id, leaves, paths, leaves[-1])
                insort(self._redacted[log], one, key=_first)

    def redaction_of(self, log: str, leaf: int, path: str | None) -> UUID | None:
        """The redaction that names a leaf and a path of it."""
        orders = self._redacted.get(log, [])
        for number in range(bisect_right(orders, leaf, key=_first) - 1, -1, -1):
            one = orders[number]
            if one.last_so_far < leaf:
                break
            at = bisect_left(one.leaves, leaf)
            if (
                at < len(one.leaves)
                and one.leaves[at] == leaf
                and path in self._path_sets[one.paths[at]]
            ):
                return one.request_id
        return None

    def settle(self) -> None:
        """Once all redactions are added, before any is asked for."""
        for orders in self._redacted.values():
            last = -1
            for number, one in enumerate(orders):
                last = max(last, one.leaves[-1])
                orders[number] = one._replace(last_so_far=last)

    def month_of(self, log: str, leaf: int, occurred_at_us: int | None) -> UUID | None:
        """The expiry of a whole month that a leaf is under."""
        for one in self.months:
            if one.covers(log, leaf, occurred_at_us):
                return one.request_id
        return None

    def classes_of(self, log: str, leaf: int, occurred_at_us: int | None) -> Iterator[Expired]:
        """The expiries of a class that a leaf may be under: the ledger's row says whether it is."""
        return (one for one in self.classes if one.covers(log, leaf, occurred_at_us))

    def _number(self, paths: frozenset[str]) -> int:
        if paths not in self._number_of:
            self._number_of[paths] = len(self._path_sets)
            self._path_sets.append(paths)
        return self._number_of[paths]


def _first(one: _Redacted) -> int:
    return one.leaves[0]


def expired(order: Order, expiry: Expiry) -> Expired:
    """The leaves that an order of expiry is about.

    Raises:
        ValueError: It names no month.
    """
    month = datetime.strptime(expiry.month, "%Y-%m").replace(tzinfo=UTC)
    after = expiry.stored_after_us
    scope = Scope(
        month,
        order.tenant,
        expiry.class_,
        None if after is None else _time(after),
        _time(expiry.stored_until_us),
    )
    return Expired(order.request_id, scope, expiry.bounds)


def _time(time_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us)
