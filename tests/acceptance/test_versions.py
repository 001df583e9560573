"""A second version of a schema while events of the first flow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest

import avro_schemas
from pipeline.codec.wire import frame
from pipeline.settings import Settings
from tests.acceptance.records import (
    FAMILY,
    ROOT,
    TOPIC,
    an_acme_event,
    body,
    flowing,
    next_offset,
    publish,
    register,
    wait_until,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_a_new_version_flows_beside_the_old_one_with_its_careless_field_sealed(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    schema = avro_schemas.load(FAMILY)
    schema["fields"].append(
        {"name": "email", "type": ["null", "string"], "default": None, "doc": "x"}
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
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        kept = connection.execute(
            "SELECT subject, version, registered_by FROM schema_versions WHERE schema_id = %s",
            [second_id],
        ).fetchone()
    assert kept is not None
    assert kept[:2] == (f"{TOPIC}-value", 2)
    assert kept[2].startswith("worker@")

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
         str(candidate), "--family", FAMILY, "--output", "json"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )  # fmt: skip

    assert done.returncode == 1, done.stderr.decode()
    (state,) = json.loads(done.stdout)
    assert state["state"] == "incompatible"
    assert "must: added without a default" in state["detail"]
