"""Kafka: brokers, topics, and the clock that events are judged by."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.domain.errors import Unavailable
from pipeline.entrypoints.cli.checks import Finding
from pipeline.entrypoints.cli.doctor_database import clock_finding
from pipeline.entrypoints.cli.kafka import (
    admin_client,
    kafka_errors,
    producer,
    raise_refusal,
    translated,
)
from pipeline.entrypoints.cli.topics import (
    DOCTOR_TOPIC,
    MORE_REPLICAS,
    TopicState,
    check_topics,
    too_few_replicas,
    topic_specs,
)

if TYPE_CHECKING:
    from pipeline.settings import Settings


def brokers(settings: Settings) -> Sequence[Finding]:
    """They answer, and are enough for the replication factor."""
    admin = admin_client(settings)
    with kafka_errors("listing brokers", admin):
        found = admin.list_topics(timeout=settings.request_timeout_s)
    count = len(found.brokers)
    detail = f"{count} brokers, cluster {found.cluster_id}"
    if count < settings.replication_factor:
        advice = "start more brokers, or lower AUDIT_REPLICATION_FACTOR"
        detail += f", replication factor {settings.replication_factor}"
        return [Finding("kafka", "fail", detail, advice)]
    return [Finding("kafka", "ok", detail)]


def topics(settings: Settings) -> Sequence[Finding]:
    """Each topic is there, with its partitions and configuration, and the replicas that it could have."""
    admin = admin_client(settings)
    states = check_topics(admin, topic_specs(settings), settings.request_timeout_s)
    wrong = [_topic(state) for state in states if state.state != "ok"]
    found = wrong or [Finding("kafka topics", "ok", f"{len(states)} topics as they must be")]
    return found + replicas(too_few_replicas(admin, settings))


def replicas(too_few: str) -> list[Finding]:
    """A warning, if there are too few."""
    return [Finding("kafka replicas", "warn", too_few, MORE_REPLICAS)] if too_few else []


def clock(settings: Settings) -> Sequence[Finding]:
    """The broker's clock, from the timestamp that it gives a probe; also that we may produce."""
    stamps: list[float] = []
    failures: list[Exception] = []

    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            failures.append(translated(error, f"topic {DOCTOR_TOPIC}"))
        else:
            stamps.append(message.timestamp()[1] / 1000)

    timeout_ms = int(settings.request_timeout_s * 1000)
    probe = producer(settings, **{"linger.ms": 0, "delivery.timeout.ms": timeout_ms})
    before = time.time()
    with kafka_errors(f"topic {DOCTOR_TOPIC}", probe):
        probe.produce(DOCTOR_TOPIC, key=b"doctor", value=b"", on_delivery=delivered)
        probe.flush(settings.request_timeout_s)
    after = time.time()
    if not stamps:
        raise_refusal(probe, f"topic {DOCTOR_TOPIC}")
    if failures:
        raise failures[0]
    if not stamps:
        raise Unavailable("kafka", f"no acknowledgement within {settings.request_timeout_s:g} s")
    # The broker's stamp is in whole milliseconds, rounded down.
    return [clock_finding("kafka", stamps[0], before - 0.001, after)]


def _topic(state: TopicState) -> Finding:
    if state.state == "missing":
        return Finding(f"topic {state.name}", "fail", "missing", "run: audit-trail topics create")
    advice = "run: audit-trail topics create --fix (partitions stay)"
    return Finding(f"topic {state.name}", "warn", state.detail, advice)
