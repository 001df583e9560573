"""How the relay begins and ends: what a start that cannot succeed says, and an end in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.raw_topics import RawTopics
from tests.acceptance.records import ROOT
from tests.acceptance.relay_process import RelayProcess, a_relay_process
from tests.proxy import Fault, FaultProxy
from tests.relay_support import a_batch

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module")
def relay(
    registered: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RelayProcess]:
    with a_relay_process(tmp_path_factory.mktemp("relay")) as made:
        yield made


def test_sigterm_answers_what_is_open_and_ends_in_order(
    registered: dict[str, int], raw: RawTopics, line: FaultProxy, tmp_path: Path
) -> None:
    with a_relay_process(
        tmp_path,
        AUDIT_KAFKA_BOOTSTRAP=line.address,
        AUDIT_RELAY_ACK_TIMEOUT_S="8",
        AUDIT_RELAY_HEARTBEAT_TENANT="acme",
    ) as relay:
        token, batch = relay.token(), a_batch()
        assert relay.post(a_batch(), token)[0] == 202
        line.set(Fault.SILENT)
        answers: list[int] = []
        sending = threading.Thread(target=lambda: answers.append(relay.post(batch, token)[0]))
        sending.start()
        time.sleep(1)
        relay.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        line.set(Fault.NONE)
        sending.join(20)
        assert answers == [202]
        assert relay.process.wait(20) == 0

    events = raw.events()
    beats = [one for one in events if one["action"] == "producer.heartbeat"]
    assert beats[-1]["heartbeat"]["final"]
    assert beats[-1]["topics"][0]["delivered"] == 2
    logged = (tmp_path / "relay.log").read_text()
    assert token.rpartition(".")[2] not in logged
    assert "i-58d1" not in logged


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"AUDIT_RELAY_ALLOW_FILE": ""}, "AUDIT_RELAY_ALLOW_FILE"),
        ({"AUDIT_RELAY_ALLOW_FILE": "/nowhere"}, "cannot be read"),
        ({"AUDIT_RELAY_TOKEN_KEY_FILE": ""}, "takes no tokens"),
        ({"AUDIT_RELAY_PORT": "x"}, "AUDIT_RELAY_PORT"),
    ],
)
def test_a_start_that_cannot_succeed_says_what_to_mend(
    relay: RelayProcess, env: dict[str, str], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", "relay", "serve"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **relay.env, "AUDIT_RELAY_ISSUER": "", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_a_port_that_is_taken_is_named(relay: RelayProcess) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", "relay", "serve"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **relay.env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ended.returncode == 2, ended.stderr
    assert "set AUDIT_RELAY_HOST or AUDIT_RELAY_PORT" in ended.stderr
