"""Documents of the search index: ECS names, one form for hot path and catch-up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import avro_schemas
from pipeline.testing import OCCURRED_AT_US, a_data_subject, a_target, an_actor, an_event, events
from sinks.documents import Documents, is_ip, month_text, time_text
from sinks.index_fields import index_template, mapping
from tests.index_support import LATE_AFTER_S, as_caught_up, seal_event
from tests.sizes import examples

LOG = "audit.raw.authentication/0/1"
ANY_EVENT = st.sampled_from(avro_schemas.families()).flatmap(
    lambda family: st.tuples(st.just(family), events(family))
)
UNKNOWN = st.dictionaries(
    st.sampled_from(["email", "actor.nickname", "badges.0.name", "badges.1.name"]),
    st.one_of(st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), st.lists(st.text())),
)


def document(event: Any, leaf: int = 5) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        Documents(late_after_s=LATE_AFTER_S).document(event, LOG, leaf)
    )
    return loaded


def an_event_document(family: str = "authentication", **changes: Any) -> dict[str, Any]:
    return document(seal_event(family, an_event(family, **changes)))


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(of_family=ANY_EVENT, added=UNKNOWN, randomly=st.randoms(use_true_random=False))
def test_hot_path_and_catch_up_give_the_same_bytes_in_whatever_order_values_come(
    of_family: tuple[str, dict[str, Any]], added: dict[str, Any], randomly: Any
) -> None:
    hot = seal_event(*of_family, added=added)
    late = as_caught_up(hot)
    shuffled = list(hot.opened.items())
    randomly.shuffle(shuffled)
    documents = Documents(late_after_s=LATE_AFTER_S)

    first = documents.document(hot, LOG, 3)
    second = Documents(late_after_s=LATE_AFTER_S).document(late, LOG, 3)
    hot.opened = dict(shuffled)
    third = documents.document(hot, LOG, 3)

    assert first == second == third
    assert b"\n" not in first


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(of_family=ANY_EVENT, added=UNKNOWN)
def test_every_field_is_in_the_strict_mapping_and_no_value_is_lost(
    of_family: tuple[str, dict[str, Any]], added: dict[str, Any]
) -> None:
    event = seal_event(*of_family, added=added)

    made = document(event)

    assert not [name for name in _names(made) if not _is_mapped(name)]
    text = json.dumps(made, sort_keys=True)
    for path, value in event.opened.items():
        assert json.dumps(value, sort_keys=True) in text, path


def test_has_what_security_views_need() -> None:
    made = an_event_document(
        outcome="failure",
        severity="high",
        operation="logon",
        actor=an_actor("u-1", name="Ann", email="ann@example.com"),
        source={"ip": "192.0.2.1", "port": 443},
    )

    assert made["@timestamp"] == "2025-10-09T08:53:20.000000Z"
    assert made["event.created"] == "2025-10-09T08:53:20.020000Z"
    assert made["event.ingested"] == "2025-10-09T08:53:20.050000Z"
    assert made["event.kind"] == "event"
    assert made["event.category"] == ["authentication"]
    assert made["event.type"] == ["start"]
    assert (made["event.outcome"], made["event.severity"]) == ("failure", 4)
    assert made["organization.id"] == "acme"
    assert made["related.user"] == ["Ann", "ann@example.com", "u-1"]
    assert made["related.ip"] == ["192.0.2.1"]
    assert (made["audit.log"], made["audit.leaf_index"]) == (LOG, 5)
    assert len(made["event.hash"]) == 64


def test_targets_become_parallel_users_and_stay_together_as_records() -> None:
    targets = [
        a_target("u-2", name="Bob"),
        a_target("u-9", relation="on_behalf_of"),
        *(a_target(f"n-{number}") for number in range(10)),
    ]

    made = an_event_document(
        "admin-action", targets=targets, data_subjects=[a_data_subject("patient-1")]
    )

    assert made["user.target.id"] == ["u-2", *(f"n-{number}" for number in range(10))]
    assert made["user.effective.id"] == ["u-9"]
    assert made["audit.target"][0]["name"] == "Bob"
    assert [target["id"] for target in made["audit.target"]][-1] == "n-9"
    assert {"patient-1", "u-9", "Bob", "n-4"} <= set(made["related.user"])


def test_changes_stay_records() -> None:
    changes = [{"path": "email", "old": "a@example.com", "new": None}]

    made = an_event_document("profile-update", changes=changes)

    assert made["audit.changes"] == [{"path": "email", "old": "a@example.com"}]


def test_erased_values_leave_their_fields_out_and_all_else_as_it_was() -> None:
    event = seal_event(
        "authentication",
        an_event("authentication", actor=an_actor(name="Ann"), source={"ip": "192.0.2.1"}),
    )

    before = document(event)
    after = document(as_caught_up(event, erased=True))

    gone = {"user.id", "user.name", "source.ip", "related.user", "related.ip"}
    assert gone <= set(before) - set(after)
    assert after == {name: value for name, value in before.items() if name in after}
    assert after["audit.actor.ref"] == before["audit.actor.ref"]


def test_fields_of_a_newer_schema_are_kept_under_their_path() -> None:
    event = seal_event(
        "authentication", an_event("authentication"), added={"email": "ann@example.com"}
    )

    assert document(event)["audit.unmapped"] == {"email": "ann@example.com"}


def test_an_address_that_is_none_is_kept_and_found_as_a_host() -> None:
    made = an_event_document(source={"ip": "AWS Internal"})

    assert "source.ip" not in made
    assert made["source.address"] == "AWS Internal"
    assert made["related.hosts"] == ["AWS Internal"]


def test_a_severity_of_a_newer_schema_is_searchable_and_has_no_number() -> None:
    made = an_event_document(severity="apocalyptic")

    assert made["audit.severity"] == "apocalyptic"
    assert "event.severity" not in made


def test_a_type_of_value_that_no_schema_of_ours_has_makes_a_document_all_the_same() -> None:
    event = seal_event("authentication", an_event("authentication"))
    event.opened = {"source.ip": ["192.0.2.1"], "actor.name": 7, "actor.email": {"a": "b"}}

    made = document(event)

    assert made["source.address"] == ["192.0.2.1"]
    assert made["user.name"] == 7


def test_a_family_that_this_release_does_not_know_has_the_common_fields() -> None:
    event = seal_event("authentication", an_event("authentication"))
    event.family = "of-a-newer-release"

    made = document(event)

    assert made["user.id"] == "u-1"
    assert made["event.dataset"] == "audit.of-a-newer-release"
    assert "operation" in made["audit.unmapped"]


def test_an_event_stored_a_day_late_is_marked() -> None:
    event = seal_event("authentication", an_event("authentication"))
    event.stored_at_us = event.occurred_at_us + (LATE_AFTER_S + 1) * 1_000_000

    assert document(event)["audit.late"] is True


def test_a_stub_says_where_the_event_is_and_nothing_of_what_it_says() -> None:
    event = seal_event("authentication", an_event("authentication", description="secret"))

    made = json.loads(
        Documents(late_after_s=1).stub(event, LOG, 5, refused="document_parsing_exception")
    )

    assert made["audit.index_refused"] == "document_parsing_exception"
    assert (made["audit.leaf_index"], made["organization.id"]) == (5, "acme")
    assert made["event.id"] == event.clear["event_id"]
    assert not [name for name in _names(made) if not _is_mapped(name)]
    assert not {"message", "user.id", "related.user"} & set(made)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", True),
        ("2001:db8::1", True),
        ("::ffff:192.0.2.1", True),
        ("192.0.2.01", False),
        ("192.0.2.1:443", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("example.com", False),
        ("192.0.2.1\0", False),
    ],
)
def test_tells_addresses_from_other_texts(text: str, expected: bool) -> None:
    assert is_ip(text) is expected


def test_times_keep_microseconds_and_name_their_month() -> None:
    assert time_text(-1) == "1969-12-31T23:59:59.999999Z"
    assert time_text(OCCURRED_AT_US + 1) == "2025-10-09T08:53:20.000001Z"
    assert month_text(OCCURRED_AT_US) == "2025.10"
    assert month_text(1_764_547_199_999_999) == "2025.11"
    assert month_text(1_764_547_200_000_000) == "2025.12"


def test_template_is_strict_and_outranks_the_built_in_ones() -> None:
    template = index_template("audit-events", replicas=1, refresh_s=0.5)

    assert template["index_patterns"] == ["audit-events-*"]
    assert template["priority"] > 500
    assert template["template"]["mappings"]["dynamic"] == "strict"
    settings = template["template"]["settings"]["index"]
    assert settings["refresh_interval"] == "500ms"
    assert settings["translog"] == {"flush_threshold_size": "32mb"}


def _names(made: dict[str, Any]) -> list[str]:
    names: list[str] = []
    for name, value in made.items():
        records = value if isinstance(value, list) else []
        inner = {
            f"{name}.{key}" for record in records if isinstance(record, dict) for key in record
        }
        names += inner or [name]
    return names


def _is_mapped(name: str) -> bool:
    level = mapping()
    for part in name.split("."):
        level = level.get("properties", {}).get(part)
        if level is None:
            return False
    return "type" in level
