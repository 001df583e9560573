"""Producers that use transactions: what is committed is stored, and lag ends at 0 behind the markers."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer

import avro_schemas
from pipeline.codec.wire import frame
from pipeline.settings import Settings
from pipeline.testing import an_event
from tests.acceptance.records import an_acme_event, body, cli, stored

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

FAMILY = (
    "security-change"  # its topic is never replaced, and nothing else of it is on these partitions
)
TOPIC = f"audit.raw.{FAMILY}"


def an_event_of(family: str) -> dict[str, Any]:
    made = an_acme_event()
    same = {name: made[name] for name in ("event_id", "occurred_at", "tenant", "actor")}
    return an_event(family, **same)


def test_a_drained_worker_is_at_the_end_behind_the_markers_of_transactions(
    settings: Settings, registered: dict[str, int]
) -> None:
    producer = Producer(
        {"bootstrap.servers": settings.kafka_bootstrap, "transactional.id": str(uuid4())}
    )
    producer.init_transactions(60)

    def transaction(*partitions: int, commit: bool) -> set[str]:
        events = [an_event_of(FAMILY) for _ in partitions]
        producer.begin_transaction()
        for event, partition in zip(events, partitions, strict=True):
            value = frame(registered[FAMILY], body(event, avro_schemas.load(FAMILY)))
            producer.produce(TOPIC, value, b"acme/u-1", partition)
        producer.flush(60)
        (producer.commit_transaction if commit else producer.abort_transaction)(60)
        return {event["event_id"] for event in events}

    kept = transaction(2, 3, commit=True)
    gone = transaction(3, commit=False)
    cli("worker", "--drain", AUDIT_HTTP_PORT="0", AUDIT_SESSION_TIMEOUT_S="6")

    assert stored(settings, kept | gone) == kept
    rows = json.loads(cli("status", "--output", "json"))
    lags = {row["log"]: row["lag_records"] for row in rows if row["log"].startswith(TOPIC)}
    assert set(lags.values()) == {0}, lags
