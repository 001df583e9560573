"""The Go SDK on a real broker and registry: ends, crashes, and a broker that is away."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from audit_sdk import Audit, murmur2

from tests.acceptance.raw_topics import PARTITIONS, RawTopics
from tests.acceptance.records import ROOT
from tests.proxy import Fault, FaultProxy
from tests.sizes import FULL

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.needs("go"),
]

SDK = ROOT / "sdk" / "go"
AWAY_S = 60 if FULL else 3
AWAY_CALLS = 35_000 if FULL else 3_000  # two milliseconds apart


@dataclass(frozen=True)
class Call:
    """What one call of the program came to."""

    event_id: str  # "-": it failed
    took_us: int
    error: str


class Program:
    """``sdk/go/internal/program`` as a process. What it prints goes to a file: nobody reads it meanwhile."""

    def __init__(self, path: Path, *words: str, **env: str) -> None:
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the program
        self.process = subprocess.Popen(
            [path, *words],
            env={**os.environ, **env},
            stdout=self._out,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self, status: int = 0) -> list[Call]:
        _out, errors = self.process.communicate(timeout=180)
        assert self.process.returncode == status, errors
        self._out.seek(0)
        calls = (line.split(" ", 2) for line in self._out.read().splitlines())
        return [Call(event_id, int(took), error) for event_id, took, error in calls]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("go") / "program"
    subprocess.run(["go", "build", "-o", path, "./internal/program"], cwd=SDK, check=True)
    return path


def ids(calls: list[Call]) -> list[str]:
    assert {call.error for call in calls} == {"<nil> <nil>"}
    return [call.event_id for call in calls]


def test_every_event_goes_where_its_key_says_in_order_with_sequences_without_holes(
    topic: RawTopics, program: Path
) -> None:
    sent = ids(Program(program, "-count=2000").ended())

    found = topic.records()
    assert Counter(str(event["event_id"]) for _, _, event in found) == Counter(sent)
    for partition, key, event in found:
        assert key == f"acme/{event['actor']['id']}".encode()
        assert murmur2(key) % PARTITIONS == partition
    assert sorted(event["producer"]["sequence"] for _, _, event in found) == list(range(2_000))
    for wanted in range(PARTITIONS):
        sequences = [event["producer"]["sequence"] for at, _, event in found if at == wanted]
        assert sequences == sorted(sequences)


def test_sigterm_drains(topic: RawTopics, program: Path) -> None:
    running = Program(program, "-count=300", "-wait")
    assert running.process.stderr is not None
    assert running.process.stderr.readline() == "published\n"
    running.process.send_signal(signal.SIGTERM)
    sent = ids(running.ended())

    assert len(sent) == 300
    assert topic.ids() == Counter(sent)


def killed_while_the_broker_is_away(
    program: Path, topic: RawTopics, line: FaultProxy, spool_dir: Path
) -> list[str]:
    """The ids of what a process had accepted when it was killed; the broker lacks some of them."""
    behind = {"AUDIT_KAFKA_BOOTSTRAP": line.address, "AUDIT_SPOOL_DIR": str(spool_dir)}
    running = Program(program, "-count=10000", "-pause=5ms", **behind)
    time.sleep(3.0)
    line.set(Fault.DOWN)
    time.sleep(1.0)
    running.process.kill()
    sent = ids(running.ended(-signal.SIGKILL))
    assert set(sent) - topic.ids().keys(), "the broker was away and has everything"
    line.set(Fault.NONE)
    return sent


def test_a_killed_process_loses_nothing_that_was_spooled(
    topic: RawTopics, line: FaultProxy, program: Path, tmp_path: Path
) -> None:
    sent = killed_while_the_broker_is_away(program, topic, line, tmp_path)

    after = ids(Program(program, "-count=10", AUDIT_SPOOL_DIR=str(tmp_path)).ended())

    arrived = topic.ids_of_killed([*sent, *after])
    assert sum(arrived.values()) < 2 * len(arrived)  # some came twice: the same events
    assert list(tmp_path.iterdir()) == []


def test_a_python_process_sends_what_a_go_process_has_left(
    topic: RawTopics, line: FaultProxy, program: Path, tmp_path: Path
) -> None:
    sent = killed_while_the_broker_is_away(program, topic, line, tmp_path)

    with Audit("sdk-test", tenant="acme", spool_dir=tmp_path) as audit:
        actor = {"type": "user", "tenant": "acme", "id_type": "user_id", "id": "sdk-1"}
        own = audit.login(actor=actor)
        assert audit.flush(30.0) == 0

    topic.ids_of_killed([*sent, own])
    assert list(tmp_path.iterdir()) == []


def test_a_broker_that_is_away_delays_no_call_and_loses_nothing(
    topic: RawTopics, line: FaultProxy, program: Path, tmp_path: Path
) -> None:
    running = Program(
        program,
        f"-count={AWAY_CALLS}",
        "-pause=2ms",
        "-buffer-bytes=100000",
        AUDIT_KAFKA_BOOTSTRAP=line.address,
        AUDIT_SPOOL_DIR=str(tmp_path),
    )
    time.sleep(2.0)
    line.set(Fault.DOWN)
    time.sleep(AWAY_S)
    line.set(Fault.NONE)
    calls = running.ended()

    assert topic.ids().keys() == set(ids(calls))
    assert max(call.took_us for call in calls) < 1_000_000
    assert list(tmp_path.iterdir()) == []


def test_fail_closed_returns_with_the_event_on_the_broker_or_fails(
    topic: RawTopics, line: FaultProxy, program: Path
) -> None:
    behind = {"AUDIT_KAFKA_BOOTSTRAP": line.address}
    words = ("-class=fail_closed", "-close-timeout=500ms")
    sent = ids(Program(program, *words, "-count=1", "-fail-closed-timeout=20s", **behind).ended())
    assert topic.ids() == Counter(sent)

    line.set(Fault.DOWN)
    words = (*words, "-count=1", "-fail-closed-timeout=500ms")
    (call,) = Program(program, *words, **behind).ended()

    assert call.event_id == "-"
    assert call.error.startswith("*auditsdk.NotDelivered event ")
    assert 500_000 <= call.took_us < 2_000_000


def test_an_event_that_breaks_its_contract_reaches_no_broker(
    topic: RawTopics, program: Path
) -> None:
    (call,) = Program(program, "-count=1", "-tenant=").ended()

    assert call.error.startswith("*auditsdk.InvalidEvent authentication: tenant: is missing")
    assert topic.ids() == Counter()
