"""How a worker ends when it cannot run: it says why, and nothing else fails behind it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

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
    assert [entry["event"] for entry in logged if entry["level"] == "error"] == ["worker_crashed"]
