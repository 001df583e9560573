"""Batches that inflate, and partitions in which everything is bad: they wait for a person, the others go on."""

from __future__ import annotations

import gzip
import subprocess
import time
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

import avro_schemas
from pipeline.codec.wire import frame
from pipeline.settings import Settings
from pipeline.testing import an_actor, an_event
from tests.acceptance.records import (
    FAMILY,
    an_acme_event,
    body,
    cli,
    letters,
    next_offset,
    peak_rss_mb,
    publish,
    ready,
    stored,
    wait_until,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_a_partition_full_of_reused_ids_pauses(
    settings: Settings, registered: dict[str, int], fresh_worker: subprocess.Popen[bytes]
) -> None:
    family = "security-change"  # its topic is never replaced, so no offset means two records
    topic, schema = f"audit.raw.{family}", registered[family]

    def a_body(action: str) -> bytes:
        event = an_event(family, tenant="acme", actor=an_actor(tenant="acme"))
        changed = {"event_id": event_id, "occurred_at": now_us, "action": action}
        return body({**event, **changed}, avro_schemas.load(family))

    event_id, now_us = str(uuid4()), int(time.time() * 1e6)
    publish(settings, 1, frame(schema, a_body("role.grant")), topic=topic)
    others = [frame(schema, a_body(f"role.grant-{number}")) for number in range(600)]
    publish(settings, 1, *others, topic=topic)

    def pause() -> str:
        found = ready().get("partitions", [])
        return next((p["paused"] for p in found if (p["topic"], p["partition"]) == (topic, 1)), "")

    wait_until(pause)
    cli("resume", topic, "1")
    wait_until(lambda: not pause())
    assert stored(settings, {event_id}) == {event_id}
    assert fresh_worker.poll() is None


def test_batches_that_inflate_to_200_mb_together_are_taken_one_after_the_other(
    settings: Settings, registered: dict[str, int], fresh_worker: subprocess.Popen[bytes]
) -> None:
    topic = "audit.raw.profile-update"
    good = an_acme_event()
    later = publish(settings, 1, frame(registered[FAMILY], body(good)))
    # Each within its bound; all of them on the wire are 200 kilobytes.
    offsets = publish(
        settings,
        2,
        *[frame(registered["profile-update"], bytes(10_000_000))] * 20,
        topic=topic,
        **{"batch.num.messages": 1, "compression.type": "gzip"},
    )
    wait_until(lambda: next_offset(settings, 2, topic) > offsets[-1], 120)
    wait_until(lambda: next_offset(settings, 1) > later[-1])

    assert peak_rss_mb(fresh_worker) < 400
    assert {(topic, 2, offset) for offset in offsets} <= letters().keys()
    assert stored(settings, {good["event_id"]})
    assert fresh_worker.poll() is None


def test_a_batch_that_would_inflate_to_500_mb_stops_its_partition_alone(
    settings: Settings, registered: dict[str, int], fresh_worker: subprocess.Popen[bytes]
) -> None:
    topic = "audit.raw.profile-update"
    assert len(gzip.compress(bytes(10_000_000))) < 15_000_000
    before = publish(settings, 3, frame(registered[FAMILY], b"x"), topic=topic)
    # Fifty values of 10 MB in one batch of a few kilobytes.
    offsets = publish(
        settings,
        3,
        *[bytes(10_000_000)] * 50,
        topic=topic,
        **{
            "message.max.bytes": 600_000_000,
            "batch.size": 600_000_000,
            "linger.ms": 3_000,
            "queue.buffering.max.kbytes": 2_000_000,
            "compression.type": "gzip",
        },
    )
    good = an_acme_event()
    later = publish(settings, 1, frame(registered[FAMILY], body(good)))

    def stopped() -> dict[str, Any] | None:
        for partition in ready().get("partitions", []):
            if (partition["topic"], partition["partition"]) == (topic, 3):
                return partition if partition["paused"] else None  # type: ignore[no-any-return]
        return None

    wait_until(stopped)
    wait_until(lambda: next_offset(settings, 1) > later[-1])

    why = (stopped() or {})["paused"]
    assert str(offsets[0]) in why
    assert before[0] < offsets[0]
    assert stored(settings, {good["event_id"]})
    assert fresh_worker.poll() is None

    # A person gives the batch up: it is deleted from the topic, and the ledger told so.
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    beyond = TopicPartition(topic, 3, offsets[-1] + 1)
    admin.delete_records([beyond])[beyond].result(30)
    cli("open-epoch", topic, "3", "--yes")
    wait_until(lambda: not stopped(), 60)
    assert fresh_worker.poll() is None


def test_a_partition_that_is_all_bad_pauses_and_is_resumed(
    settings: Settings, registered: dict[str, int], fresh_worker: subprocess.Popen[bytes]
) -> None:
    topic = "audit.raw.security-change"
    offsets = publish(settings, 2, *[b"\x09 rubbish"] * 400, topic=topic)
    good = an_acme_event()
    later = publish(settings, 1, frame(registered[FAMILY], body(good)))

    def pause() -> str:
        for partition in ready().get("partitions", []):
            if (partition["topic"], partition["partition"]) == (topic, 2):
                return str(partition["paused"])
        return ""

    wait_until(pause)
    wait_until(lambda: next_offset(settings, 1) > later[-1])
    assert stored(settings, {good["event_id"]})

    cli("resume", topic, "2")
    wait_until(lambda: not pause())
    found = letters()
    assert {(topic, 2, offset) for offset in offsets} <= found.keys()
    assert fresh_worker.poll() is None
