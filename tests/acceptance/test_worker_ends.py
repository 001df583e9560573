"""How a worker ends when it cannot run: it says why, and nothing else fails behind it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from pipeline.settings import Settings
from tests.acceptance.records import FAMILY, TOPIC

pytestmark = pytest.mark.integration


def test_a_worker_whose_port_is_taken_says_so_and_ends_in_good_order() -> None:
    if "AUDIT_KAFKA_BOOTSTRAP" not in os.environ:
        pytest.skip("no servers: start the local stack and export its audit.env")
    subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", "migrate"],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        done = subprocess.run(
            [sys.executable, "-m", "pipeline.entrypoints.cli", "worker"],
            env={**os.environ, "AUDIT_HTTP_PORT": port},
            capture_output=True, check=False, timeout=120,
        )  # fmt: skip

    assert done.returncode == 2
    assert f"127.0.0.1:{port}".encode() in done.stderr
    logged = [json.loads(line) for line in done.stderr.splitlines() if line.startswith(b"{")]
    errors = [entry["event"] for entry in logged if entry["level"] == "error"]
    # A broker that has just begun has no coordinator yet, and aiokafka says so.
    assert [event for event in errors if event != "library_message"] == ["worker_crashed"]
    assert errors[-1] == "worker_crashed"


@pytest.mark.usefixtures("registered")
def test_a_worker_of_a_group_whose_table_has_no_topic_says_what_to_run() -> None:
    """Faust's start would never end, and nothing would say so."""
    worker = subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", "worker"],
        env={**os.environ, "AUDIT_HTTP_PORT": "0", "AUDIT_CONSUMER_GROUP": "another"},
        capture_output=True, check=False, text=True, timeout=120,
    )  # fmt: skip

    assert worker.returncode == 2
    assert "topic another-tombstones-changelog is missing" in worker.stderr
    assert "audit-trail topics create" in worker.stderr


@pytest.mark.usefixtures("registered")
def test_a_worker_that_waits_for_a_broker_ends_when_it_is_told_to() -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "pipeline.entrypoints.cli", "worker"],
        env={**os.environ, "AUDIT_HTTP_PORT": "0", "AUDIT_KAFKA_BOOTSTRAP": "127.0.0.1:9"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert worker.stderr is not None
    try:
        while "server_waited_for" not in (line := worker.stderr.readline()):
            assert line, "it ended by itself"
        worker.send_signal(signal.SIGTERM)
        _out, said = worker.communicate(timeout=30)
    finally:
        worker.kill()

    assert worker.returncode == 0
    assert "worker_ends" in said


@pytest.fixture
def recorded_otherwise(settings: Settings, registered: dict[str, int]) -> Iterator[int]:
    """The ledger says of an id that it is another schema; that id."""
    schema_id = registered[FAMILY]
    url = settings.database_admin_url.get_secret_value()
    select = "SELECT schema::text, fingerprint FROM schema_versions WHERE schema_id = %s"
    change = "UPDATE schema_versions SET schema = %s, fingerprint = %s WHERE schema_id = %s"
    with psycopg.connect(url, autocommit=True) as owner:
        was = owner.execute(select, [schema_id]).fetchone()
        assert was is not None
        owner.execute(change, ['{"type": "record", "name": "Other", "fields": []}', "", schema_id])
        yield schema_id
        owner.execute(change, [*was, schema_id])


def test_a_worker_refuses_a_registry_whose_ids_mean_something_else(
    recorded_otherwise: int,
) -> None:
    worker, doctor = (
        subprocess.run(
            [sys.executable, "-m", "pipeline.entrypoints.cli", *words],
            env={**os.environ, "AUDIT_HTTP_PORT": "0"},
            capture_output=True, check=False, text=True, timeout=120,
        )
        for words in (["worker"], ["doctor", "--output", "json"])
    )  # fmt: skip

    said = f"schema id {recorded_otherwise} ({TOPIC}-value version 1) is another schema"
    assert worker.returncode == 2
    assert said in worker.stderr
    assert doctor.returncode == 1
    (finding,) = [one for one in json.loads(doctor.stdout) if one["check"] == "recorded schemas"]
    assert finding["status"] == "fail"
    assert said in finding["detail"]
