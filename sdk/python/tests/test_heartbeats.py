"""What a producer says about itself, and what becomes of that when the trail does not take it."""

from __future__ import annotations

import time
from typing import Any

from audit_sdk import AuditConfigurationError, Metrics
from audit_sdk.context import audit_context
from audit_sdk.progress import Dropped
from hypothesis import given
from hypothesis import strategies as st
from recorded import Recorded

ACTOR = {"type": "user", "tenant": "acme", "id_type": "user_id", "id": "u-1"}
RECORD = {"tenant": "acme", "type": "record", "id": "r-1"}
TOPIC = "audit.raw.system"


def beats(audit: Recorded) -> list[dict[str, Any]]:
    return [event for event in audit.events() if event["action"] == "producer.heartbeat"]


def read(audit: Recorded, count: int = 1) -> None:
    for _ in range(count):
        audit.data_access("record.read", "read", actor=ACTOR, resources=[RECORD])


def test_the_first_event_brings_a_heartbeat_and_the_end_a_final_one() -> None:
    audit = Recorded(heartbeat_s=3_600.0, instance="records-0")
    read(audit, 3)
    audit.flush(5.0)
    with audit_context(source={"ip": "192.0.2.1"}, actor=ACTOR):  # not the heartbeat's
        audit.login(actor=ACTOR)
        audit.close()

    first, last = beats(audit)
    assert [one["producer"]["sequence"] for one in (first, last)] == [0, 1]
    assert first["heartbeat"]["final"] is False
    assert first["heartbeat"]["interval_s"] == 3_600
    assert {one["topic"] for one in first["topics"]} == {"audit.raw.data-access"}
    assert last["actor"]["type"] == "system"
    assert last["source"] is None
    assert last["heartbeat"]["final"] is True
    topics = {one["topic"]: one for one in last["topics"]}
    assert topics["audit.raw.data-access"] == {
        "topic": "audit.raw.data-access",
        "accepted": 3,
        "delivered": 3,
        "refused": 0,
        "dropped": [],
    }
    assert topics["audit.raw.authentication"]["accepted"] == 1


def test_they_come_at_each_interval_while_nothing_else_is_sent() -> None:
    with Recorded(heartbeat_s=0.2) as audit:
        read(audit)
        deadline = time.monotonic() + 10.0
        while len(beats(audit)) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    assert [one["heartbeat"]["interval_s"] for one in beats(audit)[:4]] == [1] * 4


def test_what_was_dropped_is_in_the_next_one() -> None:
    audit = Recorded(heartbeat_s=3_600.0, buffer_bytes=3_000)
    audit.producer.away = True
    read(audit, 50)
    audit.producer.away = False
    audit.close()

    (entry,) = beats(audit)[-1]["topics"]
    assert entry["refused"] == 50 - entry["accepted"] > 0
    assert entry["delivered"] == entry["accepted"]
    assert audit.dropped["audit.raw.data-access"].refused == entry["refused"]


def test_nobody_sends_one_without_a_tenant_or_without_an_event() -> None:
    with Recorded(tenant=None, heartbeat_s=0.1) as audit:
        audit.data_access("record.read", "read", tenant="acme", actor=ACTOR, resources=[RECORD])
        time.sleep(0.3)
    assert beats(audit) == []

    with Recorded(heartbeat_s=0.1) as silent:
        pass
    assert silent.producer.records == []

    with Recorded(tenant=None, heartbeat_tenant="globex", heartbeat_s=3_600.0) as audit:
        audit.data_access("record.read", "read", tenant="acme", actor=ACTOR, resources=[RECORD])
    assert {one["tenant"] for one in beats(audit)} == {"globex"}


class Told(Metrics):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def dropped(self, family: str, count: int, reason: str) -> None:
        self.seen.append((family, reason))


def test_a_registry_that_does_not_know_heartbeats_keeps_no_event_waiting() -> None:
    class Older(Recorded):
        def _make_ids(self) -> Any:
            class Ids:
                def ask(self, family: str) -> int:
                    if family == "system":
                        raise AuditConfigurationError("the schema of system is not registered")
                    return 7

            return Ids()

    told = Told()
    audit = Older(heartbeat_s=3_600.0, metrics=told)
    read(audit, 5)

    assert audit.close() == 0
    assert len(audit.producer.records) == 5
    assert told.seen == [("system", "not_registered")] * 2


@given(st.lists(st.integers(0, 100), max_size=80))
def test_ranges_hold_each_sequence_in_whatever_order_they_come(sequences: list[int]) -> None:
    dropped = Dropped()
    for sequence in sequences:
        dropped.add(sequence)

    held = [number for first, last in dropped.ranges for number in range(first, last + 1)]
    assert held == sorted(set(sequences))
    assert all(
        one[1] + 1 < following[0]
        for one, following in zip(dropped.ranges, dropped.ranges[1:], strict=False)
    )


def test_ranges_are_joined_and_bounded() -> None:
    dropped = Dropped()
    for sequence in (1, 2, 3, 7):
        dropped.add(sequence)
    assert dropped.ranges == [[1, 3], [7, 7]]

    for sequence in range(10, 10 + 2 * 63, 2):
        dropped.add(sequence)
    assert len(dropped.ranges) == 64
    assert dropped.ranges[0] == [1, 7]
    assert dropped.ranges[-1] == [134, 134]
