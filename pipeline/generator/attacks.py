"""Attacks among made load, each labelled: what the detections are tried on.

Counts and spans exceed the figures that public rule sets use for the same attack (Panther, Elastic and
Sigma rules of 2026), so that a rule with their thresholds finds them. Addresses are from the ranges for
documentation, outside of what the load itself uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from random import Random
from types import MappingProxyType
from typing import Any, Final

from pipeline.generator.identifiers import hexadecimal
from pipeline.generator.load import TENANTS, Maker, generate
from pipeline.generator.population import Person
from pipeline.generator.scene import Scene

_SECOND: Final = 1_000_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE


@dataclass(frozen=True, slots=True)
class LabelledEvent:
    """An event, and of which attack it is part: ``name/number``; empty: of none."""

    family: str
    event: dict[str, Any]
    label: str


def brute_force_user(scene: Scene) -> None:
    """One account, one address: 30 wrong passwords in ten minutes."""
    person, source = scene.person(), scene.address()
    for number in range(30):
        scene.failure(number * 20 * _SECOND, person, source, "invalid_password")


def brute_force_many_sources(scene: Scene) -> None:
    """One account: 24 wrong passwords from twelve addresses in 20 minutes."""
    person, sources = scene.person(), [scene.address() for _ in range(12)]
    for number in range(24):
        scene.failure(number * 50 * _SECOND, person, sources[number % 12], "invalid_password")


def password_spraying(scene: Scene) -> None:
    """One address: 15 accounts, three tries each over half an hour."""
    people, source = scene.people(15), scene.address()
    for number in range(45):
        scene.failure(number * 40 * _SECOND, people[number % 15], source, "invalid_password")


def password_spraying_many_sources(scene: Scene) -> None:
    """Ten addresses: 20 accounts, two tries each in a quarter of an hour."""
    people = scene.people(20)
    sources = [scene.address() for _ in range(10)]
    for number in range(40):
        source = sources[number % 10]
        scene.failure(number * 20 * _SECOND, people[number % 20], source, "invalid_password")


def credential_stuffing(scene: Scene) -> None:
    """One address: 40 names that mostly nobody has, a try each, in ten minutes."""
    source = scene.address()
    for number in range(40):
        name = f"{hexadecimal(8, scene.random)}@example.com"
        actor = {"type": "anonymous", "tenant": scene.tenant, "id_type": "unknown", "id": name}
        scene.failure(number * 14 * _SECOND, scene.person(), source, "unknown_user", actor=actor)


def success_after_attack(scene: Scene) -> None:
    """25 wrong passwords, then the right one, from the same address."""
    person, source = scene.person(), scene.address()
    for number in range(25):
        scene.failure(number * 20 * _SECOND, person, source, "invalid_password")
    scene.success(25 * 20 * _SECOND, person, source)


def mfa_fatigue(scene: Scene) -> None:
    """Eight pushes denied within eight minutes, and one that is accepted."""
    person, source = scene.person(), scene.address()
    for number in range(8):
        factors = ["password", "push"]
        scene.failure(number * _MINUTE, person, source, "mfa_denied", auth_factors=factors)
    scene.success(8 * _MINUTE, person, source)


def mfa_disabled(scene: Scene) -> None:
    """A factor is taken off an account."""
    target = scene.person().target
    scene.add(
        "security-change", 0, scene.person(),
        action="factor.disable", change_kind="mfa", targets=[target], privileges_added=[],
        key_fingerprint=None, severity="high",
    )  # fmt: skip


def session_hijack(scene: Scene) -> None:
    """One session, five devices and four addresses within eight minutes."""
    person, session = scene.person(), {"id": hexadecimal(16, scene.random), "mfa": True}
    sources = [scene.address() for _ in range(4)]
    for number in range(20):
        device = {"device_id": f"d-{number % 5:012x}"}
        source = {**sources[number % 4], **device}
        _read(scene, number * 24 * _SECOND, person, session=session, source=source)


def mass_data_access(scene: Scene) -> None:
    """60 different records within three minutes."""
    person = scene.person()
    for number in range(60):
        _read(scene, number * 3 * _SECOND, person)


def mass_export(scene: Scene) -> None:
    """Everything, at once, to an address outside."""
    scene.add(
        "data-access", 0, scene.person(),
        action="record.export", operation="export", severity="high", record_count=250_000,
        byte_count=3_000_000_000, export_destination="https://drop.example.net/upload",
    )  # fmt: skip


def mass_delete(scene: Scene) -> None:
    """25 deletions within half an hour."""
    person = scene.person()
    for number in range(25):
        thing = {"tenant": scene.tenant, "type": "project", "id": hexadecimal(12, scene.random)}
        scene.add(
            "admin-action", number * _MINUTE, person,
            action="project.delete", operation="delete", resources=[thing],
            changes=[{"path": "state", "new": "deleted"}],
        )  # fmt: skip


def privilege_escalation(scene: Scene) -> None:
    """An administrator's role for somebody else, without a ticket."""
    _grant(scene, scene.person(), scene.person())


def self_granted_privilege(scene: Scene) -> None:
    """An administrator's role for oneself."""
    person = scene.person()
    _grant(scene, person, person)


def create_and_delete_account(scene: Scene) -> None:
    """An account that lives for half an hour."""
    person, made = scene.person(), scene.person().target
    for after, operation in ((0, "create"), (30 * _MINUTE, "delete")):
        scene.add(
            "admin-action", after, person,
            action=f"user.{operation}", operation=operation, targets=[made], resources=[],
            changes=[{"path": "state", "new": operation}],
        )  # fmt: skip


def after_hours_administration(scene: Scene) -> None:
    """Six administrative actions between two and three at night, UTC."""
    person = scene.person()
    night = scene.at_us // (24 * _HOUR) * 24 * _HOUR + 2 * _HOUR - scene.at_us
    if night < 0:
        night += 24 * _HOUR
    for number in range(6):
        thing = {"tenant": scene.tenant, "type": "integration", "id": hexadecimal(12, scene.random)}
        scene.add(
            "admin-action", night + number * 8 * _MINUTE, person,
            action="integration.update", operation="update", resources=[thing],
        )  # fmt: skip


def impersonation(scene: Scene) -> None:
    """A record read in somebody else's name."""
    other = {**scene.person().target, "relation": "on_behalf_of"}
    _read(scene, 0, scene.person(), targets=[other])


def audit_configuration_changed(scene: Scene) -> None:
    """The trail itself is told to keep less."""
    thing = {"tenant": scene.tenant, "type": "audit_policy", "id": "default"}
    scene.add(
        "security-change", 0, scene.person(),
        action="audit.disable", change_kind="logging", severity="critical", targets=[],
        resources=[thing], privileges_added=[], key_fingerprint=None,
    )  # fmt: skip


def impossible_travel(scene: Scene) -> None:
    """One account signs in from Berlin, and 25 minutes later from Sydney, 16,000 km away."""
    person = scene.person()
    scene.success(0, person, scene.address_in("Berlin"))
    scene.success(25 * _MINUTE, person, scene.address_in("Sydney"))


ATTACKS: Final[Mapping[str, Callable[[Scene], None]]] = MappingProxyType(
    {
        attack.__name__.replace("_", "-"): attack
        for attack in (
            brute_force_user, brute_force_many_sources, password_spraying,
            password_spraying_many_sources, credential_stuffing, success_after_attack, mfa_fatigue,
            mfa_disabled, session_hijack, mass_data_access, mass_export, mass_delete,
            privilege_escalation, self_granted_privilege, create_and_delete_account,
            after_hours_administration, impersonation, audit_configuration_changed, impossible_travel,
        )
    }
)  # fmt: skip


def labelled(
    count: int,
    *,
    seed: int,
    start_at_us: int,
    span_us: int = 24 * _HOUR,
    tenants: Sequence[str] = TENANTS,
    attacks: Sequence[str] = tuple(ATTACKS),
    each: int = 1,
    people_per_tenant: int = 2_000,
    quiet_us: int = 0,
) -> Iterator[LabelledEvent]:
    """``count`` events of load and ``each`` of every attack among them, by time ascending.

    No attack begins before ``quiet_us`` have passed: rules that learn what is usual need a while. The same arguments give the same events. An attack may end after the span.

    Raises:
        LookupError: There is no such attack.
    """
    unknown = set(attacks) - set(ATTACKS)
    if unknown:
        known = ", ".join(ATTACKS)
        raise LookupError(f"no such attack: {', '.join(sorted(unknown))}; there are {known}")
    load = (
        LabelledEvent(family, event, "")
        for family, event in generate(
            count,
            seed=seed,
            start_at_us=start_at_us,
            span_us=span_us,
            tenants=tenants,
            people_per_tenant=people_per_tenant,
        )
    )
    random = Random(f"{seed} attacks")  # noqa: S311 - made load, not a secret
    maker = Maker(random, tenants, people_per_tenant)
    staged: list[LabelledEvent] = []
    for name in attacks:
        for number in range(1, each + 1):
            at = start_at_us + quiet_us + int(random.random() * (span_us - quiet_us))
            scene = Scene(maker, random, random.choice(tenants), at)
            ATTACKS[name](scene)
            staged += [LabelledEvent(*made, f"{name}/{number}") for made in scene.events]
    staged.sort(key=_time)
    yield from merge(load, staged, key=_time)


def _time(one: LabelledEvent) -> int:
    at: int = one.event["occurred_at"]
    return at


def _read(scene: Scene, after_us: int, person: Person, **changes: Any) -> None:
    number = hexadecimal(12, scene.random)
    thing = {"tenant": scene.tenant, "type": "record", "id": number, "path": f"/records/{number}"}
    scene.add(
        "data-access", after_us, person,
        **{
            "action": "record.read", "operation": "read", "resources": [thing], "record_count": 1,
            "byte_count": 1_200, "export_destination": None, **changes,
        },
    )  # fmt: skip


def _grant(scene: Scene, person: Person, to: Person) -> None:
    scene.add(
        "security-change", 0, person,
        action="role.grant", change_kind="role", severity="high", targets=[to.target],
        privileges_added=["admin"], key_fingerprint=None, ticket=None,
    )  # fmt: skip
