"""Whatever arrives on a raw topic: events beside it are stored, it lands in the dead letter with its
reason and its bytes, and the worker does not restart.

Needs the servers that AUDIT_* name (the local stack).
"""

from __future__ import annotations

import subprocess
import time
from typing import Any
from uuid import uuid4

import pytest

import avro_schemas
from pipeline.codec.wire import frame
from pipeline.domain.errors import Reason
from pipeline.settings import Settings
from pipeline.testing import an_actor, an_event
from tests.acceptance.records import (
    DAY_US,
    FAMILY,
    TOPIC,
    an_acme_event,
    body,
    cli,
    letters,
    next_offset,
    originals,
    publish,
    register,
    stored,
    wait_until,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def bad_values(registered: dict[str, int]) -> dict[bytes | None, Reason]:
    """Record values and why each can never be accepted."""
    schema = registered[FAMILY]
    good = body(an_acme_event())
    now_us = int(time.time() * 1e6)
    bad: dict[bytes | None, Reason] = {
        b"": Reason.EMPTY_VALUE,
        None: Reason.NULL_VALUE,
        b"\x01" + frame(schema, good)[1:]: Reason.WRONG_MAGIC,
        b"\x00\x00\x00": Reason.TRUNCATED,
        frame(1_000_000, good): Reason.UNKNOWN_SCHEMA,
        frame(2**32 - 1, good): Reason.UNKNOWN_SCHEMA,
        frame(registered["data-access"], good): Reason.SCHEMA_OF_OTHER_SUBJECT,
        frame(schema, good + b"\x00"): Reason.TRAILING_BYTES,
        frame(schema, good) + bytes(10_000_000): Reason.TOO_LARGE,
        frame(schema, body(an_acme_event(action="a\x00b"))): Reason.CONTROL_CHARACTER,
        frame(schema, body(an_acme_event(action="a\x1b[2Jb"))): Reason.CONTROL_CHARACTER,
        frame(schema, body(an_acme_event(labels={"k": "\x85"}))): Reason.CONTROL_CHARACTER,
        frame(schema, body(an_acme_event(event_id="not-a-uuid"))): Reason.EVENT_ID_INVALID,
        frame(schema, body(an_acme_event(tenant="nobody-knows"))): Reason.TENANT_UNKNOWN,
        frame(schema, body(an_acme_event(occurred_at=253_402_300_799_000_000))): Reason.IN_FUTURE,
        frame(schema, body(an_acme_event(occurred_at=now_us + 600_000_000))): Reason.IN_FUTURE,
        frame(schema, body(an_acme_event(occurred_at=-1))): Reason.EXPIRED,
        frame(schema, body(an_acme_event(occurred_at=now_us - 8 * 366 * DAY_US))): Reason.EXPIRED,
        frame(schema, body(an_acme_event(imported=True))): Reason.IMPORT_NOT_AUTHORISED,
        frame(schema, body(an_acme_event(action="x" * 501))): Reason.LIMIT_EXCEEDED,
        frame(schema, body(an_acme_event(labels={"k" * 65: "v"}))): Reason.LIMIT_EXCEEDED,
        frame(schema, b"\x80\x88\xde\xbe\x01\x00"): Reason.TRUNCATED,
        frame(schema, good.replace(b"user_id", b"user_\xff\xff")): Reason.INVALID_UTF8,
    }
    return bad


def truncations(registered: dict[str, int]) -> list[bytes]:
    """Every beginning of a good record's value that has a header."""
    good = body(an_acme_event())
    return [frame(registered[FAMILY], good[:cut]) for cut in range(len(good))]


def test_bad_records_are_kept_with_their_reason_and_good_ones_beside_them_arrive(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    bad = bad_values(registered)
    # One inside a character is bad UTF-8 as well, one after a length or a branch is malformed.
    cut_short = {Reason.TRUNCATED, Reason.INVALID_UTF8, Reason.MALFORMED}
    cuts = truncations(registered)
    bad |= dict.fromkeys(cuts, Reason.TRUNCATED)
    good = {str(uuid4()) for _ in range(len(bad) * 2)}
    schema = registered[FAMILY]
    values: list[bytes | None] = [
        frame(schema, body(an_acme_event(event_id=event_id))) for event_id in good
    ]
    for at, value in enumerate(bad):
        values.insert(3 * at, value)

    offsets = publish(settings, 0, *values)
    wait_until(lambda: next_offset(settings, 0) > offsets[-1])

    assert stored(settings, good) == good
    assert worker.poll() is None
    found = letters()
    for offset, value in zip(offsets, values, strict=True):
        letter = found.get((TOPIC, 0, offset))
        if value in bad:
            assert letter is not None, bad[value]
            assert letter["reason"] in (cut_short if value in cuts else {bad[value]})
        else:
            assert letter is None
    kept = originals(settings)
    for offset, value in zip(offsets, values, strict=True):
        if value in bad:
            assert kept[TOPIC, 0, offset] == value
    largest = max(bad, key=lambda value: len(value or b""))
    shown = cli("dead-letter", "show", f"{TOPIC}:0:{offsets[values.index(largest)]}")
    assert shown == largest


def test_the_same_id_with_other_content_is_a_dead_letter_and_the_first_one_stays(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    event = an_acme_event()
    schema = registered[FAMILY]
    first = frame(schema, body(event))
    other = frame(schema, body({**event, "action": "user.logoff"}))

    publish(settings, 1, first)
    offsets = publish(settings, 2, first, other, first)
    wait_until(lambda: next_offset(settings, 2) > offsets[-1])

    found = letters()
    assert found[TOPIC, 2, offsets[1]]["reason"] == Reason.ID_REUSED
    assert originals(settings)[TOPIC, 2, offsets[1]] == other
    assert (TOPIC, 2, offsets[0]) not in found
    assert (TOPIC, 2, offsets[2]) not in found
    assert stored(settings, {event["event_id"]}) == {event["event_id"]}
    assert worker.poll() is None


def test_bombs_and_what_is_no_number_under_a_wider_schema(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    """Types that this release's own schemas do not have; a team may register them."""
    family = "admin-action"
    topic = f"audit.raw.{family}"
    maps = {"type": "map", "values": {"type": "map", "values": {"type": "map", "values": "string"}}}
    schema = avro_schemas.load(family)
    schema["fields"] += [
        {"name": "score", "type": "double", "default": 0.0, "pii": "none", "doc": "x"},
        {"name": "deep", "type": maps, "default": {}, "pii": "none", "doc": "x"},
        {
            "name": "nothing",
            "type": {"type": "array", "items": "null"},
            "default": [],
            "pii": "none",
            "doc": "x",
        },
    ]
    schema_id = register(settings, f"{topic}-value", schema)

    def a_body(**changes: Any) -> bytes:
        event = an_event(
            family,
            event_id=str(uuid4()),
            occurred_at=int(time.time() * 1e6),
            tenant="acme",
            actor=an_actor(tenant="acme"),
        )
        return body({**event, "score": 0.5, "deep": {}, "nothing": [], **changes}, schema)

    def ending(with_items: bytes) -> bytes:
        return a_body().removesuffix(b"\x00") + with_items

    bad = {
        a_body(score=float("nan")): Reason.NOT_A_NUMBER,
        a_body(score=float("inf")): Reason.NOT_A_NUMBER,
        a_body(deep={"a": {"b": {str(n): "c" for n in range(65)}}}): Reason.LIMIT_EXCEEDED,
        ending(b"\x80\x88\xde\xbe\x01\x00"): Reason.LIMIT_EXCEEDED,  # 200 million items
        ending(b"\xff\x87\xde\xbe\x01\x00\x00"): Reason.LIMIT_EXCEEDED,  # a negative count
        ending(b"\x02" * 60_000 + b"\x00"): Reason.LIMIT_EXCEEDED,  # many blocks
    }
    good = [a_body(deep={"a": {"b": {"c": "d"}}}), a_body(nothing=[None] * 3)]
    values = [good[0], *bad, good[1]]

    offsets = publish(settings, 0, *[frame(schema_id, value) for value in values], topic=topic)
    wait_until(lambda: next_offset(settings, 0, topic) > offsets[-1])

    found, kept = letters(), originals(settings)
    for offset, value in zip(offsets, values, strict=True):
        letter = found.get((topic, 0, offset))
        if value in good:
            assert letter is None
        else:
            assert letter is not None, bad[value]
            assert letter["reason"] == bad[value]
            assert kept[topic, 0, offset] == frame(schema_id, value)
    assert worker.poll() is None
