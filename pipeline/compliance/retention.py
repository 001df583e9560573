"""What is due to expire: whole months, and of a tenant's shorter class the blobs.

Retention counts from both times: a month is due when its end and its newest ``stored_at`` are past the
longest retention in it; a class when all of that month of it is, and of what was stored later what is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sinks.expiring import Scope
from sinks.removals import Request
from sinks.retention import Contents, Month, RetentionPolicy


@dataclass(frozen=True, slots=True)
class Rules:
    """Days by tenant and class: the class's policy, the tenant's, the tenant's own row, the default."""

    policies: Mapping[tuple[str, str], int]
    tenants: Mapping[str, int]
    default_days: int

    @classmethod
    def of(
        cls, policies: Sequence[RetentionPolicy], tenants: Mapping[str, int], default_days: int
    ) -> Rules:
        """From the tables as they are."""
        by_class = {(policy.tenant, policy.class_): policy.days for policy in policies}
        return cls(by_class, tenants, default_days)

    def days(self, tenant: str, class_: str) -> int:
        """How long these events are kept."""
        for key in ((tenant, class_), (tenant, "")):
            if key in self.policies:
                return self.policies[key]
        return self.tenants.get(tenant, self.default_days)

    @property
    def shortest_days(self) -> int:
        """No event goes earlier."""
        return min((*self.policies.values(), *self.tenants.values(), self.default_days))


@dataclass(frozen=True, slots=True)
class Due:
    """Something that may go: ``scope.tenant`` None: the whole month. ``bounds``: log name → the leaf before
    which it goes. ``events``: about how many.
    """

    scope: Scope
    days: int
    bounds: Mapping[str, int]
    events: int

    @property
    def what(self) -> str:
        """In words."""
        if self.scope.tenant is None:
            return "month"
        return f"blobs of {self.scope.tenant}" + (
            f", class {self.scope.class_}" if self.scope.class_ else ""
        )


def worth_a_look(month: Month, rules: Rules, now: datetime) -> bool:
    """Whether anything of a month can be due: its rows need not be read else."""
    return Scope(month.start).end + timedelta(days=rules.shortest_days) <= now


def due(
    month: Month,
    contents: Sequence[Contents],
    rules: Rules,
    requests: Sequence[Request],
    now: datetime,
) -> list[Due]:
    """What of a month is due at a time: the whole of it, or classes of tenants.

    ``requests``: earlier ones; a class begins where its last one ended.
    """
    if not contents:
        return []
    end = Scope(month.start).end
    longest = max(rules.days(part.tenant, part.class_) for part in contents)
    cut_off = now - timedelta(days=longest)
    if end <= cut_off and all(part.last_stored_at <= cut_off for part in contents):
        return [Due(Scope(month.start), longest, _bounds(contents), _events(contents))]
    groups: defaultdict[tuple[str, str], list[Contents]] = defaultdict(list)
    for part in contents:
        groups[part.tenant, part.class_].append(part)
    found = []
    for (tenant, class_), parts in sorted(groups.items()):
        days = rules.days(tenant, class_)
        until = now - timedelta(days=days)
        after = _last(requests, month, tenant, class_)
        # Something of it was stored since the last time, and long enough ago.
        some = [
            part
            for part in parts
            if part.first_stored_at <= until and (after is None or part.last_stored_at > after)
        ]
        if end <= until and some:
            scope = Scope(month.start, tenant, class_, after, until)
            found.append(Due(scope, days, _bounds(some), _events(some)))
    return found


def _last(requests: Sequence[Request], month: Month, tenant: str, class_: str) -> datetime | None:
    """Up to when what was stored of a class went before."""
    times = [
        request.stored_until
        for request in requests
        if request.stored_until is not None
        and (request.month, request.tenant, request.class_) == (month.start.date(), tenant, class_)
    ]
    return max(times, default=None)


def _bounds(contents: Sequence[Contents]) -> dict[str, int]:
    bounds: dict[str, int] = {}
    for part in contents:
        bounds[part.log] = max(bounds.get(part.log, 0), part.next_leaf)
    return bounds


def _events(contents: Sequence[Contents]) -> int:
    return sum(part.events for part in contents)
