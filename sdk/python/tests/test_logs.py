"""What the SDK says is readable where only the message is shown, and as fields."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from audit_sdk.errors import NotDelivered
from audit_sdk.items import DeliveryClass
from audit_sdk.logs import log_event
from confluent_kafka import KafkaError
from fake_broker import FAMILY, World


def test_facts_are_in_the_message_and_in_fields(caplog: pytest.LogCaptureFixture) -> None:
    log_event(logging.ERROR, "audit_events_lost", events=3, why="broker: _TRANSPORT")

    [record] = caplog.records
    assert record.getMessage() == "audit_events_lost events=3 why='broker: _TRANSPORT'"
    assert (record.name, record.__dict__["events"]) == ("audit_sdk", 3)


def test_why_the_broker_takes_nothing_is_said_once_until_it_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path / "spool")
    world.broker.up = False
    publisher = world.publisher()
    item = publisher.accept(FAMILY, lambda _sequence: (b"k", b"v"), DeliveryClass.FAIL_CLOSED)
    assert item is not None
    with pytest.raises(NotDelivered):
        publisher.wait(item, "1", 0.5)

    for _ in range(3):
        world.broker.say(KafkaError(KafkaError._AUTHENTICATION, "127.0.0.1:9092: after 3 ms"))

    with pytest.raises(NotDelivered, match="broker: _AUTHENTICATION"):
        publisher.wait(item, "1", 0.1)
    said = [r.getMessage() for r in caplog.records if "_AUTHENTICATION" in r.getMessage()]
    assert said == ["audit_delivery_waits why='broker: _AUTHENTICATION'"]
    world.broker.up = True
    publisher.wait(item, "1", 5.0)
    assert publisher._sender.refusal == ""
    world.end()
