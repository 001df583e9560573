"""Vendors' records become events that the schemas and the judge accept; nothing stops an import."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.limits import Limits
from pipeline.domain.logs import SERVICE_FAMILIES
from pipeline.importers import vendor_record
from pipeline.importers.catalogue import SOURCES, map_file, map_record
from pipeline.importers.encode import EventEncoder
from pipeline.importers.events import ImportedEvent, Refusal, Refused, Unmappable
from pipeline.settings import Settings
from pipeline.testing import read_as_worker
from tests.sizes import examples

SAMPLES = Path(__file__).parents[2] / "samples"
FILES = {
    "aws-cloudtrail": SAMPLES / "aws-cloudtrail.jsonl",
    "okta": SAMPLES / "okta-systemlog.jsonl",
    "github": SAMPLES / "github-audit.jsonl",
}
EVENTS = {"aws-cloudtrail": 305, "okta": 40, "github": 46}
ENCODER = EventEncoder(dict.fromkeys(SERVICE_FAMILIES, 7))


def a_login(**changes: Any) -> dict[str, Any]:
    """A CloudTrail record of a person who signs in to the console."""
    record = {
        "eventVersion": "1.08",
        "eventID": "7d0e5b1c-0000-4000-8000-000000000001",
        "eventTime": "2024-01-15T10:45:23Z",
        "eventSource": "signin.amazonaws.com",
        "eventName": "ConsoleLogin",
        "eventType": "AwsConsoleSignIn",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "203.0.113.7",
        "userAgent": "Mozilla/5.0",
        "recipientAccountId": "111122223333",
        "userIdentity": {
            "type": "IAMUser",
            "principalId": "AIDAEXAMPLE",
            "arn": "arn:aws:iam::111122223333:user/alice",
            "accountId": "111122223333",
            "userName": "alice",
        },
        "responseElements": {"ConsoleLogin": "Success"},
        "additionalEventData": {"MFAUsed": "Yes"},
    }
    return {**record, **changes}


def accept(imported: ImportedEvent) -> dict[str, Any]:
    """What the worker reads of the event: flat values; raises if it would refuse them."""
    value = ENCODER.encode(imported.family, imported.event).value
    assert len(value) <= Limits().event_bytes
    return read_as_worker(imported.family, value)


@pytest.mark.parametrize("source", SOURCES)
def test_every_sample_is_an_event_that_the_worker_accepts_or_is_refused_with_a_reason(
    source: str,
) -> None:
    results = list(map_file(source, FILES[source]))

    events = [result for result in results if isinstance(result, ImportedEvent)]
    refused = [result for result in results if isinstance(result, Refused)]
    for imported in events:
        assert accept(imported)["imported"] is True
    assert len(events) == EVENTS[source]
    assert {result.reason for result in refused} == {Refusal.NO_TIME}
    assert [result.position for result in results] == list(range(1, len(results) + 1))


def test_samples_reach_every_family() -> None:
    families = Counter(
        result.family
        for source, path in FILES.items()
        for result in map_file(source, path)
        if isinstance(result, ImportedEvent)
    )

    assert set(families) == set(SERVICE_FAMILIES)


@pytest.mark.parametrize("source", SOURCES)
def test_importing_again_gives_the_same_ids(source: str) -> None:
    first, second = (
        [
            result.event_id
            for result in map_file(source, FILES[source])
            if isinstance(result, ImportedEvent)
        ]
        for _ in range(2)
    )

    assert first == second
    assert len(set(first)) == len(first)


def test_id_is_of_the_content_not_of_the_order_of_keys() -> None:
    record = a_login()
    turned = dict(reversed(record.items()))

    one, same = map_record("aws-cloudtrail", record), map_record("aws-cloudtrail", turned)
    other = map_record("aws-cloudtrail", a_login(awsRegion="eu-west-1"))

    assert one.event_id == same.event_id != other.event_id
    assert one.event_id.version == 5


def test_id_never_changes_between_releases() -> None:
    imported = map_record("aws-cloudtrail", a_login())

    assert imported.event_id == UUID("ba8defc2-9539-5a81-a057-9e7223112764")


def test_the_limits_are_those_of_the_judge() -> None:
    fields = Settings.model_fields

    assert fields["text_max_chars"].default == vendor_record.TEXT_CHARS
    assert fields["label_key_max_bytes"].default == vendor_record.KEY_BYTES
    assert fields["label_value_max_bytes"].default == vendor_record.VALUE_BYTES
    assert fields["items_max"].default == vendor_record.ITEMS
    assert fields["changes_max"].default == vendor_record.CHANGES


def test_a_login_keeps_who_where_and_how() -> None:
    imported = map_record("aws-cloudtrail", a_login())

    flat = accept(imported)
    assert imported.family == "authentication"
    assert flat["action"] == "signin_console.login"
    assert flat["occurred_at"] == 1_705_315_523_000_000
    assert flat["tenant"] == flat["actor.tenant"] == "aws-111122223333"
    assert (flat["actor.id_type"], flat["actor.id"]) == ("aws_principal_id", "AIDAEXAMPLE")
    assert flat["source.ip"] == "203.0.113.7"
    assert flat["session.mfa"] is True
    assert flat["outcome"] == "success"


def test_keys_match_in_any_letter_case() -> None:
    lowered = {key.lower(): value for key, value in a_login().items()}

    flat = accept(map_record("aws-cloudtrail", lowered))

    assert flat["actor.name"] == "alice"
    assert flat["occurred_at"] == 1_705_315_523_000_000


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"responseElements": {"ConsoleLogin": "Failure"}}, "failure"),
        ({"errorCode": "AccessDenied"}, "failure"),
        ({"errorCode": "Client.DryRunOperation"}, "unknown"),
        ({}, "success"),
    ],
)
def test_outcome_follows_the_error(changes: dict[str, Any], outcome: str) -> None:
    assert map_record("aws-cloudtrail", a_login(**changes)).event["outcome"] == outcome


@pytest.mark.parametrize(
    ("service", "name", "family", "activity"),
    [
        ("s3", "GetObject", "data-access", "read"),
        ("kms", "Decrypt", "data-access", "decrypt"),
        ("iam", "AttachUserPolicy", "security-change", "privilege"),
        ("cloudtrail", "StopLogging", "security-change", "logging"),
        ("ec2", "AuthorizeSecurityGroupIngress", "security-change", "network"),
        ("ec2", "RunInstances", "admin-action", "create"),
        ("rds", "DeleteDBInstance", "admin-action", "delete"),
    ],
)
def test_calls_go_to_the_family_that_fits(
    service: str, name: str, family: str, activity: str
) -> None:
    record = a_login(eventSource=f"{service}.amazonaws.com", eventName=name, eventType="AwsApiCall")

    imported = map_record("aws-cloudtrail", record)

    event = imported.event
    assert imported.family == family
    assert event.get("operation", event.get("change_kind")) == activity


def test_a_host_name_is_no_address() -> None:
    flat = accept(map_record("aws-cloudtrail", a_login(sourceIPAddress="ec2.amazonaws.com")))

    assert "source.ip" not in flat
    assert flat["source.domain"] == "ec2.amazonaws.com"


def test_what_has_no_field_becomes_metadata_and_the_rest_is_counted() -> None:
    record = a_login(
        requestParameters={"comment": "why", "long": "x" * 300, "sessionToken": "t", "n": 3},
        p_source_label="collector",
    )

    metadata = accept(map_record("aws-cloudtrail", record))["metadata"]

    assert metadata["requestParameters.comment"] == "why"
    assert metadata["requestParameters.n"] == "3"
    assert metadata["import.dropped"] == "2"
    assert not any("label" in key or "Token" in key for key in metadata)


def test_an_id_is_never_cut() -> None:
    record = a_login(userIdentity={"type": "IAMUser", "principalId": "A" * 501})

    with pytest.raises(Unmappable) as caught:
        map_record("aws-cloudtrail", record)

    assert caught.value.reason is Refusal.ID_TOO_LONG


def test_a_name_typed_at_a_failed_login_is_nobodys() -> None:
    record = a_login(
        userIdentity={"type": "IAMUser", "userName": "HIDDEN_DUE_TO_SECURITY_REASONS"},
        responseElements={"ConsoleLogin": "Failure"},
    )

    assert map_record("aws-cloudtrail", record).event["actor"]["id_type"] == "unknown"


def test_one_tenant_may_be_given_for_all_records() -> None:
    imported = map_record("aws-cloudtrail", a_login(), tenant="acme")

    assert imported.tenants == {"acme"}


def test_an_account_abroad_is_the_home_of_its_actor() -> None:
    imported = map_record("aws-cloudtrail", a_login(recipientAccountId="999988887777"))

    assert imported.event["tenant"] == "aws-999988887777"
    assert imported.event["actor"]["tenant"] == "aws-111122223333"


@pytest.mark.parametrize("written", ["redacted", None])
def test_a_record_without_a_time_is_refused(written: Any) -> None:
    with pytest.raises(Unmappable) as caught:
        map_record("aws-cloudtrail", a_login(eventTime=written))

    assert caught.value.reason is Refusal.NO_TIME


def test_unknown_event_types_are_refused() -> None:
    with pytest.raises(Unmappable) as caught:
        map_record("okta", {"published": "2022-06-22 18:18:29", "eventType": "weather.rain"})

    assert caught.value.reason is Refusal.ACTION_UNKNOWN


def test_no_error_tells_what_a_record_holds() -> None:
    with pytest.raises(Unmappable) as caught:
        map_record("aws-cloudtrail", a_login(eventTime="alice@example.com"))

    assert "alice" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=600),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=80), inner, max_size=5)
    ),
    max_leaves=20,
)
known_keys = st.sampled_from(
    [*a_login(), "actor", "target", "outcome", "client", "eventType", "published", "action", "org",
     "repo", "user", "data", "created_at", "requestParameters", "resources", "errorCode"]
)  # fmt: skip


@settings(max_examples=examples(150), deadline=None)
@given(
    source=st.sampled_from(sorted(SOURCES)),
    odd=st.dictionaries(known_keys, json_values, max_size=8),
)
def test_odd_records_are_acceptable_events_or_refusals(source: str, odd: dict[str, Any]) -> None:
    base = a_login(published="2022-06-22 18:18:29", action="repo.create")

    try:
        imported = map_record(source, {**base, **odd})
    except Unmappable:
        return

    accept(imported)


def test_an_unknown_source_is_named_with_those_that_exist() -> None:
    with pytest.raises(LookupError, match="aws-cloudtrail, github, okta"):
        map_record("weather", {})
