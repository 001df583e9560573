"""The command line on real servers: what a person types, and what they see.

Needs the servers that AUDIT_* name (the local stack); writes what may be written again.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka.admin import AdminClient

import avro_schemas
from pipeline.codec.dead_letter_format import key_context, letter_id, seal_dead_letter
from pipeline.domain.errors import Reason
from pipeline.domain.logs import DEAD_LETTER_TOPIC
from pipeline.domain.records import DeadLetter
from pipeline.entrypoints.cli.dead_letters import read_letters
from pipeline.entrypoints.cli.failures import run
from pipeline.entrypoints.cli.kafka import admin_client, read_topic
from pipeline.entrypoints.cli.main import app
from pipeline.entrypoints.cli.publishing import Publisher
from pipeline.keys.provider import load_provider
from pipeline.settings import Settings, load_settings

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
RAW = "audit.raw.security-change"


@dataclass(slots=True)
class ARecord:
    """A raw record that no worker ever saw: its offset is beyond any topic's end."""

    offset: int
    key: bytes | None = b"acme/u1"
    value: bytes | None = b"\x01 not the wire format"
    timestamp: int = 1_700_000_000_000
    headers: Any = (("trace", b"t-1"),)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command left."""

    stdout: bytes
    stderr: bytes


def cli(*words: str, status: int = 0, env: Mapping[str, str] = MappingProxyType({})) -> Ended:
    """Run one command in this process, as ``main`` does, and hold it to an exit status."""
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        patch.dict(os.environ, env),
        pytest.raises(SystemExit) as ended,
    ):
        run(lambda: app(list(words)))
    left = Ended(out.buffer.getvalue(), err.buffer.getvalue())
    assert ended.value.code == status, left.stderr.decode()
    return left


def listed(
    *words: str, status: int = 0, env: Mapping[str, str] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """The rows that a command prints."""
    done = cli(*words, "-o", "json", status=status, env=env)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@pytest.fixture(scope="module")
def settings() -> Settings:
    if "AUDIT_KAFKA_BOOTSTRAP" not in os.environ:
        pytest.skip("no servers: start the local stack and export its audit.env")
    return load_settings()


@pytest.fixture(scope="module", autouse=True)
def migrated(settings: Settings) -> None:
    outcomes = listed("migrate")
    assert {outcome["status"] for outcome in outcomes} == {"ok"}
    cli("tenants", "add", "acme")


@pytest.fixture
def letter(settings: Settings) -> DeadLetter:
    """A dead letter in the topic, its key in the ledger."""
    made = DeadLetter(RAW, 3, ARecord(10**15 + uuid4().int % 10**12), Reason.WRONG_MAGIC, "byte 1")
    identity = letter_id(made)
    key = os.urandom(32)
    wrapped = load_provider(settings).wrap(key, key_context(identity))
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute(
            "INSERT INTO dead_letter_key (source_topic, source_partition, source_offset,"
            " source_epoch, wrapped_key, reason) VALUES (%s, %s, %s, %s, %s, %s)",
            [*identity, wrapped, made.reason.value],
        )
    sealed = seal_dead_letter(made, key)
    with Publisher(settings) as publisher:
        for _ in range(2):  # a crash may leave a letter twice
            publisher.publish(
                DEAD_LETTER_TOPIC, key=sealed.key, value=sealed.value, headers=sealed.headers
            )
    return made


def test_setting_up_twice_changes_nothing() -> None:
    assert all(outcome["status"] == "ok" for outcome in listed("migrate"))


def test_the_doctor_finds_a_stack_that_was_set_up_well() -> None:
    findings = listed("doctor")

    assert {"postgres privileges", "kafka clock", "tenants", "s3 buckets"} <= {
        finding["check"] for finding in findings
    }
    assert not [finding for finding in findings if finding["status"] == "fail"]


def test_the_doctor_says_what_to_do_about_everything_that_is_wrong(tmp_path: Path) -> None:
    open_key = tmp_path / "open.key"
    open_key.write_text("00" * 32)
    open_key.chmod(0o644)

    findings = listed(
        "doctor",
        "--timeout",
        "2",
        status=1,
        env={
            "AUDIT_KEY_FILE": str(open_key),
            "AUDIT_REGISTRY_URL": "http://127.0.0.1:9",
            "AUDIT_S3_ARCHIVE_BUCKET": "not-there",
        },
    )

    failed = {finding["check"]: finding for finding in findings if finding["status"] == "fail"}
    assert {"key file", "registry", "s3 buckets", "tenants"} <= set(failed)
    assert "chmod 600" in failed["key file"]["what_to_do"]
    assert "AUDIT_REGISTRY_URL" in failed["registry"]["what_to_do"]
    assert "postgres privileges" not in failed


def test_another_key_file_does_not_open_the_tenants_keys(tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_text("17" * 32)
    other.chmod(0o600)

    findings = listed("doctor", status=1, env={"AUDIT_KEY_FILE": str(other)})

    assert [finding["check"] for finding in findings if finding["status"] == "fail"] == ["tenants"]


def test_a_tenant_keeps_its_key() -> None:
    assert listed("tenants", "add", "acme") == [{"tenant": "acme", "state": "there already"}]
    assert "acme" in [tenant["tenant"] for tenant in listed("tenants", "list")]


def test_a_topic_that_differs_is_reported_and_changed_only_when_told(settings: Settings) -> None:
    larger = {"AUDIT_INFLATE_MAX_BYTES": str(48 * 1024 * 1024)}

    before = {row["name"]: row for row in listed("topics", "create", status=1, env=larger)}
    fixed = {row["name"]: row for row in listed("topics", "create", "--fix", env=larger)}
    listed("topics", "create", "--fix")

    assert "max.message.bytes is" in before[DEAD_LETTER_TOPIC]["detail"]
    assert before[RAW]["state"] == "ok"
    assert fixed[DEAD_LETTER_TOPIC]["state"] == "fixed"
    assert {row["state"] for row in listed("topics", "check")} == {"ok"}
    assert isinstance(admin_client(settings), AdminClient)


def test_partitions_are_never_changed() -> None:
    rows = listed("topics", "create", "--fix", status=1, env={"AUDIT_RAW_PARTITIONS": "7"})

    assert (
        "4 partitions, not 7 (never changed)" in {row["name"]: row for row in rows}[RAW]["detail"]
    )


def test_schemas_are_registered_once_and_refuse_what_breaks_their_rule(tmp_path: Path) -> None:
    schema = avro_schemas.load("data-access")
    schema["fields"].append({"name": "region", "type": "string", "default": "", "doc": "x"})
    compatible, breaking = tmp_path / "v2.avsc", tmp_path / "v3.avsc"
    compatible.write_text(json.dumps(schema))
    del schema["fields"][-1]["default"]
    breaking.write_text(json.dumps(schema))
    family = ("-f", "data-access", "--file")

    first, second = listed("schemas", "register"), listed("schemas", "register")
    may = listed("schemas", "check", *family, str(compatible))
    must_not = listed("schemas", "check", *family, str(breaking), status=1)

    assert first == second
    assert {row["compatibility"] for row in first} == {"FULL_TRANSITIVE"}
    assert may[0]["state"] == "compatible"
    assert "region: added without a default" in must_not[0]["detail"]
    assert "FULL_TRANSITIVE" in must_not[0]["detail"]


def test_an_import_accounts_for_every_record(settings: Settings, tmp_path: Path) -> None:
    ids = tmp_path / "ids.tsv"
    file = ROOT / "samples" / "okta-systemlog.jsonl"

    done = cli(
        "import", "okta", str(file), "--create-tenants", "--ids-file", str(ids), "-o", "json"
    )

    summary = json.loads(done.stdout)
    assert summary["read"] == summary["mapped"] + sum(summary["unmapped"].values())
    assert summary["published"] == summary["mapped"] == len(ids.read_text().splitlines())
    assert len(summary["not_published"]) == sum(summary["unmapped"].values())
    positions = {line.split("\t")[1] for line in ids.read_text().splitlines()}
    topics = {position.split(":")[0] for position in positions}
    found = {
        f"{topic}:{message.partition()}:{message.offset()}"
        for topic in topics
        for message in read_topic(settings, topic)
        if "audit-import-token" in dict(message.headers() or [])
    }
    assert positions <= found


def test_events_of_unknown_tenants_are_withheld_and_said(tmp_path: Path) -> None:
    file = ROOT / "samples" / "okta-systemlog.jsonl"
    stranger = f"stranger-{uuid4()}"

    done = cli("import", "okta", str(file), "--tenant", stranger, "-o", "json", status=1)

    summary = json.loads(done.stdout)
    assert summary["published"] == 0
    assert stranger in summary["tenant_unknown"]
    assert b"--create-tenants" in done.stderr


def test_a_load_keeps_its_rate_and_every_event_is_acknowledged(tmp_path: Path) -> None:
    ids = tmp_path / "ids.tsv"

    (row,) = listed(
        "generate",
        *("--count", "400", "--rate", "400", "--create-tenants", "--ids-file", str(ids)),
    )

    assert row["published"] == 400
    assert 300 <= row["events_per_s"] <= 440
    assert len({line.split("\t")[0] for line in ids.read_text().splitlines()}) == 400


def test_status_shows_every_partition_and_its_lag() -> None:
    rows = listed("status")

    growing = [row for row in rows if row["end_offset"] is not None]
    assert len({row["log"] for row in rows}) == len(rows) >= len(growing) >= 21
    assert all(row["lag_records"] >= 0 for row in growing)


def test_a_letter_is_listed_once_and_shown_as_it_was(
    settings: Settings, letter: DeadLetter, tmp_path: Path
) -> None:
    identity = str(letter_id(letter))
    out = tmp_path / "letter.bin"

    rows = [row for row in listed("dead-letter", "list", "--limit", "0") if row["id"] == identity]
    shown = cli("dead-letter", "show", identity)
    cli("dead-letter", "show", identity, "--out", str(out))

    assert [row["reason"] for row in rows] == ["wrong_magic"]
    assert rows[0]["size_bytes"] == len(letter.record.value or b"")
    assert shown.stdout == letter.record.value == out.read_bytes()
    assert out.stat().st_mode & 0o077 == 0
    assert b"key: acme/u1" in shown.stderr
    assert len([found for found in read_letters(settings) if str(found.label.id) == identity]) == 2


def test_a_replay_publishes_the_original_record_and_only_when_told(
    settings: Settings, letter: DeadLetter
) -> None:
    def replayed() -> int:
        return sum(
            (message.key(), message.value(), message.headers())
            == (letter.record.key, letter.record.value, list(letter.record.headers))
            for message in read_topic(settings, RAW)
        )

    identity, before = str(letter_id(letter)), replayed()
    planned = listed("dead-letter", "replay", "--id", identity)
    after_plan = replayed()
    done = listed("dead-letter", "replay", "--id", identity, "--yes")

    assert planned[0]["outcome"] == "would be published again"
    assert after_plan == before
    assert done[0]["outcome"] == "published again"
    assert replayed() == before + 1


def test_a_letter_whose_key_is_gone_is_neither_shown_nor_replayed(
    settings: Settings, letter: DeadLetter
) -> None:
    with psycopg.connect(settings.database_admin_url.get_secret_value()) as connection:
        connection.execute(
            "DELETE FROM dead_letter_key WHERE source_offset = %s", [letter.record.offset]
        )

    shown = cli("dead-letter", "show", str(letter_id(letter)), status=1)
    rows = listed("dead-letter", "replay", "--id", str(letter_id(letter)), "--yes", status=1)

    assert shown.stdout == b""
    assert b"erased" in shown.stderr
    assert rows[0]["outcome"] == "its key is gone"


def test_a_pause_is_lifted_once(settings: Settings) -> None:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute(
            "INSERT INTO partition_pause (topic, partition, reason) VALUES (%s, 2, 'dead_letters')"
            " ON CONFLICT DO NOTHING",
            [RAW],
        )

    paused = {
        row["log"].split("/")[1]: row["paused"] for row in listed("status") if RAW in row["log"]
    }
    first, second = cli("resume", RAW, "2"), cli("resume", RAW, "2")

    assert paused["2"] == "dead_letters"
    assert b"was paused for dead_letters" in first.stderr
    assert b"is not paused" in second.stderr
