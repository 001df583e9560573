"""The relay as a process on the stack, and what the raw topics hold."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any

import fastavro
from audit_sdk import contract
from confluent_kafka import Consumer, TopicPartition

from pipeline.settings import Settings
from tests.acceptance.records import ROOT, cli, wait_until
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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


class RawTopics:
    """What comes to every raw topic from now on."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": settings.kafka_bootstrap, "group.id": "relay-test"}
        )
        self._from = self._ends()

    def _ends(self) -> dict[tuple[str, int], int]:
        found = {}
        for family in contract().families.values():
            listed = self._consumer.list_topics(family.topic, timeout=10).topics[family.topic]
            for partition in listed.partitions:
                at = TopicPartition(family.topic, partition)
                found[family.topic, partition] = self._consumer.get_watermark_offsets(at)[1]
        return found

    def count(self) -> int:
        """Records that came, by the ends of the logs."""
        return sum(self._ends().values()) - sum(self._from.values())

    def events(self) -> list[dict[str, Any]]:
        """What came, decoded."""
        topics = {one.topic: one for one in contract().families.values()}
        found = []
        for (topic, partition), end in self._ends().items():
            at = self._from[topic, partition]
            schema = fastavro.parse_schema(json.loads(topics[topic].schema_text))
            self._consumer.assign([TopicPartition(topic, partition, at)])
            while at < end:
                message = self._consumer.poll(10.0)
                assert message is not None
                assert message.error() is None
                at = message.offset() + 1
                body = io.BytesIO(message.value()[5:])
                found.append(fastavro.schemaless_reader(body, schema, None))
        self._consumer.unassign()  # else the next question for the ends waits for its fetches
        return found

    def ids(self) -> Counter[str]:
        return Counter(str(event["event_id"]) for event in self.events())

    def close(self) -> None:
        self._consumer.close()


def settle() -> None:
    """Longer than a record takes that was sent although its request was refused."""
    time.sleep(0.3)
