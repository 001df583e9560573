"""A stored event gives the record that its producer sent; what is gone is not made up."""

from __future__ import annotations

import io
import re
from typing import Any
from uuid import UUID

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import avro_schemas
from pipeline.codec.wire import frame
from pipeline.compliance.replay import Replayer, ValueGone
from pipeline.domain.records import SealedEvent
from pipeline.keys.seal import seal
from pipeline.testing import an_event, events, read_as_worker
from tests.index_support import KEY, seal_event


def written(family: str, event: dict[str, Any]) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(avro_schemas.load(family)), event)
    return body.getvalue()


def sealed_as_worker(family: str, body: bytes) -> SealedEvent:
    """The event with the very flat values that the worker reads of a body."""
    values = read_as_worker(family, frame(3, body))
    none = {leaf.path for leaf in avro_schemas.leaves(family) if leaf.pii == "none"}
    clear = {p: v for p, v in values.items() if re.sub(r"\.\d+\.", ".*.", p) in none}
    opened = {path: value for path, value in values.items() if path not in clear}
    made = seal_event(family, an_event(family))
    made.clear, made.opened = clear, opened
    made.canonical = seal(family, made.event_id, clear, [(KEY, opened)] if opened else []).canonical
    return made


def replayer(family: str) -> Replayer:
    return Replayer({3: avro_schemas.canonical_text(family)}, run_id="r-1")


@pytest.mark.parametrize("family", avro_schemas.families())
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_body_is_what_was_sent(family: str, data: st.DataObject) -> None:
    event = data.draw(events(family))
    sent = written(family, event)

    replayed = replayer(family).record(sealed_as_worker(family, sent), "audit.replayed")

    again = fastavro.schemaless_reader(
        io.BytesIO(replayed.record.value[5:]),
        fastavro.parse_schema(avro_schemas.load(family)),
        None,
    )
    first = fastavro.schemaless_reader(
        io.BytesIO(sent), fastavro.parse_schema(avro_schemas.load(family)), None
    )
    assert _without_empty(again) == _without_empty(first)
    assert replayed.complete
    assert dict(replayed.record.headers) == {"audit-replay": b"r-1"}


def test_an_event_that_lost_a_value_says_so() -> None:
    sealed = seal_event("authentication", an_event("authentication"))
    sealed.opened = {}

    replayed = replayer("authentication").record(sealed, "audit.replayed")

    assert not replayed.complete
    assert dict(replayed.record.headers)["audit-replay-incomplete"] == b"1"
    assert replayed.record.key == b"-"


def test_an_event_that_cannot_do_without_a_value_is_not_made_up() -> None:
    subject = {"tenant": "acme", "id_type": "user_id", "id": "u-9"}
    sealed = seal_event("authentication", an_event("authentication", data_subjects=[subject]))
    sealed.opened = {}

    with pytest.raises(ValueGone):
        replayer("authentication").record(sealed, "audit.replayed")


def test_an_event_of_an_unknown_schema_is_not_sent() -> None:
    sealed = seal_event("authentication", an_event("authentication", event_id=str(UUID(int=3))))

    with pytest.raises(ValueGone):
        Replayer({}, run_id="r-1").record(sealed, "audit.replayed")


def _without_empty(value: Any) -> Any:
    """What the trail keeps: a null and what is empty are left out there."""
    if isinstance(value, dict):
        kept = {name: _without_empty(part) for name, part in value.items()}
        return {name: part for name, part in kept.items() if part not in (None, {}, [])}
    if isinstance(value, list):
        return [_without_empty(part) for part in value]
    return value
