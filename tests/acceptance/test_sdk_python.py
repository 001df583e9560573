"""The Python SDK on a real broker and registry: ends, forks, crashes, and a broker that is away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from audit_sdk import Audit, DeliveryClass, InvalidEvent, NotDelivered, murmur2

from tests.acceptance.raw_topics import PARTITIONS, RawTopics
from tests.acceptance.records import ROOT, an_acme_event
from tests.proxy import Fault, FaultProxy
from tests.sizes import FULL

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
]

PROGRAM = ROOT / "tests" / "acceptance" / "sdk_program.py"
AWAY_CALLS = 30_000 if FULL else 2_000  # two milliseconds apart
ACTOR = {"type": "user", "tenant": "acme", "id_type": "user_id", "id": "sdk-1"}


def start(what: str, count: int, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), what, str(count)],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], status: int = 0) -> list[str]:
    """The ids that the program was given."""
    out, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    return out.split()


def test_every_event_goes_where_its_key_says_in_order_with_sequences_without_holes(
    topic: RawTopics,
) -> None:
    with Audit("sdk-test", tenant="acme") as audit:
        sent = [audit.login(actor={**ACTOR, "id": f"sdk-{number % 40}"}) for number in range(2_000)]
        assert audit.flush(30.0) == 0

    found = topic.records()
    assert Counter(str(event["event_id"]) for _, _, event in found) == Counter(sent)
    for partition, key, event in found:
        assert key == f"acme/{event['actor']['id']}".encode()
        assert murmur2(key) % PARTITIONS == partition
    assert sorted(event["producer"]["sequence"] for _, _, event in found) == list(range(2_000))
    for wanted in range(PARTITIONS):
        sequences = [event["producer"]["sequence"] for at, _, event in found if at == wanted]
        assert sequences == sorted(sequences)


@pytest.mark.parametrize("what", ["return", "exit"])
def test_a_short_job_that_nobody_closes_loses_nothing(topic: RawTopics, what: str) -> None:
    sent = ended(start(what, 300))

    assert len(sent) == 300
    assert topic.ids() == Counter(sent)


def test_sigterm_drains(topic: RawTopics) -> None:
    process = start("wait", 300)
    assert process.stderr is not None
    assert process.stderr.readline() == "published\n"
    process.send_signal(signal.SIGTERM)
    sent = ended(process, -signal.SIGTERM)

    assert len(sent) == 300
    assert topic.ids() == Counter(sent)


def test_a_forked_process_publishes_its_own_and_doubles_nothing(
    topic: RawTopics, tmp_path: Path
) -> None:
    sent = ended(start("fork", 200, AUDIT_SPOOL_DIR=str(tmp_path)))
    assert len(sent) == 600

    found = topic.records()
    assert Counter(str(event["event_id"]) for _, _, event in found) == Counter(sent)
    producers: dict[tuple[Any, Any], list[int]] = {}
    for _, _, event in found:
        producer = event["producer"]
        of = producers.setdefault((producer["instance"], producer["epoch"]), [])
        of.append(producer["sequence"])
    assert sorted(len(sequences) for sequences in producers.values()) == [200, 400]
    for sequences in producers.values():
        assert sorted(sequences) == list(range(len(sequences)))
    assert list(tmp_path.iterdir()) == []


def test_a_child_of_multiprocessing_that_nobody_closes_loses_nothing(topic: RawTopics) -> None:
    sent = ended(start("child", 200))

    assert len(sent) == 400
    assert topic.ids() == Counter(sent)


def test_a_killed_process_loses_nothing_that_was_spooled(
    topic: RawTopics, line: FaultProxy, tmp_path: Path
) -> None:
    behind = {"AUDIT_KAFKA_BOOTSTRAP": line.address, "AUDIT_SPOOL_DIR": str(tmp_path)}
    process = start("steadily", 10_000, **behind)
    time.sleep(3.0)
    line.set(Fault.DOWN)
    time.sleep(1.0)
    process.kill()
    sent = ended(process, -signal.SIGKILL)
    lost = set(sent) - topic.ids().keys()
    assert lost, "the broker was away and has everything"
    line.set(Fault.NONE)

    after = ended(start("exit", 10, **behind))

    arrived = topic.ids_of_killed([*sent, *after])
    assert sum(arrived.values()) < 2 * len(arrived)  # some came twice: the same events
    assert list(tmp_path.iterdir()) == []


def test_a_broker_that_is_away_delays_no_call_and_loses_nothing(
    topic: RawTopics, line: FaultProxy, tmp_path: Path
) -> None:
    slowest, sent = 0.0, []
    with Audit(
        "sdk-test", tenant="acme", bootstrap=line.address, spool_dir=tmp_path, buffer_bytes=100_000
    ) as audit:
        for number in range(AWAY_CALLS + 1_000):
            if number == 500:
                line.set(Fault.DOWN)
            if number == AWAY_CALLS + 500:
                line.set(Fault.NONE)
            began = time.monotonic()
            sent.append(audit.login(actor={**ACTOR, "id": f"sdk-{number % 40}"}))
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.002)
        assert audit.flush(60.0) == 0

    assert topic.ids().keys() == set(sent)
    assert slowest < 1.0
    assert list(tmp_path.iterdir()) == []


def test_fail_closed_returns_with_the_event_on_the_broker_or_raises(
    topic: RawTopics, line: FaultProxy
) -> None:
    with Audit(
        "sdk-test",
        tenant="acme",
        bootstrap=line.address,
        delivery={"authentication": DeliveryClass.FAIL_CLOSED},
        fail_closed_timeout_s=20.0,
        close_timeout_s=0.5,
    ) as audit:
        sent = audit.login(actor=ACTOR)
        assert topic.ids() == Counter([sent])
    line.set(Fault.DOWN)
    with Audit(
        "sdk-test",
        tenant="acme",
        bootstrap=line.address,
        delivery={"authentication": "fail_closed"},
        fail_closed_timeout_s=0.5,
        close_timeout_s=0.5,
    ) as audit:
        began = time.monotonic()
        with pytest.raises(NotDelivered):
            audit.login(actor=ACTOR)
        assert time.monotonic() - began < 2.0


def test_an_event_that_breaks_its_contract_reaches_no_broker(topic: RawTopics) -> None:
    event = an_acme_event()
    del event["tenant"]
    with Audit("sdk-test") as audit:
        with pytest.raises(InvalidEvent, match=r"tenant: is missing \[required\]"):
            audit.emit("authentication", event)
        assert audit.flush(5.0) == 0

    assert topic.ids() == Counter()
