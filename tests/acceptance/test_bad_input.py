"""Whatever arrives on a raw topic: events beside it are stored, it lands in the dead letter with its
reason and its bytes, and the worker does not restart.

Needs the servers that AUDIT_* name (the local stack).
"""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import fastavro
import psycopg
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

import avro_schemas
from pipeline.codec.wire import frame
from pipeline.domain.errors import Reason
from pipeline.settings import Settings, load_settings
from pipeline.testing import an_actor, an_event

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

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


@pytest.fixture(scope="module")
def settings() -> Settings:
    if "AUDIT_KAFKA_BOOTSTRAP" not in os.environ:
        pytest.skip("no servers: start the local stack and export its audit.env")
    return load_settings()


@pytest.fixture(scope="module")
def registered(settings: Settings) -> dict[str, int]:
    """Schema ids by family."""
    cli("migrate")
    cli("tenants", "add", "acme")
    ids = {}
    for family in avro_schemas.families():
        url = f"{settings.registry_url}/subjects/audit.raw.{family}-value/versions/1"
        with urllib.request.urlopen(url) as answer:
            ids[family] = json.load(answer)["id"]
    return ids


@pytest.fixture
def worker(settings: Settings, registered: dict[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.entrypoints.cli", "worker"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AUDIT_HTTP_PORT": PORT,
            "AUDIT_SESSION_TIMEOUT_S": "6",
            "AUDIT_ARCHIVE_MAX_AGE_S": "1",
            "AUDIT_DEAD_LETTER_WINDOW": "200",
        },
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


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
    producer.flush(30)
    assert len(offsets) == len(values)
    assert -1 not in offsets
    return offsets


def letters() -> dict[tuple[str, int, int], dict[str, Any]]:
    rows = json.loads(cli("dead-letter", "list", "--limit", "0", "-o", "json"))
    found = {}
    for row in rows:
        topic, partition, offset = row["id"].rsplit(":", 2)
        found[topic, int(partition), int(offset)] = row
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


def wait_until(holds: Any, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


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


def bad_values(registered: dict[str, int]) -> dict[bytes | None, Reason]:
    """Record values and why each can never be accepted."""
    schema = registered[FAMILY]
    good = body(an_acme_event())
    now_us = int(time.time() * 1e6)
    bad: dict[bytes | None, Reason] = {
        b"": Reason.EMPTY_VALUE,
        None: Reason.NULL_VALUE,
        b"\x01" + frame(schema, good)[1:]: Reason.WRONG_MAGIC,
        b"\x00\x00\x00": Reason.TRUNCATED,
        frame(1_000_000, good): Reason.UNKNOWN_SCHEMA,
        frame(2**32 - 1, good): Reason.UNKNOWN_SCHEMA,
        frame(registered["data-access"], good): Reason.SCHEMA_OF_OTHER_SUBJECT,
        frame(schema, good + b"\x00"): Reason.TRAILING_BYTES,
        frame(schema, good) + bytes(10_000_000): Reason.TOO_LARGE,
        frame(schema, body(an_acme_event(action="a\x00b"))): Reason.CONTROL_CHARACTER,
        frame(schema, body(an_acme_event(action="a\x1b[2Jb"))): Reason.CONTROL_CHARACTER,
        frame(schema, body(an_acme_event(labels={"k": "\x85"}))): Reason.CONTROL_CHARACTER,
        frame(schema, body(an_acme_event(event_id="not-a-uuid"))): Reason.EVENT_ID_INVALID,
        frame(schema, body(an_acme_event(tenant="nobody-knows"))): Reason.TENANT_UNKNOWN,
        frame(schema, body(an_acme_event(occurred_at=253_402_300_799_000_000))): Reason.IN_FUTURE,
        frame(schema, body(an_acme_event(occurred_at=now_us + 600_000_000))): Reason.IN_FUTURE,
        frame(schema, body(an_acme_event(occurred_at=-1))): Reason.EXPIRED,
        frame(schema, body(an_acme_event(occurred_at=now_us - 8 * 366 * DAY_US))): Reason.EXPIRED,
        frame(schema, body(an_acme_event(imported=True))): Reason.IMPORT_NOT_AUTHORISED,
        frame(schema, body(an_acme_event(action="x" * 501))): Reason.LIMIT_EXCEEDED,
        frame(schema, body(an_acme_event(labels={"k" * 65: "v"}))): Reason.LIMIT_EXCEEDED,
        frame(schema, b"\x80\x88\xde\xbe\x01\x00"): Reason.TRUNCATED,
        frame(schema, good.replace(b"user_id", b"user_\xff\xff")): Reason.INVALID_UTF8,
    }
    return bad


def truncations(registered: dict[str, int]) -> list[bytes]:
    """Every beginning of a good record's value that has a header."""
    good = body(an_acme_event())
    return [frame(registered[FAMILY], good[:cut]) for cut in range(len(good))]


def test_bad_records_are_kept_with_their_reason_and_good_ones_beside_them_arrive(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    bad = bad_values(registered)
    # One inside a character is bad UTF-8 as well, one after a length or a branch is malformed.
    cut_short = {Reason.TRUNCATED, Reason.INVALID_UTF8, Reason.MALFORMED}
    cuts = truncations(registered)
    bad |= dict.fromkeys(cuts, Reason.TRUNCATED)
    good = {str(uuid4()) for _ in range(len(bad) * 2)}
    schema = registered[FAMILY]
    values: list[bytes | None] = [
        frame(schema, body(an_acme_event(event_id=event_id))) for event_id in good
    ]
    for at, value in enumerate(bad):
        values.insert(3 * at, value)

    offsets = publish(settings, 0, *values)
    wait_until(lambda: next_offset(settings, 0) > offsets[-1])

    assert stored(settings, good) == good
    assert worker.poll() is None
    found = letters()
    for offset, value in zip(offsets, values, strict=True):
        letter = found.get((TOPIC, 0, offset))
        if value in bad:
            assert letter is not None, bad[value]
            assert letter["reason"] in (cut_short if value in cuts else {bad[value]})
        else:
            assert letter is None
    shown = [at for at, value in enumerate(values) if value in bad]
    shown = [*shown[:4], *shown[4 :: len(shown) // 5]]
    for at in shown:
        original = cli("dead-letter", "show", f"{TOPIC}:0:{offsets[at]}")
        assert original == (values[at] or b"")


def test_the_same_id_with_other_content_is_a_dead_letter_and_the_first_one_stays(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    event = an_acme_event()
    schema = registered[FAMILY]
    first = frame(schema, body(event))
    other = frame(schema, body({**event, "action": "user.logoff"}))

    publish(settings, 1, first)
    offsets = publish(settings, 2, first, other, first)
    wait_until(lambda: next_offset(settings, 2) > offsets[-1])

    found = letters()
    assert found[TOPIC, 2, offsets[1]]["reason"] == Reason.ID_REUSED
    assert (TOPIC, 2, offsets[0]) not in found
    assert (TOPIC, 2, offsets[2]) not in found
    assert stored(settings, {event["event_id"]}) == {event["event_id"]}
    assert worker.poll() is None


def test_a_partition_full_of_reused_ids_pauses(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    family = "security-change"  # its topic is never replaced, so no offset means two records
    topic, schema = f"audit.raw.{family}", registered[family]

    def a_body(action: str) -> bytes:
        event = an_event(family, tenant="acme", actor=an_actor(tenant="acme"))
        changed = {"event_id": event_id, "occurred_at": now_us, "action": action}
        return body({**event, **changed}, avro_schemas.load(family))

    event_id, now_us = str(uuid4()), int(time.time() * 1e6)
    publish(settings, 1, frame(schema, a_body("role.grant")), topic=topic)
    others = [frame(schema, a_body(f"role.grant-{number}")) for number in range(600)]
    publish(settings, 1, *others, topic=topic)

    def pause() -> str:
        found = ready().get("partitions", [])
        return next((p["paused"] for p in found if (p["topic"], p["partition"]) == (topic, 1)), "")

    wait_until(pause)
    cli("resume", topic, "1")
    wait_until(lambda: not pause())
    assert stored(settings, {event_id}) == {event_id}
    assert worker.poll() is None


def test_a_new_version_flows_beside_the_old_one_with_its_careless_field_sealed(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    schema = avro_schemas.load(FAMILY)
    schema["fields"].append(
        {"name": "email", "type": ["null", "string"], "default": None, "pii": "none", "doc": "x"}
    )
    first = an_acme_event()
    second = {**an_acme_event(), "email": "planted-7391@example.com"}
    with flowing():
        publish(settings, 3, frame(registered[FAMILY], body(first)))
        second_id = register(settings, f"{TOPIC}-value", schema)
        offsets = publish(
            settings,
            3,
            frame(second_id, body(second, schema)),
            frame(registered[FAMILY], body(an_acme_event())),
        )
    wait_until(lambda: next_offset(settings, 3) > offsets[-1])

    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        rows = dict(
            connection.execute(
                "SELECT event_id::text, (schema_id, event::text)::text FROM audit_logs"
                " WHERE event_id = ANY (%s::uuid[])",
                [[first["event_id"], second["event_id"]]],
            ).fetchall()
        )
    assert f"({registered[FAMILY]}," in rows[first["event_id"]]
    assert f"({second_id}," in rows[second["event_id"]]
    assert "planted-7391" not in rows[second["event_id"]]

    def found() -> bool:
        query = {"query": {"term": {"audit.unmapped.email": "planted-7391@example.com"}}}
        request = urllib.request.Request(
            f"{settings.elasticsearch_url}/{settings.index_prefix}-*/_search",
            data=json.dumps(query).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            hits = json.load(answer)["hits"]["hits"]
        return [hit["_id"] for hit in hits] == [second["event_id"]]

    wait_until(found)
    assert worker.poll() is None


def test_an_incompatible_version_is_refused(tmp_path: Path, registered: dict[str, int]) -> None:
    schema = avro_schemas.load(FAMILY)
    schema["fields"].append({"name": "must", "type": "string", "doc": "x", "pii": "none"})
    candidate = tmp_path / "candidate.avsc"
    candidate.write_text(json.dumps(schema))

    done = subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", "schemas", "check", "--file",
         str(candidate), "--family", FAMILY],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )  # fmt: skip

    assert done.returncode == 1, done.stderr.decode()


def test_bombs_and_what_is_no_number_under_a_wider_schema(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    """Types that this release's own schemas do not have; a team may register them."""
    family = "admin-action"
    topic = f"audit.raw.{family}"
    maps = {"type": "map", "values": {"type": "map", "values": {"type": "map", "values": "string"}}}
    schema = avro_schemas.load(family)
    schema["fields"] += [
        {"name": "score", "type": "double", "default": 0.0, "pii": "none", "doc": "x"},
        {"name": "deep", "type": maps, "default": {}, "pii": "none", "doc": "x"},
        {
            "name": "nothing",
            "type": {"type": "array", "items": "null"},
            "default": [],
            "pii": "none",
            "doc": "x",
        },
    ]
    schema_id = register(settings, f"{topic}-value", schema)

    def a_body(**changes: Any) -> bytes:
        event = an_event(
            family,
            event_id=str(uuid4()),
            occurred_at=int(time.time() * 1e6),
            tenant="acme",
            actor=an_actor(tenant="acme"),
        )
        return body({**event, "score": 0.5, "deep": {}, "nothing": [], **changes}, schema)

    def ending(with_items: bytes) -> bytes:
        return a_body().removesuffix(b"\x00") + with_items

    bad = {
        a_body(score=float("nan")): Reason.NOT_A_NUMBER,
        a_body(score=float("inf")): Reason.NOT_A_NUMBER,
        a_body(deep={"a": {"b": {str(n): "c" for n in range(65)}}}): Reason.LIMIT_EXCEEDED,
        ending(b"\x80\x88\xde\xbe\x01\x00"): Reason.LIMIT_EXCEEDED,  # 200 million items
        ending(b"\xff\x87\xde\xbe\x01\x00\x00"): Reason.LIMIT_EXCEEDED,  # a negative count
        ending(b"\x02" * 60_000 + b"\x00"): Reason.LIMIT_EXCEEDED,  # many blocks
    }
    good = [a_body(deep={"a": {"b": {"c": "d"}}}), a_body(nothing=[None] * 3)]
    values = [good[0], *bad, good[1]]

    offsets = publish(settings, 0, *[frame(schema_id, value) for value in values], topic=topic)
    wait_until(lambda: next_offset(settings, 0, topic) > offsets[-1])

    found = letters()
    for offset, value in zip(offsets, values, strict=True):
        letter = found.get((topic, 0, offset))
        if value in good:
            assert letter is None
        else:
            assert letter is not None, bad[value]
            assert letter["reason"] == bad[value]
            shown = cli("dead-letter", "show", f"{topic}:0:{offset}")
            assert shown == frame(schema_id, value)
    assert worker.poll() is None


def test_batches_that_inflate_to_200_mb_together_are_taken_one_after_the_other(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    topic = "audit.raw.profile-update"
    good = an_acme_event()
    later = publish(settings, 1, frame(registered[FAMILY], body(good)))
    # Each within its bound; all of them on the wire are 200 kilobytes.
    offsets = publish(
        settings,
        2,
        *[frame(registered["profile-update"], bytes(10_000_000))] * 20,
        topic=topic,
        **{"batch.num.messages": 1, "compression.type": "gzip"},
    )
    wait_until(lambda: next_offset(settings, 2, topic) > offsets[-1], 120)
    wait_until(lambda: next_offset(settings, 1) > later[-1])

    assert peak_rss_mb(worker) < 400
    assert {(topic, 2, offset) for offset in offsets} <= letters().keys()
    assert stored(settings, {good["event_id"]})
    assert worker.poll() is None


def peak_rss_mb(process: subprocess.Popen[bytes]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) // 1024


def test_a_batch_that_would_inflate_to_500_mb_stops_its_partition_alone(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    topic = "audit.raw.profile-update"
    assert len(gzip.compress(bytes(10_000_000))) < 15_000_000
    before = publish(settings, 3, frame(registered[FAMILY], b"x"), topic=topic)
    # Fifty values of 10 MB in one batch of a few kilobytes.
    offsets = publish(
        settings,
        3,
        *[bytes(10_000_000)] * 50,
        topic=topic,
        **{
            "message.max.bytes": 600_000_000,
            "batch.size": 600_000_000,
            "linger.ms": 3_000,
            "queue.buffering.max.kbytes": 2_000_000,
            "compression.type": "gzip",
        },
    )
    good = an_acme_event()
    later = publish(settings, 1, frame(registered[FAMILY], body(good)))

    def stopped() -> dict[str, Any] | None:
        for partition in ready().get("partitions", []):
            if (partition["topic"], partition["partition"]) == (topic, 3):
                return partition if partition["paused"] else None  # type: ignore[no-any-return]
        return None

    wait_until(stopped)
    wait_until(lambda: next_offset(settings, 1) > later[-1])

    why = (stopped() or {})["paused"]
    assert str(offsets[0]) in why
    assert before[0] < offsets[0]
    assert stored(settings, {good["event_id"]})
    assert worker.poll() is None

    # A person gives the batch up: it is deleted from the topic, and the ledger told so.
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    beyond = TopicPartition(topic, 3, offsets[-1] + 1)
    admin.delete_records([beyond])[beyond].result(30)
    cli("open-epoch", topic, "3", "--yes")
    wait_until(lambda: not stopped(), 60)
    assert worker.poll() is None


def test_a_partition_that_is_all_bad_pauses_and_is_resumed(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    topic = "audit.raw.security-change"
    offsets = publish(settings, 2, *[b"\x09 rubbish"] * 400, topic=topic)
    good = an_acme_event()
    later = publish(settings, 1, frame(registered[FAMILY], body(good)))

    def pause() -> str:
        for partition in ready().get("partitions", []):
            if (partition["topic"], partition["partition"]) == (topic, 2):
                return str(partition["paused"])
        return ""

    wait_until(pause)
    wait_until(lambda: next_offset(settings, 1) > later[-1])
    assert stored(settings, {good["event_id"]})

    cli("resume", topic, "2")
    wait_until(lambda: not pause())
    found = letters()
    assert {(topic, 2, offset) for offset in offsets} <= found.keys()
    assert worker.poll() is None
