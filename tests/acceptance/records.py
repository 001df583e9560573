"""Records of an acceptance test: made, published, and looked for in ledger and dead letter."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import fastavro
import psycopg
from confluent_kafka import Producer

import avro_schemas
from pipeline.codec.dead_letter_format import LetterId
from pipeline.entrypoints.cli import dead_letters
from pipeline.entrypoints.cli.dead_letters import Selection, letter_keys, read_letters, select
from pipeline.keys.provider import load_provider
from pipeline.settings import Settings
from pipeline.testing import an_actor, an_event

ROOT = Path(__file__).parents[2]
FAMILY = "authentication"
TOPIC = f"audit.raw.{FAMILY}"
with socket.socket() as probe:  # a port that nobody listens on
    probe.bind(("127.0.0.1", 0))
    PORT = str(probe.getsockname()[1])
DAY_US = 86_400_000_000


def cli(*words: str, **env: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", *words],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def make_signing_key(environment: Mapping[str, str]) -> None:
    """The first key of a file, trusted by whoever verifies."""
    cli("signing-key", "create", **environment)
    trusted = Path(environment["AUDIT_VERIFIER_KEYS_FILE"])
    trusted.write_bytes(cli("signing-key", "list", "--vkeys", **environment))


def sign_everything(**env: str) -> None:
    """Rounds of the signer until each log is signed to its end: one waits for the archive before."""

    def is_signed() -> bool:
        rows = json.loads(cli("signer", "run", "--once", "-o", "json", **env))
        return all(row["state"] in ("signed", "empty") for row in rows)

    wait_until(is_signed)


def start_worker(stderr: Any, **env: str) -> subprocess.Popen[bytes]:
    """A worker whose pages are at ``PORT``."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.entrypoints.cli", "worker"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AUDIT_HTTP_PORT": PORT,
            "AUDIT_SESSION_TIMEOUT_S": "6",
            **env,
        },
        stderr=stderr,
    )


def body(event: dict[str, Any], schema: dict[str, Any] | None = None) -> bytes:
    out = io.BytesIO()
    parsed = fastavro.parse_schema(schema or avro_schemas.load(FAMILY))
    fastavro.schemaless_writer(out, parsed, event)
    return out.getvalue()


def an_acme_event(**changes: Any) -> dict[str, Any]:
    return an_event(
        FAMILY,
        **{
            "event_id": str(uuid4()),
            "occurred_at": int(time.time() * 1e6),
            "tenant": "acme",
            "actor": an_actor(tenant="acme"),
            **changes,
        },
    )


def register(settings: Settings, subject: str, schema: Any) -> int:
    request = urllib.request.Request(
        f"{settings.registry_url}/subjects/{subject}/versions",
        data=json.dumps({"schema": json.dumps(schema)}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urllib.request.urlopen(request) as answer:
        return int(json.load(answer)["id"])


def publish(
    settings: Settings, partition: int, *values: bytes | None, topic: str = TOPIC, **config: Any
) -> list[int]:
    """Publish to one partition; the offsets, in order."""
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "message.max.bytes": 16_000_000,
            "compression.type": "zstd",
            **config,
        }
    )
    offsets: list[int] = []
    for value in values:
        producer.produce(
            topic,
            value=value,
            key=b"acme/u-1",
            partition=partition,
            on_delivery=lambda error, message: offsets.append(-1 if error else message.offset()),
        )
    producer.flush(120)  # half a gigabyte to compress, on a busy machine
    assert len(offsets) == len(values)
    assert -1 not in offsets
    return offsets


def letters() -> dict[tuple[str, int, int], dict[str, Any]]:
    rows = json.loads(cli("dead-letter", "list", "--limit", "0", "-o", "json"))
    found = {}
    for row in rows:
        letter = LetterId.parse(row["id"])
        found[letter.topic, letter.partition, letter.offset] = row  # of the newest epoch
    return found


def originals(settings: Settings) -> dict[tuple[str, int, int], bytes | None]:
    """The value that each dead letter keeps, opened as `audit-trail dead-letter show` does."""
    kept = select(read_letters(settings), Selection())
    keys = letter_keys(settings, load_provider(settings), kept)
    found = {}
    for piece in dead_letters.pieces(kept):
        for letter, original in dead_letters.originals(settings, piece, keys):
            if original is not None:
                identity = letter.label.id
                found[identity.topic, identity.partition, identity.offset] = original.value
    return found


def stored(settings: Settings, ids: set[str]) -> set[str]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        rows = connection.execute(
            "SELECT event_id::text FROM leaves WHERE event_id = ANY (%s::uuid[])", [list(ids)]
        )
        return {row[0] for row in rows}


def next_offset(settings: Settings, partition: int, topic: str = TOPIC) -> int:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        row = connection.execute(
            "SELECT max(next_offset) FROM log_heads WHERE topic = %s AND partition = %s",
            [topic, partition],
        ).fetchone()
        return (row[0] if row else None) or 0


def wait_until(holds: Any, timeout_s: float = 60.0) -> Any:
    """The first answer that is true."""
    deadline = time.monotonic() + timeout_s
    while not (answer := holds()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return answer


def indexed(settings: Settings, query: str) -> list[dict[str, Any]]:
    """The documents that the index has for a query; none while the month's index is being made."""
    words = urllib.parse.quote(query)
    url = f"{settings.elasticsearch_url}/{settings.index_prefix}-*/_search?q={words}"
    try:
        with urllib.request.urlopen(url) as answer:
            return [hit["_source"] for hit in json.load(answer)["hits"]["hits"]]
    except urllib.error.HTTPError:
        return []


def ready() -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=5) as answer:
            return json.load(answer)  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        return json.load(error)  # type: ignore[no-any-return]
    except OSError:
        return {}


@contextmanager
def flowing() -> Iterator[None]:
    """A load of the known version that begins before what is done here, and outlasts it."""
    words = ["generate", "--rate", "200", "--count", "4000", "--family", FAMILY, "--create-tenants"]
    load = subprocess.Popen(
        [sys.executable, "-m", "pipeline.entrypoints.cli", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(5)
        assert load.poll() is None
        yield
        assert load.poll() is None, "the load ended first"
        assert load.wait(120) == 0
    finally:
        load.kill()
        load.wait()


def peak_rss_mb(process: subprocess.Popen[bytes]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) // 1024
