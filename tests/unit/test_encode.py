"""What producers send: the same bytes as the reference writer, the right key, a token on imports."""

from __future__ import annotations

import hmac
import io
import re
from hashlib import sha256
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import avro_schemas
from pipeline.domain.logs import FAMILIES
from pipeline.importers.avro_writer import compile_writer
from pipeline.importers.encode import EventEncoder
from pipeline.testing import a_target, an_actor, an_event, events, read_as_worker

IMPORT_KEY = bytes(range(32))
ENCODER = EventEncoder(dict.fromkeys(FAMILIES, 258), import_key=IMPORT_KEY)
REFERENCE = {family: parse_schema(avro_schemas.load(family)) for family in FAMILIES}


def by_reference(family: str, event: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    schemaless_writer(buffer, REFERENCE[family], event)
    return buffer.getvalue()


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_valid_event_has_the_bytes_of_the_reference_writer(
    family: str, data: st.DataObject
) -> None:
    event = data.draw(events(family))

    assert ENCODER.body(family, event) == by_reference(family, event)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_worker_reads_back_any_valid_event(family: str, data: st.DataObject) -> None:
    event = data.draw(events(family))

    flat = read_as_worker(family, ENCODER.encode(family, event).value)

    assert flat["event_id"] == event["event_id"]
    assert flat["actor.tenant"] == event["actor"]["tenant"]
    assert flat.get("labels", {}) == event["labels"]
    assert [flat[f"targets.{at}.id"] for at, _ in enumerate(event["targets"])] == [
        target["id"] for target in event["targets"]
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_field_that_is_left_out_gets_its_default(family: str) -> None:
    whole = an_event(family)
    short = {name: value for name, value in whole.items() if value not in (None, [], {}, False)}

    assert ENCODER.body(family, short) == by_reference(family, short)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"tenant": 17}, "tenant"),
        ({"occurred_at": "2024-01-15"}, "occurred_at"),
        ({"occurred_at": 1 << 63}, "occurred_at"),
        ({"outcome": "perhaps"}, "outcome"),
        ({"imported": 1}, "imported"),
        ({"labels": {"key": None}}, "labels{}"),
        ({"actor": an_actor(name="\ud800")}, "actor.name"),
        ({"targets": [a_target(id=None)]}, "targets[].id"),
        ({"colour": "red"}, "the event"),
    ],
)
def test_an_event_that_breaks_its_schema_is_refused_by_path(
    changes: dict[str, Any], path: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(path)}:") as caught:
        ENCODER.body("authentication", an_event("authentication", **changes))

    assert "perhaps" not in str(caught.value)


def test_a_missing_required_field_is_named() -> None:
    event = an_event("authentication")
    del event["tenant"]

    with pytest.raises(ValueError, match=r"^tenant: missing"):
        ENCODER.body("authentication", event)


def test_schemas_beyond_the_writer_are_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"^risk: no writer"):
        compile_writer(
            {
                "type": "record",
                "name": "R",
                "namespace": "n",
                "fields": [{"name": "risk", "type": "double"}],
            }
        )


def test_record_goes_to_its_topic_in_the_wire_format() -> None:
    record = ENCODER.encode("data-access", an_event("data-access"))

    assert record.topic == "audit.raw.data-access"
    assert record.value[:5] == b"\x00\x00\x00\x01\x02"
    assert record.headers == ()


@pytest.mark.parametrize(
    ("actor", "key"),
    [
        (an_actor("u-1"), b"acme/u-1"),
        (an_actor("u-1", tenant="globex"), b"globex/u-1"),
        (an_actor(None), b"-"),
    ],
)
def test_key_is_the_actor_in_its_home_tenant(actor: dict[str, Any], key: bytes) -> None:
    assert ENCODER.encode("data-access", an_event("data-access", actor=actor)).key == key


def test_an_imported_event_carries_a_token_over_its_value() -> None:
    record = ENCODER.encode("data-access", an_event("data-access", imported=True))

    token = hmac.new(IMPORT_KEY, record.value, sha256).hexdigest().encode()
    assert record.headers == (("audit-import-token", token),)
