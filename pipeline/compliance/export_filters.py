"""Which events an export takes: said once, as SQL, and as the manifest tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import FAMILIES, LogName, family_of

_SENT_AS = "to_timestamp({0}::numeric / 1000000)"  # numeric: a double would round microseconds


@dataclass(frozen=True, slots=True)
class ExportFilters:
    """Every filter that is given must let an event in; an empty one lets all in.

    ``from_us`` and ``to_us`` are of ``occurred_at``, µs, the first included and the second not.
    ``subjects`` are the refs of one person: events in which a value of theirs is sealed. ``from_leaf`` and ``to_leaf`` (not included) are of every log that is taken.
    """

    tenants: tuple[str, ...] = ()
    all_tenants: bool = False
    from_us: int | None = None
    to_us: int | None = None
    families: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    logs: tuple[LogName, ...] = ()
    subjects: tuple[UUID, ...] | None = None
    from_leaf: int = 0
    to_leaf: int | None = None

    def __post_init__(self) -> None:
        if bool(self.tenants) == self.all_tenants:
            raise ConfigurationError("say whose events: --tenant TENANT, or --all-tenants")
        unknown = sorted(set(self.families) - set(FAMILIES))
        if unknown:
            raise ConfigurationError(f"no such family: {', '.join(unknown)}; {', '.join(FAMILIES)}")
        if self.from_us is not None and self.to_us is not None and self.from_us >= self.to_us:
            raise ConfigurationError("the period ends before it begins: --from, --to")
        if (self.from_leaf or self.to_leaf is not None) and len(self.logs) != 1:
            raise ConfigurationError("--from-leaf and --to-leaf are of one log: give it with --log")

    def takes(self, name: LogName) -> bool:
        """Whether a log may have such events: one of another family's topic has none."""
        of_family = not self.families or family_of(name.topic) in self.families
        return of_family and (not self.logs or name in self.logs)

    def conditions(self) -> tuple[str, list[Any]]:
        """Further conditions on ``audit_logs``, each beginning with AND, and their values."""
        parts: list[str] = []
        values: list[Any] = []

        def add(condition: str, value: Any) -> None:
            parts.append(f" AND {condition}")
            values.append(value)

        if self.tenants:
            add("tenant = ANY (%s)", list(self.tenants))
        if self.families:
            add("family = ANY (%s)", list(self.families))
        if self.actions:
            add("action = ANY (%s)", list(self.actions))
        period, times = self.period()
        if self.subjects is not None:
            sealed_to = (
                "SELECT FROM json_object_keys(event -> 'sealed') AS ref WHERE ref = ANY (%s)"
            )
            add(f"EXISTS ({sealed_to})", [str(ref) for ref in self.subjects])
        return "".join(parts) + period, values + times

    def period(self) -> tuple[str, list[Any]]:
        """The conditions on ``occurred_at`` alone."""
        text = ""
        times: list[Any] = []
        for operator, time_us in ((">=", self.from_us), ("<", self.to_us)):
            if time_us is not None:
                text += f" AND occurred_at {operator} {_SENT_AS.format('%s')}"
                times.append(time_us)
        return text, times

    def as_dict(self) -> dict[str, Any]:
        """As in the manifest. A person is named by refs, never by an id."""
        return {
            "actions": list(self.actions),
            "all_tenants": self.all_tenants,
            "families": list(self.families),
            "from": self.from_us,
            "from_leaf": self.from_leaf,
            "logs": [str(name) for name in self.logs],
            "subjects": [str(ref) for ref in self.subjects or ()],
            "tenants": list(self.tenants),
            "to": self.to_us,
            "to_leaf": self.to_leaf,
        }


def only_tenants(tenant: str | None, *, all_tenants: bool) -> tuple[str, ...]:
    """The tenants of a filter. Raises ``ConfigurationError`` if none or both is said."""
    if (tenant is not None) == all_tenants:
        raise ConfigurationError("say whose events: --tenant TENANT, or --all-tenants")
    return () if tenant is None else (tenant,)


def log_names(texts: Sequence[str]) -> tuple[LogName, ...]:
    """Logs by name. Raises ``ConfigurationError`` for what is no name."""
    try:
        return tuple(LogName.parse(text) for text in texts)
    except ValueError:
        raise ConfigurationError("a log is <topic>/<partition>/<epoch>; see: status") from None
