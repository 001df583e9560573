"""What is held on a person, as a file; and events that are sent or restored again. On real servers."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pipeline.settings import Settings
from pipeline.testing import a_target
from tests.acceptance.keeping_support import a_change, connect, look, run_cli, send
from tests.acceptance.records import ROOT, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def report(person: str, *words: str) -> Any:
    return run_cli(
        "subject", "report", "--tenant", "acme", "--id-type", "user_id", "--subject", person, *words
    )


def test_a_report_has_everything_of_the_person_and_nothing_of_others(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    person, other = f"u-{uuid4().hex[:8]}", f"u-{uuid4().hex[:8]}"
    acted = a_change(person, targets=[a_target(other, tenant="acme", name="Other Name")],
                     purpose="<script>alert(1)</script>")  # fmt: skip
    target = a_change(other, targets=[a_target(person, tenant="acme", email="me@example.org")])
    ids = send(settings, registered, acted, target, a_change(other))
    file = tmp_path / "report.json"

    made = report(person, "--format", "json", "--out", str(file))

    assert made.status == 0, made.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = json.loads(file.read_text(encoding="utf-8"))
    by_id = {event["event_id"]: event for event in found["events"]}
    mine = {str(ids[0]), str(ids[1])}
    assert mine <= by_id.keys()
    assert str(ids[2]) not in by_id
    values = {one["path"]: one for one in by_id[str(ids[0])]["values"]}
    assert values["actor.email"]["value"] == f"{person}@example.org"
    assert values["actor.email"]["meaning"] == "E-mail address."
    assert by_id[str(ids[0])]["purpose"] == "<script>alert(1)</script>"
    assert "Other Name" not in file.read_text(encoding="utf-8")
    # It says of itself that it was made, as an event of this person.
    [access] = [event for event in found["events"] if event["action"] == "subject.report"]
    assert access["family"] == "system"
    assert found["count"] == len(found["events"]) == 3
    assert report(person, "--out", str(file)).status == 2  # never over a file that is there
    for form in ("html", "markdown"):
        page = report(person, "--format", form).out
        assert f"{person}@example.org" in page.replace("\\", "")
        assert "<script>" not in page
        assert "End of the report" in page


def test_a_person_whom_nobody_knows_has_a_report_that_says_so(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    person = f"u-{uuid4().hex[:8]}"

    first = report(person)

    assert first.status == 0, first.err
    # The report's own event makes the person known: it is the one that is listed.
    assert len(re.findall(r"^## ", first.out, re.MULTILINE)) == 1
    assert "subject\\.report" in first.out


def replay(settings: Settings, topic: str, *words: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/replay_audit_logs.py"), "--topic", topic, "--rate", "0",
         "-o", "json", *words],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    [row] = json.loads(done.stdout)
    return row  # type: ignore[no-any-return]


@pytest.mark.parametrize("source", ["ledger", "archive"])
def test_what_is_sent_again_is_stored_once_and_a_run_goes_on_where_it_ended(
    settings: Settings,
    registered: dict[str, int],
    worker: subprocess.Popen[bytes],
    tmp_path: Path,
    source: str,
) -> None:
    topic = "audit.raw.profile-update"
    send(settings, registered, *(a_change(f"u-again-{n}") for n in range(20)))
    before = leaves(settings)
    state = ["--log", f"{topic}/0/1", "--source", source, "--state", str(tmp_path / "s.json")]

    sent = replay(settings, topic, *state)
    again = replay(settings, topic, *state)

    assert sent["sent"] >= 20
    assert again["sent"] == 0
    wait_until(lambda: duplicates(settings) >= sent["sent"], 60)
    assert leaves(settings) == before
    assert id_reused() == 0


def test_an_event_that_lost_a_value_is_not_sent_to_a_raw_topic(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    [event] = send(settings, registered, a_change("u-again-cut"))
    done = run_cli("redact", "event", str(event), "--field", "changes", "--reason", "a test")
    assert done.status == 0, done.err

    sent = replay(settings, "audit.raw.profile-update", "--log", "audit.raw.profile-update/0/1")

    assert sent["withheld"] >= 1
    assert id_reused() == 0


def test_a_period_comes_back_beside_the_ledger_without_whom_was_erased(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    at = 1_630_000_000_000_000  # 2021-08-26
    kept, gone = send(
        settings, registered, a_change("u-side", at_us=at), a_change("u-side-gone", at_us=at + 1)
    )
    [ref] = {blob.subject_ref for blob in look(settings, gone).event.blobs}
    with connect(settings, "admin") as admin:
        admin.execute(
            "UPDATE audit_user SET wrapped_key = NULL, erased_at = now() WHERE subject_ref = %s",
            [ref.hex()],
        )
    schema = f"side_{uuid4().hex[:8]}"
    try:
        done = run_cli("restore", "--period", "2021-08", "--into", schema, "-o", "json")
        assert done.status == 0, done.err
        again = run_cli("restore", "--period", "2021-08", "--into", schema, "-o", "json")

        assert sum(row["events"] for row in done.rows) == 2
        assert sum(row["withheld"] for row in done.rows) == 1
        assert again.rows == done.rows
        with connect(settings) as connection:
            same = connection.execute(
                f"SELECT count(*) FROM {schema}.audit_logs AS side JOIN audit_logs AS ledger"
                " USING (log_id, leaf_index, occurred_at)"
                " WHERE side.event::text = ledger.event::text AND side.stored_at = ledger.stored_at"
            ).fetchone()
            blobs = connection.execute(
                f"SELECT event_id FROM {schema}.audit_blobs JOIN leaves USING (log_id, leaf_index)"
            ).fetchall()
        assert same == (2,)
        assert blobs == [(kept,)]
        other = run_cli("restore", "--period", "2021-09", "--into", schema)
        assert other.status == 2
        assert "not a restore of 2021-09" in other.err
        reader = settings.database_reader_url.get_secret_value()
        with psycopg.connect(reader) as connection:
            seen = {}
            for tenant in ("", "acme"):
                connection.execute("SELECT set_config('audit.tenant', %s, true)", [tenant])
                row = connection.execute(f"SELECT count(*) FROM {schema}.audit_logs").fetchone()
                seen[tenant] = row and row[0]
        assert seen == {"": 0, "acme": 2}
    finally:
        with connect(settings, "admin") as admin:
            admin.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def leaves(settings: Settings) -> int:
    with connect(settings) as connection:
        row = connection.execute(
            "SELECT sum(size) FROM log_heads WHERE topic = 'audit.raw.profile-update'"
        ).fetchone()
    return int(row[0]) if row else 0


def duplicates(settings: Settings) -> int:
    with connect(settings) as connection:
        row = connection.execute(
            "SELECT sum(duplicates) FROM intake JOIN log_heads USING (log_id)"
            " WHERE topic = 'audit.raw.profile-update'"
        ).fetchone()
    return int(row[0]) if row else 0


def id_reused() -> int:
    letters = run_cli("dead-letter", "list", "--reason", "id_reused", "-o", "json").rows
    return sum(row["id"].startswith("audit.raw.profile-update") for row in letters)
