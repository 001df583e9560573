"""Labelled attacks: each is what its name says, all keep the contract, and the same seed gives the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from ipaddress import IPv6Network, ip_address, ip_network
from math import asin, cos, radians, sin, sqrt
from pathlib import Path

import pytest
from audit_sdk.codec import validate

from pipeline.generator.attacks import ATTACKS, LabelledEvent, labelled
from pipeline.generator.scene import PLACES, Place

ROOT = Path(__file__).parents[2]
DOCUMENTATION = IPv6Network("3fff::/20")  # RFC 9637
START = 1_790_000_000_000_000
MINUTE = 60_000_000


def made(**options: object) -> list[LabelledEvent]:
    given: dict[str, object] = {"seed": 5, "start_at_us": START, "people_per_tenant": 200}
    return list(labelled(400, **(given | options)))  # type: ignore[arg-type]


def staged(name: str) -> list[LabelledEvent]:
    return [one for one in made(attacks=[name]) if one.label]


def test_every_event_keeps_its_contract_and_has_its_own_id() -> None:
    events = made(each=2)

    for one in events:
        assert validate(one.family, one.event) == []
    assert len({one.event["event_id"] for one in events}) == len(events)


def test_events_come_by_time_and_each_attack_takes_place_as_often_as_asked() -> None:
    events = made(each=3)
    times = [one.event["occurred_at"] for one in events]
    labels = {one.label for one in events} - {""}

    assert times == sorted(times)
    assert labels == {f"{name}/{number}" for name in ATTACKS for number in (1, 2, 3)}
    assert sum(not one.label for one in events) == 400


def test_the_same_seed_gives_the_same_and_another_seed_others() -> None:
    assert made() == made()
    assert made() != made(seed=6)


def test_the_load_is_the_same_with_and_without_attacks() -> None:
    without = made(attacks=[])

    assert [one for one in made() if not one.label] == without


def test_an_attack_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(LookupError, match=r"nonsense.*brute-force-user"):
        made(attacks=["nonsense"])


@pytest.mark.parametrize(
    ("name", "addresses", "people", "tries", "minutes"),
    [
        ("brute-force-user", 1, 1, 30, 10),
        ("brute-force-many-sources", 12, 1, 24, 20),
        ("password-spraying", 1, 15, 45, 30),
        ("password-spraying-many-sources", 10, 20, 40, 15),
        ("credential-stuffing", 1, 40, 40, 10),
    ],
)
def test_guessing_is_as_broad_and_as_quick_as_it_says(
    name: str, addresses: int, people: int, tries: int, minutes: int
) -> None:
    events = [one.event for one in staged(name)]

    assert {event["outcome"] for event in events} == {"failure"}
    assert len({event["source"]["ip"] for event in events}) == addresses
    assert len({event["actor"]["id"] for event in events}) == people
    assert len(events) == tries
    assert events[-1]["occurred_at"] - events[0]["occurred_at"] <= minutes * MINUTE


def test_what_follows_an_attack_comes_from_the_same_address() -> None:
    for name in ("success-after-attack", "mfa-fatigue"):
        *failures, last = [one.event for one in staged(name)]
        assert {event["outcome"] for event in failures} == {"failure"}
        assert last["outcome"] == "success"
        assert {event["source"]["ip"] for event in failures} == {last["source"]["ip"]}
        assert last["actor"] == failures[0]["actor"]


def test_one_session_on_many_devices() -> None:
    events = [one.event for one in staged("session-hijack")]

    assert len({event["session"]["id"] for event in events}) == 1
    assert len({event["source"]["device_id"] for event in events}) == 5
    assert events[-1]["occurred_at"] - events[0]["occurred_at"] < 9 * MINUTE


def test_who_grants_to_oneself_and_what_lives_for_half_an_hour() -> None:
    (self_grant,) = staged("self-granted-privilege")
    assert self_grant.event["targets"][0]["id"] == self_grant.event["actor"]["id"]
    created, deleted = [one.event for one in staged("create-and-delete-account")]
    assert (created["operation"], deleted["operation"]) == ("create", "delete")
    assert created["targets"] == deleted["targets"]


def place_of(address: str) -> Place:
    (found,) = [one for one in PLACES.values() if ip_address(address) in ip_network(one.network)]
    return found


def test_nobody_travels_as_fast_as_the_impossible_traveller() -> None:
    first, second = [one.event for one in staged("impossible-travel")]
    here, there = (place_of(event["source"]["ip"]) for event in (first, second))
    # Great circle by the haversine formula, on a sphere of 6,371 km.
    lat, other = radians(here.latitude), radians(there.latitude)
    half = sin((other - lat) / 2) ** 2 + cos(lat) * cos(other) * (
        sin(radians(there.longitude - here.longitude) / 2) ** 2
    )
    hours = (second["occurred_at"] - first["occurred_at"]) / 3_600_000_000

    assert first["actor"] == second["actor"]
    assert {first["outcome"], second["outcome"]} == {"success"}
    assert here.country != there.country
    assert 2 * 6_371 * asin(sqrt(half)) / hours > 900
    assert all(ip_network(one.network).subnet_of(DOCUMENTATION) for one in PLACES.values())


def test_the_night_is_between_two_and_three() -> None:
    for one in staged("after-hours-administration"):
        assert one.event["occurred_at"] // 3_600_000_000 % 24 == 2


def test_others_and_attackers_share_no_address() -> None:
    by_label: dict[bool, set[str]] = defaultdict(set)
    for one in made():
        if one.label.startswith(("brute", "password", "credential")):
            by_label[True].add(one.event["source"]["ip"])
        elif not one.label and one.event.get("source"):
            by_label[False].add(one.event["source"]["ip"])

    assert not by_label[True] & by_label[False]


def test_the_script_writes_what_the_checker_reads(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    environment = {"PATH": "", "PYTHONPATH": f"{ROOT}:{ROOT / 'sdk/python'}"}
    written, checked, listed, refused = (
        subprocess.run(
            [sys.executable, *words],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )
        for words in (
            ["scripts/test_data_generator.py", "--count", "50", "--out", str(file)],
            ["scripts/validate_event_schema.py", "events", str(file)],
            ["scripts/test_data_generator.py", "--list"],
            ["scripts/test_data_generator.py", "--attacks", "nonsense", "--out", "-"],
        )
    )  # fmt: skip

    assert (written.returncode, checked.returncode) == (0, 0), written.stderr + checked.stdout
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert {line["label"].split("/")[0] for line in lines} == {"", *ATTACKS}
    assert all(name in listed.stdout for name in ATTACKS)
    assert refused.returncode == 2
    assert "brute-force-user" in refused.stderr
