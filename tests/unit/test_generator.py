"""Made load: the same for the same seed, valid, in order, unequal as real load is."""

from __future__ import annotations

import ipaddress
from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.logs import SERVICE_FAMILIES
from pipeline.generator.bench_events import (
    LEAN_BYTES,
    REALISTIC_BYTES,
    lean_events,
    realistic_events,
)
from pipeline.generator.identifiers import HOUR_US, times, uuid7
from pipeline.generator.load import SHARES, generate
from pipeline.importers.encode import EventEncoder
from pipeline.testing import read_as_worker

MIDNIGHT_US = 1_759_968_000_000_000  # 2025-10-09 00:00 UTC
DAY_US = 24 * HOUR_US
ENCODER = EventEncoder(dict.fromkeys(SERVICE_FAMILIES, 1))
# RFC 5737 and RFC 3849.
DOCUMENTATION = [
    ipaddress.ip_network(network)
    for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def a_day(count: int = 3_000, seed: int = 1, **options: Any) -> list[tuple[str, dict[str, Any]]]:
    return list(
        generate(count, seed=seed, start_at_us=MIDNIGHT_US, people_per_tenant=200, **options)
    )


def test_the_same_seed_gives_the_same_events() -> None:
    assert a_day(200) == a_day(200)
    assert a_day(200) != a_day(200, seed=2)


def test_the_worker_accepts_every_event() -> None:
    for family, event in a_day():
        flat = read_as_worker(family, ENCODER.encode(family, event).value)
        assert flat["action"] == event["action"]


def test_families_come_in_their_shares() -> None:
    counted = Counter(family for family, _event in a_day())

    assert set(counted) == set(SHARES) == set(SERVICE_FAMILIES)
    assert counted["data-access"] > counted["authentication"] > counted["security-change"]


def test_only_the_chosen_families_and_tenants_occur() -> None:
    made = a_day(200, families=("admin-action",), tenants=("umbrella",))

    assert {family for family, _event in made} == {"admin-action"}
    assert {event["tenant"] for _family, event in made} == {"umbrella"}


def test_events_ascend_within_the_day_and_have_ids_of_their_own() -> None:
    made = [event for _family, event in a_day()]

    moments = [event["occurred_at"] for event in made]
    assert moments == sorted(moments)
    assert moments[0] >= MIDNIGHT_US
    assert moments[-1] < MIDNIGHT_US + DAY_US
    assert len({event["event_id"] for event in made}) == len(made)


def test_days_are_busier_than_nights() -> None:
    hours = Counter(
        datetime.fromtimestamp(event["occurred_at"] / 1e6, UTC).hour for _family, event in a_day()
    )

    assert sum(hours[hour] for hour in range(8, 18)) > 3 * sum(hours[hour] for hour in range(6))


def test_few_people_do_most() -> None:
    actors = Counter(event["actor"]["id"] for _family, event in a_day(tenants=("acme",)))

    assert sum(count for _actor, count in actors.most_common(20)) > sum(actors.values()) * 0.4


def test_addresses_and_domains_belong_to_nobody() -> None:
    for _family, event in a_day(500):
        address = ipaddress.ip_address(event["source"]["ip"])
        assert any(address in network for network in DOCUMENTATION)
        email = event["actor"].get("email")
        assert email is None or email.endswith(".example.com")


def test_a_producer_counts_its_events_without_holes() -> None:
    sequences = [
        event["producer"]["sequence"]
        for _family, event in a_day(500)
        if event["producer"]["service"] == "records"
    ]

    assert sequences == list(range(len(sequences)))


@pytest.mark.parametrize(
    ("make", "size"), [(lean_events, LEAN_BYTES), (realistic_events, REALISTIC_BYTES)]
)
def test_bench_events_are_all_of_the_size_that_is_stated(make: Any, size: int) -> None:
    made = list(make(2_000, seed=3, start_at_us=MIDNIGHT_US))

    assert {len(ENCODER.body(family, event)) for family, event in made} == {size}
    assert len({event["event_id"] for _family, event in made}) == 2_000


@settings(deadline=None)
@given(
    count=st.integers(0, 60),
    start=st.integers(0, 2 * DAY_US),
    span=st.integers(1, 3 * DAY_US),
    seed=st.integers(0, 9),
)
def test_times_are_as_many_as_asked_ascending_and_within_the_span(
    count: int, start: int, span: int, seed: int
) -> None:
    random = Random(seed)

    made = list(times(count, start_at_us=start, span_us=span, random=random))

    assert len(made) == count
    assert made == sorted(made)
    assert all(start <= moment < start + span for moment in made)


@given(moment=st.integers(0, 9_214_646_400_000_000), seed=st.integers(0, 99))
def test_ids_are_version_7_and_hold_their_time(moment: int, seed: int) -> None:
    random = Random(seed)

    made = UUID(uuid7(moment, random))

    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert made.int >> 80 == moment // 1000
