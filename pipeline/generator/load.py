"""Made load that looks like a day at several companies: for trials, demonstrations and benches.

The same arguments give the same events, on any machine and at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from random import Random
from types import MappingProxyType
from typing import Any, Final

from pipeline.generator.identifiers import hexadecimal, times, uuid7
from pipeline.generator.population import Person, Population

# How many of a hundred events are of a family.
SHARES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "authentication": 35,
        "data-access": 45,
        "profile-update": 8,
        "admin-action": 8,
        "security-change": 4,
    }
)
TENANTS: Final = ("acme", "globex", "initech")
_SERVICES: Final = {
    "authentication": "identity",
    "data-access": "records",
    "profile-update": "accounts",
    "admin-action": "console",
    "security-change": "console",
}


def generate(
    count: int,
    *,
    seed: int,
    start_at_us: int,
    span_us: int = 86_400_000_000,
    tenants: Sequence[str] = TENANTS,
    families: Sequence[str] = tuple(SHARES),
    people_per_tenant: int = 2_000,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """``count`` events as (family, event), by time ascending from ``start_at_us``.

    Parts of an event (actor, source, producer) may be shared with other events: read only.
    """
    random = Random(seed)  # noqa: S311 - made load, not a secret
    maker = Maker(random, tenants, people_per_tenant)
    cumulated = list(accumulate(SHARES[family] for family in families))
    tenant_shares = list(accumulate(1 / n for n in range(1, len(tenants) + 1)))
    for occurred_at in times(count, start_at_us=start_at_us, span_us=span_us, random=random):
        family = random.choices(families, cum_weights=cumulated)[0]
        tenant = random.choices(tenants, cum_weights=tenant_shares)[0]
        yield family, maker.make(family, tenant, occurred_at)


class Maker:
    """Makes one event after another; a service counts its events of each family, as the SDKs do."""

    def __init__(self, random: Random, tenants: Sequence[str], people: int) -> None:
        self._random = random
        self._populations = {tenant: Population(tenant, people, random) for tenant in tenants}
        self._sequences = dict.fromkeys(_SERVICES, 0)
        self._makers: Mapping[str, Callable[[str, Person], dict[str, Any]]] = {
            "authentication": self._authentication,
            "data-access": self._data_access,
            "profile-update": self._profile_update,
            "admin-action": self._admin_action,
            "security-change": self._security_change,
        }

    def person(self, tenant: str) -> Person:
        """Somebody, the active ones more often."""
        return self._populations[tenant].active(self._random)

    def anybody(self, tenant: str) -> Person:
        """Somebody, each as often as the next."""
        return self._populations[tenant].anybody(self._random)

    def make(
        self, family: str, tenant: str, occurred_at: int, person: Person | None = None
    ) -> dict[str, Any]:
        """An event of a family; somebody's, if nobody is named."""
        random, person = self._random, person or self.person(tenant)
        service = _SERVICES[family]
        sequence = self._sequences[family]
        self._sequences[family] = sequence + 1
        return {
            "event_id": uuid7(occurred_at, random),
            "occurred_at": occurred_at,
            "tenant": tenant,
            "outcome": "success",
            "severity": "informational",
            "producer": {
                "service": service,
                "version": "4.2.0",
                "instance": f"{service}-0",
                "environment": "production",
                "epoch": 1,
                "sequence": sequence,
            },
            "actor": person.actor,
            "source": random.choice(person.sources),
            "session": {"id": hexadecimal(16, random), "mfa": random.random() < 0.7},
            "request": {
                "id": hexadecimal(16, random),
                "trace_id": hexadecimal(32, random),
                "span_id": hexadecimal(16, random),
            },
            **self._makers[family](tenant, person),
        }

    def _authentication(self, tenant: str, _person: Person) -> dict[str, Any]:
        chance = self._random.random()
        fields: dict[str, Any] = {
            "action": "session.start",
            "auth_protocol": "oidc",
            "logon_type": "interactive",
            "auth_factors": ["password", "totp"],
            "is_new_logon": True,
            "is_remote": True,
        }
        if chance < 0.25:
            return {**fields, "action": "session.end", "operation": "logoff", "is_new_logon": None}
        if chance < 0.32:
            fields |= {
                "outcome": "failure",
                "severity": "low",
                "session": None,
                "auth_factors": ["password"],
                "failure_code": "invalid_password",
            }
        if chance > 0.99:  # a name that nobody has: typed wrongly, or tried
            typed = f"guest{int(self._random.random() * 1000)}"
            fields |= {
                "outcome": "failure",
                "session": None,
                "actor": {"type": "anonymous", "tenant": tenant, "id_type": "unknown", "id": typed},
                "failure_code": "unknown_user",
            }
        return fields

    def _data_access(self, tenant: str, _person: Person) -> dict[str, Any]:
        random = self._random
        operation, action = random.choice(_ACCESSES)
        records = 1 if operation == "read" else int(random.paretovariate(1.2) * 10)
        subject = self._populations[tenant].anybody(random).subject
        number = hexadecimal(12, random)
        return {
            "action": action,
            "operation": operation,
            "resources": [
                {
                    "tenant": tenant,
                    "type": "record",
                    "id": number,
                    "path": f"/records/{number}",
                }
            ],
            "data_subjects": [subject],
            "data_classes": ["contact"] if random.random() < 0.7 else ["contact", "payment"],
            "record_count": records,
            "byte_count": records * 1_200,
            "purpose": random.choice(_PURPOSES),
            "export_destination": (
                f"https://files.{tenant}.example.com/{number}" if operation == "export" else None
            ),
        }

    def _profile_update(self, tenant: str, person: Person) -> dict[str, Any]:
        random = self._random
        is_self = random.random() < 0.7
        about = person if is_self else self._populations[tenant].anybody(random)
        path = random.choice(("phone", "address.city", "display_name", "language"))
        return {
            "action": "profile.update",
            "self_service": is_self,
            "targets": [about.target],
            "changes": [
                {"path": path, "old": hexadecimal(8, random), "new": hexadecimal(8, random)}
            ],
        }

    def _admin_action(self, tenant: str, _person: Person) -> dict[str, Any]:
        random = self._random
        operation = random.choice(("create", "update", "update", "delete", "enable", "disable"))
        kind = random.choice(("project", "group", "integration", "report"))
        return {
            "action": f"{kind}.{operation}",
            "operation": operation,
            "ticket": f"CHG-{int(random.random() * 100_000)}" if random.random() < 0.5 else None,
            "resources": [{"tenant": tenant, "type": kind, "id": hexadecimal(12, random)}],
            "changes": [{"path": "state", "new": operation}],
        }

    def _security_change(self, tenant: str, person: Person) -> dict[str, Any]:
        random = self._random
        kind, action = random.choice(_CHANGES)
        added = kind in ("role", "privilege")
        target = self._populations[tenant].anybody(random).target
        while added and target is person.target:  # granting to oneself is an attack
            target = self._populations[tenant].anybody(random).target
        return {
            "action": action,
            "severity": "medium",
            "change_kind": kind,
            "targets": [target],
            "privileges_added": ["analyst"] if added else [],
            "key_fingerprint": f"SHA256:{hexadecimal(43, random)}" if kind == "key" else None,
            "break_glass": random.random() < 0.01,
        }


_ACCESSES: Final = (
    ("read", "record.read"),
    ("read", "record.read"),
    ("read", "record.read"),
    ("query", "record.query"),
    ("list", "record.list"),
    ("search", "record.search"),
    ("export", "record.export"),
    ("download", "file.download"),
)
_PURPOSES: Final = ("support case", "billing run", "fraud review", None, None)
_CHANGES: Final = (
    ("role", "role.grant"),
    ("privilege", "privilege.grant"),
    ("credential", "password.reset"),
    ("mfa", "factor.reset"),
    ("policy", "policy.update"),
    ("key", "key.rotate"),
)
