"""The made people of a tenant, how often each acts, and from where.

Addresses are from the ranges for documentation (RFC 5737, RFC 3849), domains end in example.com.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any, Final

_FIRST: Final = (
    "Ada",
    "Amina",
    "Björn",
    "Carla",
    "Chidi",
    "Dao",
    "Elif",
    "Emeka",
    "Fatima",
    "Goran",
    "Hana",
    "Ines",
    "Jonas",
    "Kenji",
    "Lea",
    "Liam",
    "Maya",
    "Noor",
    "Olga",
    "Pedro",
    "Quinn",
    "Rosa",
    "Sofía",
    "Tariq",
    "Uma",
    "Viktor",
    "Wei",
    "Ximena",
    "Yara",
    "Zoë",
)
_LAST: Final = (
    "Abebe",
    "Almeida",
    "Bauer",
    "Chen",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fischer",
    "García",
    "Haddad",
    "Ivanova",
    "Jensen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Petrov",
    "Quist",
    "Rossi",
    "Schmidt",
    "Takahashi",
    "Ünal",
    "Varga",
    "Weber",
    "Yilmaz",
)
_AGENTS: Final = (
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/141.0.0.0 Safari/537.36"
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/18.6 Safari/605.1.15"
    ),
    "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
        "Gecko) Version/18.6 Mobile/15E148 Safari/604.1"
    ),
)
_ROLES: Final = (["member"], ["member"], ["member", "analyst"], ["member", "support"], ["admin"])
_NETWORKS: Final = ("192.0.2", "198.51.100", "203.0.113")
_ZIPF_EXPONENT: Final = 1.1


@dataclass(frozen=True, slots=True)
class Person:
    """One account: its record Actor, the places it works from, and the profile that others change.

    The records are shared by all events of the person: read them, never change them.
    """

    actor: dict[str, Any]
    sources: tuple[dict[str, Any], ...]
    target: dict[str, Any]
    subject: dict[str, Any]


class Population:
    """The accounts of one tenant; the n-th most active acts in proportion to 1 / n^1.1."""

    def __init__(self, tenant: str, size: int, random: Random) -> None:
        self.people = tuple(_person(tenant, number, random) for number in range(size))
        self._cumulated = list(accumulate(1 / (n**_ZIPF_EXPONENT) for n in range(1, size + 1)))

    def active(self, random: Random) -> Person:
        """Somebody, the active ones more often."""
        return self.people[bisect_left(self._cumulated, random.random() * self._cumulated[-1])]

    def anybody(self, random: Random) -> Person:
        """Somebody, each as often as the next."""
        return self.people[int(random.random() * len(self.people))]


def _person(tenant: str, number: int, random: Random) -> Person:
    first, last = random.choice(_FIRST), random.choice(_LAST)
    name, number_text = f"{first} {last}", f"u-{number:06d}"
    is_service = random.random() < 0.05
    email = f"{number_text}@{tenant}.example.com"
    owner = {"tenant": tenant, "id_type": "user_id", "id": number_text}
    actor = {
        **owner,
        "type": "service" if is_service else "user",
        "name": f"svc-{number}" if is_service else name,
        "email": None if is_service else email,
        "roles": random.choice(_ROLES),
    }
    return Person(
        actor=actor,
        sources=tuple(_source(random) for _ in range(random.randint(1, 3))),
        target={**owner, "relation": "target", "type": "user", "name": name, "email": email},
        subject=owner,
    )


def _source(random: Random) -> dict[str, Any]:
    if random.random() < 0.2:
        address = f"2001:db8:{random.getrandbits(16):x}::{random.getrandbits(16) or 1:x}"
    else:
        address = f"{random.choice(_NETWORKS)}.{random.randint(1, 254)}"
    return {
        "ip": address,
        "port": random.randint(1024, 65535) if random.random() < 0.5 else None,
        "domain": None,
        "user_agent": random.choice(_AGENTS),
        "device_id": f"d-{random.getrandbits(48):012x}" if random.random() < 0.6 else None,
    }
