"""An auditor's way, as commands: keys, a checkpoint, a proof, exports, and what the trail says of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline import verifier
from pipeline.settings import Settings
from tests.acceptance.records import ROOT, cli, indexed, sign_everything, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TENANTS = ("tenant-1", "tenant-2")


def rows(settings: Settings, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return connection.execute(query, values).fetchall()


@pytest.fixture(scope="module")
def keys(
    signing: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The trail's signing keys, those that were changed trusted too. What the environment names is put back."""
    folder = tmp_path_factory.mktemp("keys")
    env = signing | {
        "AUDIT_VERIFIER_KEYS_FILE": str(folder / "trusted"),
        "AUDIT_OPERATOR": "dora@example.org",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        (folder / "trusted").write_bytes(cli("signing-key", "list", "--vkeys"))
        listed = json.loads(cli("signing-key", "list", "-o", "json"))
        vkey = next(row["vkey"] for row in listed if row["state"] == "signs")
        yield {"vkey": vkey, "folder": str(folder)}


def failing(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.entrypoints.cli", *words],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    return done.returncode, done.stderr.decode()


def contents(bundle: Path) -> dict[str, bytes]:
    """Every member, inflated."""
    with bundle.open("rb") as file:
        opened = verifier.Bundle(file)
        return {
            name: b"\n".join(opened.lines(name)) if name.endswith(".gz") else opened.read(name)
            for name in opened.names
        }


def events_of(bundle: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)["event"]
        for name, body in contents(bundle).items()
        if name.startswith("events/")
        for line in body.splitlines()
    ]


def verify(bundle: Path, keys: dict[str, str]) -> dict[str, Any]:
    # Offline: without a setting of the trail.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.entrypoints.cli", "verify-bundle", str(bundle)),
            *("--key", keys["vkey"], "-o", "json"),
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def made(settings: Settings, registered: dict[str, int], keys: dict[str, str]) -> set[str]:
    """What was published for two tenants; their ids."""
    ids = Path(keys["folder"]) / "ids"
    cli(
        *("generate", "--count", "300", "--tenants", "2", "--create-tenants"),
        *("--ids-file", str(ids), "--seed", str(os.getpid())),
    )
    return {line.split("\t")[0] for line in ids.read_text().splitlines()}


# Before a worker is there.
def test_an_export_that_the_trail_does_not_hold_is_not_given(
    made: set[str], keys: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "x.tar"

    status, said = failing("export", str(out), "--tenant", "tenant-1", "--wait", "1")

    assert status == 1
    assert "is a worker running?" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("worker")
def test_an_auditor_takes_away_what_is_asked_for_and_the_trail_knows(
    settings: Settings, made: set[str], keys: dict[str, str], tmp_path: Path
) -> None:
    held = "SELECT count(*) FROM leaves WHERE event_id = ANY (%s::uuid[])"
    wait_until(lambda: rows(settings, held, list(made)) == [(len(made),)])
    sign_everything()
    sealed, opened, avro = (tmp_path / name for name in ("s.tar", "o.tar", "a.tar"))
    personal = (
        *("export", str(opened), "--tenant", "tenant-1", "--personal-data"),
        *("--right", "legal-claim", "--reason", "case 12 of Zoë Vogelsang-Xu"),
    )

    cli("export", str(sealed), "--tenant", "tenant-1")
    cli("export", str(avro), "--all-tenants", "--format", "avro")
    cli(*personal)
    asked_only = opened.exists()
    cli(*personal, "--yes")

    # Each verifies, and holds the events of its tenant alone.
    ours = [event for event in events_of(sealed) if event["clear"]["event_id"] in made]
    assert {event["clear"]["tenant"] for event in events_of(sealed)} == {"tenant-1"}
    counted = rows(
        settings,
        "SELECT count(*) FROM audit_logs WHERE tenant = 'tenant-1' AND event_id = ANY (%s::uuid[])",
        list(made),
    )
    assert [(len(ours),)] == counted
    found = {
        name: verify(bundle, keys) for name, bundle in (("s", sealed), ("o", opened), ("a", avro))
    }
    assert all(
        "complete from leaf 0" in text
        for text in found["a"]["statements"]
        if "no event" not in text
    )

    # Personal data only where it was asked for, confirmed.
    assert not asked_only
    manifest = found["o"]["manifest"]
    assert manifest["personal_data"]["right"] == "legal-claim"
    assert manifest["personal_data"]["values"] > 0
    values = [
        value
        for name, body in contents(opened).items()
        if name.startswith("opened/")
        for line in body.splitlines()
        for subject in json.loads(line)["subjects"].values()
        for path, value in subject["values"].items()
        # The manifest names whoever exports, who may have done so before.
        if path in ("actor.id", "actor.email") and value != "dora@example.org"
    ]
    assert len(values) > 50
    everything = b"\n".join(contents(sealed).values())
    assert not [value for value in values if json.dumps(value).encode() in everything]
    assert b"Vogelsang-Xu" not in b"\n".join(
        contents(opened).values()
    )  # the reason stays in the trail

    # Each export is an event of the trail, of each tenant that it concerns, with its content.
    for name, tenants in (("s", ["tenant-1"]), ("o", ["tenant-1"])):
        told = found[name]["manifest"]["trail_events"]
        assert sorted(told) == tenants
        for tenant, event_id in told.items():
            [(event, family)] = rows(
                settings, "SELECT event::text, family FROM audit_logs WHERE event_id = %s", event_id
            )
            clear = json.loads(event)["clear"]
            assert (family, clear["operation"], clear["tenant"]) == ("system", "export", tenant)
            assert clear["export.content_hash"] == found[name]["manifest"]["content_sha256"]
            assert clear["export.personal_data"] == (name == "o")
            assert clear.get("reason_code") == ("legal-claim" if name == "o" else None)
            assert "Vogelsang-Xu" not in event
            assert "dora" not in event
    assert set(TENANTS) <= set(found["a"]["manifest"]["trail_events"])
    told = found["o"]["manifest"]["trail_events"]["tenant-1"]
    [document] = wait_until(lambda: indexed(settings, f'event.id:"{told}"'))
    assert document["event.reason"] == "case 12 of Zoë Vogelsang-Xu"

    # The proof of one event; an event of the export itself waits for the next checkpoint.
    proof, entry = tmp_path / "e.tlog-proof", tmp_path / "e.json"
    one = ours[0]["clear"]["event_id"]
    cli("prove", one, "--output", str(proof), "--event", str(entry))
    cli("verify-bundle", str(proof), "--event", str(entry), "--key", keys["vkey"])
    status, said = failing("prove", told)
    assert status == 1
    assert "the next one is due within 30 s" in said
    sign_everything()
    inside = cli("prove", told, "--with-event")
    proof.write_bytes(inside)
    cli("verify-bundle", str(proof), "--key", keys["vkey"])


def test_what_cannot_be_exported_is_said(keys: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "x.tar"
    there = tmp_path / "there.tar"
    there.write_text("")

    for words, named in (
        (["export", str(out)], "--tenant TENANT"),
        (["export", str(out), "--tenant", "a", "--all-tenants"], "--tenant TENANT"),
        (["export", str(there), "--all-tenants"], "is there"),
        (["export", str(out), "--tenant", "a", "--personal-data", "--yes"], "--right and --reason"),
        (
            [
                *("export", str(out), "--tenant", "a", "--personal-data", "--yes"),
                *("--right", "audit", "--reason", "x" * 501),
            ],
            "at most 500 characters",
        ),
        (["export", str(out), "--tenant", "a", "--subject", "a", "b", "c"], "no such person"),
        (["prove", "0199c1f0-0000-7000-8000-0000000000ff"], "no event"),
        (["verify-bundle", str(there)], "name a key that you trust"),
        (["verify-bundle", str(there), "--key", "x"], "is not a verifier key"),
    ):
        status, said = failing(*words)
        assert status in (1, 2), words
        assert named in said, said
    assert not out.exists()


@pytest.mark.usefixtures("worker")
def test_the_commands_of_the_page_for_auditors_run_as_they_stand(
    settings: Settings, made: set[str], keys: dict[str, str], tmp_path: Path
) -> None:
    held = "SELECT count(*) FROM leaves WHERE event_id = ANY (%s::uuid[])"
    wait_until(lambda: rows(settings, held, list(made)) == [(len(made),)])
    sign_everything()
    page = (ROOT / "docs/auditors.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, words in (("audit-trail", "-m pipeline.entrypoints.cli"), ("python3", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        program.chmod(0o755)

    done = subprocess.run(
        ["bash", "-eu", "-c", "".join(blocks)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "VKEY": keys["vkey"],
            "EVENT_ID": min(made),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )

    assert len(blocks) == 5
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("verified\n") == 1  # the verifier that was handed out
