"""Where one made attack takes place, and the events that its steps leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from pipeline.generator.identifiers import uuid7
from pipeline.generator.load import Maker
from pipeline.generator.population import Person

Made = tuple[str, dict[str, Any]]


class Place(NamedTuple):
    """Where the addresses of a made network are."""

    network: str  # within 3fff::/20, for documentation (RFC 9637)
    country: str  # ISO 3166-1 alpha-2
    latitude: float
    longitude: float


# Events carry no place: the pipeline looks it up from the address. Trials look it up here.
PLACES: Final[Mapping[str, Place]] = MappingProxyType(
    {
        "Berlin": Place("3fff:1::/32", "DE", 52.52, 13.41),
        "Sydney": Place("3fff:2::/32", "AU", -33.87, 151.21),
        "São Paulo": Place("3fff:3::/32", "BR", -23.55, -46.63),
    }
)


@dataclass(slots=True)
class Scene:
    """Where one attack takes place: a tenant, a time, an attacker's addresses."""

    maker: Maker
    random: Random
    tenant: str
    at_us: int
    events: list[Made] = field(default_factory=list)

    def address(self) -> dict[str, Any]:
        """An address that nobody else has, with a user agent."""
        agent = "python-requests/2.32"
        return {"ip": f"2001:db8:dead:{self.random.getrandbits(16):x}::1", "user_agent": agent}

    def address_in(self, place: str) -> dict[str, Any]:
        """An address of a place, with a usual user agent."""
        network = PLACES[place].network.removesuffix("::/32")
        agent = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"
        return {"ip": f"{network}:{self.random.getrandbits(16):x}::1", "user_agent": agent}

    def person(self) -> Person:
        """Somebody who is not a service account."""
        while True:
            person = self.maker.person(self.tenant)
            if person.actor["type"] == "user":
                return person

    def people(self, count: int) -> list[Person]:
        """So many different ones; the tenant must have clearly more."""
        found: dict[str, Person] = {}
        while len(found) < count:
            person = self.maker.anybody(self.tenant)
            found[person.actor["id"]] = person
        return list(found.values())

    def add(self, family: str, after_us: int, person: Person, **changes: Any) -> None:
        """An event of a person, so long after the attack's begin."""
        at = self.at_us + after_us
        event = self.maker.make(family, self.tenant, at, person)
        known = {"event_id": uuid7(at, self.random), "actor": person.actor}
        self.events.append((family, event | known | changes))

    def failure(self, after_us: int, person: Person, source: Any, code: str, **more: Any) -> None:
        """A sign-in that failed."""
        self.add(
            "authentication",
            after_us,
            person,
            **{
                "action": "session.start",
                "operation": "logon",
                "outcome": "failure",
                "severity": "low",
                "failure_code": code,
                "session": None,
                "source": source,
                "auth_factors": ["password"],
                **more,
            },
        )

    def success(self, after_us: int, person: Person, source: Any) -> None:
        """A sign-in."""
        self.add(
            "authentication",
            after_us,
            person,
            action="session.start",
            operation="logon",
            outcome="success",
            failure_code=None,
            source=source,
        )
