"""The relay as a process on the stack, and what the raw topics hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any

from tests.acceptance.records import ROOT, cli, wait_until
from tests.chaos.processes import free_port
from tests.relay_support import TOKEN_KEY

PATH = "/v1/relay/events"


class RelayProcess:
    """One that listens; ``env``: its own settings, for the command line, too."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], env: dict[str, str]) -> None:
        self.url = url
        self.process = process
        self.env = env

    def post(
        self, body: Any, token: str | None = None, **headers: str
    ) -> tuple[int, dict[str, Any], Message]:
        """(status, JSON, headers); ``body``: bytes as they are, else JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Content-Type": "application/json"} | named
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        return self.ask(urllib.request.Request(self.url + PATH, content, sent))

    def ask(self, request: urllib.request.Request | str) -> tuple[int, dict[str, Any], Message]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read()), error.headers

    def token(self, actor: str = "u-1", tenant: str = "acme") -> str:
        minted = cli("relay", "token", "--tenant", tenant, "--actor", actor, **self.env)
        return minted.decode().strip()

    def is_ready(self) -> bool:
        try:
            return self.ask(f"{self.url}/readyz")[0] == 200
        except OSError:
            return False


@contextmanager
def a_relay_process(folder: Path, **env: str) -> Iterator[RelayProcess]:
    """Started, ready, and told to end; its log is ``relay.log`` in the folder."""
    key = folder / "token.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(TOKEN_KEY.hex())
    port = free_port()
    own = {
        "AUDIT_RELAY_PORT": str(port),
        "AUDIT_RELAY_TOKEN_KEY_FILE": str(key),
        "AUDIT_RELAY_ALLOW_FILE": str(ROOT / "samples" / "relay" / "actions.json"),
        **env,
    }
    with (folder / "relay.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.entrypoints.cli", "relay", "serve"],
            env={**os.environ, "PYTHONPATH": str(ROOT), **own},
            stderr=log,
        )
    relay = RelayProcess(f"http://127.0.0.1:{port}", process, own)
    try:
        wait_until(lambda: process.poll() is not None or relay.is_ready(), 30)
        assert process.poll() is None, (folder / "relay.log").read_text()
        yield relay
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def settle() -> None:
    """Longer than a record takes that was sent although its request was refused."""
    time.sleep(0.3)
