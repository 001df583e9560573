"""The Node.js SDK on a real broker and registry: ends, crashes, and a broker that is away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from audit_sdk import murmur2

from tests.acceptance.raw_topics import PARTITIONS, RawTopics
from tests.acceptance.records import ROOT, wait_until
from tests.proxy import Fault, FaultProxy
from tests.sizes import FULL

SDK = ROOT / "sdk" / "nodejs"
PROGRAM = ROOT / "tests" / "acceptance" / "sdk_program.mjs"
AWAY_S = 60 if FULL else 3
AWAY_CALLS = 40_000 if FULL else 3_000  # two milliseconds apart
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.needs("node"),
]


class Program:
    """``sdk_program.mjs``, running. What it prints goes to a file: nobody reads it meanwhile."""

    def __init__(
        self, what: str, count: int, env: dict[str, str] | None = None, **options: Any
    ) -> None:
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the program
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            ["node", str(PROGRAM), what, str(count), json.dumps(options)],
            env={**os.environ, **(env or {})},
            stdout=self._out,
            stderr=self._errors,
        )

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def ended(self, status: int = 0) -> list[str]:
        """The ids that it was given, once it ends."""
        assert self.process.wait(120) == status, self.errors()
        self._out.seek(0)
        return self._out.read().split()


def test_every_event_goes_where_its_key_says_in_order_with_sequences_without_holes(
    topic: RawTopics,
) -> None:
    program = Program("close", 5_000)
    sent = program.ended()
    assert program.errors() == ""  # heartbeats were taken, too

    found = topic.records()
    assert Counter(str(event["event_id"]) for _, _, event in found) == Counter(sent)
    for partition, key, event in found:
        assert key == f"acme/{event['actor']['id']}".encode()
        assert murmur2(key) % PARTITIONS == partition
    assert sorted(event["producer"]["sequence"] for _, _, event in found) == list(range(5_000))
    for wanted in range(PARTITIONS):
        sequences = [event["producer"]["sequence"] for at, _, event in found if at == wanted]
        assert sequences == sorted(sequences)


@pytest.mark.parametrize(("what", "status"), [("return", 0), ("exit", 0), ("throw", 1)])
def test_a_short_job_that_nobody_closes_loses_nothing(
    topic: RawTopics, what: str, status: int
) -> None:
    sent = Program(what, 300).ended(status)

    assert len(sent) == 300
    assert topic.ids() == Counter(sent)


@pytest.mark.parametrize("what", ["return", "exit"])
def test_a_short_job_whose_broker_is_away_ends_when_its_time_is_over(what: str) -> None:
    began = time.monotonic()
    program = Program(what, 10, closeTimeoutS=1, bootstrap="127.0.0.1:9")

    assert len(program.ended()) == 10
    assert "audit_events_lost" in program.errors()
    assert time.monotonic() - began < 10.0  # starting Node.js on a busy machine included


@pytest.mark.parametrize(("what", "status"), [("wait", -signal.SIGTERM), ("handled", 7)])
def test_sigterm_drains(topic: RawTopics, what: str, status: int) -> None:
    program = Program(what, 300)
    wait_until(lambda: "published\n" in program.errors())
    program.process.send_signal(signal.SIGTERM)
    sent = program.ended(status)

    assert len(sent) == 300
    assert topic.ids() == Counter(sent)


def test_each_process_of_a_cluster_has_an_epoch_and_a_spool_of_its_own(
    topic: RawTopics, tmp_path: Path
) -> None:
    sent = Program("cluster", 200, {"AUDIT_SPOOL_DIR": str(tmp_path)}, instance="one-name").ended()
    assert len(sent) == 600

    found = topic.records()
    assert Counter(str(event["event_id"]) for _, _, event in found) == Counter(sent)
    producers: dict[int, list[int]] = {}
    for _, _, event in found:
        producer = event["producer"]
        producers.setdefault(producer["epoch"], []).append(producer["sequence"])
    assert [sorted(sequences) for sequences in producers.values()] == [list(range(200))] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_loses_nothing_that_was_spooled(
    topic: RawTopics, line: FaultProxy, tmp_path: Path
) -> None:
    behind = {"AUDIT_KAFKA_BOOTSTRAP": line.address, "AUDIT_SPOOL_DIR": str(tmp_path)}
    program = Program("steadily", 10_000, behind)
    time.sleep(5.0)
    line.set(Fault.DOWN)
    time.sleep(1.0)
    program.process.kill()
    sent = program.ended(-signal.SIGKILL)
    lost = set(sent) - topic.ids().keys()
    assert lost, "the broker was away and has everything"
    line.set(Fault.NONE)

    after = Program("exit", 10, behind).ended()

    arrived = topic.ids_of_killed([*sent, *after])
    assert sum(arrived.values()) < 2 * len(arrived)  # some came twice: the same events
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.SILENT])
def test_a_broker_that_is_away_delays_no_call_and_loses_nothing(
    topic: RawTopics, line: FaultProxy, tmp_path: Path, fault: Fault
) -> None:
    program = Program(
        "measured",
        AWAY_CALLS,
        bootstrap=line.address,
        spoolDir=str(tmp_path),
        bufferBytes=100_000,
        requestTimeoutS=1,
    )
    time.sleep(3.0)
    line.set(fault)
    time.sleep(AWAY_S)
    line.set(Fault.NONE)
    sent = program.ended()
    errors = program.errors()
    figures = json.loads(errors[errors.index('{"slowestMs"') :])

    assert figures["left"] == 0
    assert topic.ids().keys() == set(sent)
    assert figures["slowestMs"] < 500
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_is_cut_again_and_again_keeps_order_and_doubles_little(
    topic: RawTopics, line: FaultProxy
) -> None:
    program = Program("measured", 2_500, bootstrap=line.address, requestTimeoutS=1)
    for _ in range(6):
        time.sleep(1.2)
        line.set(Fault.DOWN)
        time.sleep(0.3)
        line.set(Fault.NONE)
    sent = program.ended()

    first: dict[int, list[int]] = {}
    seen = set()
    for partition, _key, event in topic.records():
        if event["event_id"] not in seen:
            seen.add(event["event_id"])
            first.setdefault(partition, []).append(event["producer"]["sequence"])
    assert {str(one) for one in seen} == set(sent)
    for sequences in first.values():
        assert sequences == sorted(sequences)


def test_fail_closed_returns_with_the_event_on_the_broker_or_raises(
    topic: RawTopics, line: FaultProxy
) -> None:
    closed = {"delivery": {"authentication": "fail_closed"}, "bootstrap": line.address}
    program = Program("confirmed", 1, **closed, failClosedTimeoutS=30)
    sent = program.ended()
    assert program.errors().endswith("confirmed")
    assert topic.ids() == Counter(sent)

    line.set(Fault.DOWN)
    program = Program("confirmed", 1, **closed, failClosedTimeoutS=0.5)
    assert program.ended() == []
    assert "NotDelivered" in program.errors()
