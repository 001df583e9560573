"""`audit-trail verify` and `repair` over a trail that a worker made, as people run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from elasticsearch import Elasticsearch

from pipeline.settings import Settings
from tests.acceptance.records import (
    FAMILY,
    ROOT,
    TOPIC,
    an_acme_event,
    body,
    next_offset,
    publish,
    start_worker,
    stored,
)

pytestmark = [pytest.mark.integration]


def run(*words: str, **env: str) -> tuple[int, Any, str]:
    """Exit status, JSON of stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", *words, "--output", "json"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        timeout=240,
    )
    return done.returncode, json.loads(done.stdout or b"null"), done.stderr.decode()


def drained(settings: Settings, registered: dict[str, int], *bodies: bytes) -> None:
    """Publish to partition 0, and let a worker bring it everywhere and end."""
    framed = [b"\0" + registered[FAMILY].to_bytes(4, "big") + one for one in bodies]
    if framed:
        publish(settings, 0, *framed)
    worker = start_worker(subprocess.DEVNULL, AUDIT_ARCHIVE_MAX_AGE_S="1", AUDIT_DRAIN="true")
    assert worker.wait(120) == 0


def as_superuser(statement: str, *values: Any) -> list[Any]:
    with psycopg.connect(os.environ["AUDIT_DATABASE_ADMIN_URL"]) as connection:
        connection.execute("ALTER TABLE intake DISABLE TRIGGER ALL")
        cursor = connection.execute(statement, values)
        rows = cursor.fetchall() if cursor.description else []
        connection.execute("ALTER TABLE intake ENABLE TRIGGER ALL")
        return rows


def test_a_trail_is_verified_repaired_and_says_so(
    settings: Settings, registered: dict[str, int]
) -> None:
    events = [an_acme_event() for _ in range(30)]
    drained(settings, registered, *(body(event) for event in events), b"not avro")
    code, before, said = run("verify", "--no-checkpoints")
    assert (code, before["findings"]) == (0, 0), (before, said)
    leaves = sum(log["leaves"] for log in before["logs"])
    assert leaves >= 30

    # An analyst with too many rights edits one document, deletes another and adds a third.
    index = Elasticsearch(settings.elasticsearch_url)
    edited, deleted = events[3]["event_id"], events[4]["event_id"]
    pattern = f"{settings.index_prefix}-*"
    index.indices.refresh(index=pattern)
    (hit,) = index.search(index=pattern, query={"ids": {"values": [edited]}})["hits"]["hits"]
    forged = {**hit["_source"], "user.id": "somebody else"}
    index.index(index=hit["_index"], id=edited, document=forged)
    index.delete(index=hit["_index"], id=deleted)
    index.index(index=hit["_index"], id="forged", document={**forged, "audit.leaf_index": 10**9})
    code, found, _ = run("verify", "--no-checkpoints")
    named = {(one["kind"], one["store"], one["event_id"]) for one in found["listed"]}
    assert code == 1
    assert named == {
        ("changed", "index", edited),
        ("missing", "index", deleted),
        ("added", "index", "forged"),
    }

    code, plan, said = run("repair", "--no-checkpoints", "--dry-run")
    assert code == 0, said
    assert (
        sum(row["count"] for row in plan) == 4
    )  # two written; the edited and the foreign one removed
    assert run("verify", "--no-checkpoints")[0] == 1  # nothing was done

    code, done, said = run("repair", "--no-checkpoints", "--yes", "--tenant", "acme")
    assert code == 0, said
    assert [(row["store"], row["leaves"], row["removed"]) for row in done] == [("index", 2, 2)]
    drained(settings, registered)
    code, after, said = run("verify", "--no-checkpoints")
    assert (code, after["findings"]) == (0, 0), (after, said)
    assert stored(settings, {row["event_id"] for row in done}) == {row["event_id"] for row in done}
    (system,) = [log for log in after["logs"] if log["log"].startswith("audit.raw.system/")]
    assert system["leaves"] >= 1


def test_a_record_that_was_dropped_before_the_ledger(
    settings: Settings, registered: dict[str, int]
) -> None:
    """Somebody counts a record as a hole: the topic still has it."""
    drained(settings, registered, body(an_acme_event()))
    code, found, said = run("verify", "--no-checkpoints", "--store", "ledger")
    assert code == 0, (found, said)
    position = next_offset(settings, 0)
    value = b"\0" + registered[FAMILY].to_bytes(4, "big") + body(an_acme_event())
    (offset,) = publish(settings, 0, value)
    assert offset == position
    ((log_id, size),) = as_superuser(
        "SELECT log_id, size FROM log_heads WHERE topic = %s AND partition = 0"
        " ORDER BY epoch DESC LIMIT 1",
        TOPIC,
    )
    as_superuser(
        "INSERT INTO intake (log_id, first_offset, next_offset, first_leaf, accepted, duplicates,"
        " dead_lettered, holes) VALUES (%s, %s, %s, %s, 0, 0, 0, 1)",
        log_id, position, position + 1, size,
    )  # fmt: skip
    as_superuser("UPDATE log_heads SET next_offset = %s WHERE log_id = %s", position + 1, log_id)
    try:
        code, found, said = run("verify", "--no-checkpoints", "--store", "ledger")
    finally:
        as_superuser("DELETE FROM intake WHERE log_id = %s AND first_offset = %s", log_id, position)
        as_superuser("UPDATE log_heads SET next_offset = %s WHERE log_id = %s", position, log_id)
    drained(settings, registered)

    assert code == 1, said
    (finding,) = found["listed"]
    assert (finding["kind"], finding["store"]) == ("missing", "intake")
    assert finding["place"] == f"{position}-{position}"
    assert "dropped before the ledger" in finding["what"]
    assert run("verify", "--no-checkpoints", "--store", "ledger")[0] == 0


def test_it_runs_while_the_worker_ingests(
    settings: Settings, worker: subprocess.Popen[bytes]
) -> None:
    words = ["generate", "--rate", "300", "--count", "6000", "--family", FAMILY, "--create-tenants"]
    load = subprocess.Popen(
        [sys.executable, "-m", "pipeline.entrypoints.cli", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(5)
        while load.poll() is None:
            code, found, said = run("verify", "--no-checkpoints")
            assert (code, found["findings"]) == (0, 0), (found, said)
    finally:
        load.send_signal(signal.SIGTERM)
        load.wait(60)


def test_without_a_trusted_key_nothing_is_believed(settings: Settings, tmp_path: Path) -> None:
    empty = tmp_path / "keys"
    empty.write_text("# none\n")

    code, _, said = run("verify", AUDIT_VERIFIER_KEYS_FILE=str(empty))

    assert code == 2
    assert "no key is trusted" in said


def test_repair_needs_a_tenant_before_it_changes_anything(settings: Settings) -> None:
    code, _, said = run("repair", "--no-checkpoints", "--yes")

    assert code == 2
    assert "AUDIT_SYSTEM_TENANT" in said
