"""The signer and the log server as processes, beside a worker that ingests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.codec.wire import frame
from pipeline.domain.checkpoints import parse_checkpoint
from pipeline.domain.notes import VerifierKey, parse_note
from pipeline.keys.note_keys import verify_note
from pipeline.settings import Settings
from tests.acceptance.records import (
    ROOT,
    TOPIC,
    an_acme_event,
    body,
    cli,
    make_signing_key,
    publish,
    sign_everything,
)
from tests.witness import Witness, serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def signer(signing: dict[str, str]) -> dict[str, str]:
    """What a signer and a log server are started with."""
    return signing | {
        "AUDIT_SIGNER_INTERVAL_S": "1",
        "AUDIT_SIGNER_HTTP_PORT": str(free_port()),
        "AUDIT_LOG_HTTP_PORT": str(free_port()),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(*words: str, port: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the command line that answers at its port; it ends with 0 when told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.entrypoints.cli", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: fetched(port, "/healthz") is not None)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def until(holds: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "too late"
        time.sleep(0.1)


def fetched(port: str, path: str) -> bytes | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            found: bytes = answer.read()
            return found
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def page(port: str) -> dict[str, Any]:
    return json.loads(fetched(port, "/readyz") or b'{"ready": false, "logs": []}')


def signed(port: str, at_least: int) -> bool:
    """Every log is under a checkpoint, and together they have so many leaves."""
    logs = page(port)["logs"]
    covered = all(log["leaves"] == log["signed"] for log in logs)
    return covered and sum(log["leaves"] for log in logs) >= at_least


def leaves(environment: dict[str, str]) -> int:
    rows = json.loads(cli("status", "-o", "json", **environment))
    return sum(int(row["leaves"]) for row in rows)


def test_events_that_come_in_are_signed_cosigned_served_and_verified(
    settings: Settings,
    registered: dict[str, int],
    worker: subprocess.Popen[bytes],
    signer: dict[str, str],
    tmp_path: Path,
) -> None:
    keys = [VerifierKey.parse(line) for line in vkeys(signer)]
    witnesses = tmp_path / "witnesses"
    before = leaves(signer)
    witness = Witness(tmp_path / "seen.json", keys, origin_prefix=signer["AUDIT_LOG_ORIGIN"])

    with serving(witness):
        witnesses.write_text(f"{witness.url} {witness.key}\n")
        environment = signer | {"AUDIT_WITNESSES_FILE": str(witnesses)}
        with running(
            "signer", "run", port=signer["AUDIT_SIGNER_HTTP_PORT"], **environment
        ) as process:
            records = [
                frame(registered["authentication"], body(an_acme_event())) for _ in range(50)
            ]
            publish(settings, 0, *records)
            until(lambda: signed(signer["AUDIT_SIGNER_HTTP_PORT"], before + 50))
            state = page(signer["AUDIT_SIGNER_HTTP_PORT"])
            metrics = (fetched(signer["AUDIT_SIGNER_HTTP_PORT"], "/metrics") or b"").decode()
            assert process.poll() is None

    with running("log", "serve", port=signer["AUDIT_LOG_HTTP_PORT"], **signer):
        served = fetched(signer["AUDIT_LOG_HTTP_PORT"], f"/{TOPIC}/0/1/checkpoint")
        tile = fetched(signer["AUDIT_LOG_HTTP_PORT"], f"/{TOPIC}/0/1/tile/0/999")
    assert served
    note = parse_note(served)
    checkpoint = parse_checkpoint(note.text)
    assert (state["ready"], state["refused_logs"]) == (True, [])
    assert 'audit_checkpoints_total{topic="audit.raw.authentication"}' in metrics
    assert "audit_signer_refused_logs 0.0" in metrics
    assert verify_note(note, keys) == keys
    assert verify_note(note, [witness.key]) == [witness.key]
    assert checkpoint.origin == f"{signer['AUDIT_LOG_ORIGIN']}/{TOPIC}/0/1"
    assert checkpoint.size >= 50
    assert tile is None


def test_one_round_signs_what_is_there_and_its_exit_status_tells(
    worker: subprocess.Popen[bytes], signer: dict[str, str]
) -> None:
    rows = json.loads(cli("signer", "run", "--once", "-o", "json", **signer))
    assert all(row["state"] in ("signed", "empty", "waits for the archive") for row in rows)

    for broken, status in (
        ({"AUDIT_S3_ENDPOINT_URL": "http://127.0.0.1:9"}, 3),
        ({"AUDIT_SIGNER_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}, 3),
        ({"AUDIT_SIGNING_KEY_FILE": "/nonexistent/signing.json"}, 2),
        ({"AUDIT_VERIFIER_KEYS_FILE": "/nonexistent/keys.txt"}, 2),
        ({"AUDIT_LOG_ORIGIN": "with space"}, 2),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.entrypoints.cli", "signer", "run", "--once"],
            env={**os.environ, "PYTHONPATH": str(ROOT), **signer, **broken},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == status, (broken, done.stderr.decode())


def test_a_log_of_another_history_is_refused_with_exit_status_1(
    worker: subprocess.Popen[bytes], signer: dict[str, str], tmp_path: Path
) -> None:
    cli("signer", "run", "--once", **signer)
    other = signer | {
        "AUDIT_SIGNING_KEY_FILE": str(tmp_path / "other.json"),
        "AUDIT_VERIFIER_KEYS_FILE": str(tmp_path / "other.txt"),
    }
    make_signing_key(other)

    done = subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", "signer", "run", "--once"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **other},
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert b"no trusted key signed" in done.stdout
    assert b"docs/runbooks/refused-log.md" in done.stderr


def test_a_key_is_changed_without_a_break(
    settings: Settings,
    registered: dict[str, int],
    worker: subprocess.Popen[bytes],
    signer: dict[str, str],
) -> None:
    old = vkeys(signer)
    cli("signer", "run", "--once", **signer)
    created = json.loads(cli("signing-key", "create", "-o", "json", **signer))
    signers = [sign_a_record(settings, registered, signer)]
    cli("signing-key", "retire", VerifierKey.parse(old[0]).key_id.hex(), "--yes", **signer)
    signers.append(sign_a_record(settings, registered, signer))

    new = created[0]["vkey"]
    assert signers == [[old[0], new], [new]]
    assert vkeys(signer) == [*old, new]


def test_doctor_sees_origin_keys_role_and_checkpoints(
    worker: subprocess.Popen[bytes], signer: dict[str, str]
) -> None:
    cli("signer", "run", "--once", **signer)

    findings = {row["check"]: row for row in json.loads(cli("doctor", "-o", "json", **signer))}
    unchosen = signer | {"AUDIT_LOG_ORIGIN": "audit-trail.invalid"}
    without = {row["check"]: row for row in json.loads(cli("doctor", "-o", "json", **unchosen))}

    for name in ("log origin", "signing keys", "signer privileges", "checkpoints"):
        assert findings[name]["status"] == "ok", findings[name]
    assert without["log origin"]["status"] == "warn"


def vkeys(environment: dict[str, str]) -> list[str]:
    return cli("signing-key", "list", "--vkeys", **environment).decode().splitlines()


def sign_a_record(
    settings: Settings, registered: dict[str, int], signer: dict[str, str]
) -> list[str]:
    """Let one record come in and be signed; who signed its log's newest checkpoint."""
    before = leaves(signer)
    publish(settings, 1, frame(registered["authentication"], body(an_acme_event())))
    until(lambda: leaves(signer) > before)
    keys = [VerifierKey.parse(line) for line in vkeys(signer)]
    sign_everything(**signer)
    with running("log", "serve", port=signer["AUDIT_LOG_HTTP_PORT"], **signer):
        served = fetched(signer["AUDIT_LOG_HTTP_PORT"], f"/{TOPIC}/1/1/checkpoint")
    assert served
    return [str(key) for key in verify_note(parse_note(served), keys)]
