"""A person is erased while the trail goes on, and nothing gives them back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline.domain.erasure import Step
from pipeline.domain.notes import VerifierKey, parse_note
from pipeline.entrypoints.cli.compare import compare_stores
from pipeline.keys.note_keys import verify_note
from pipeline.keys.signing_keys import read_keys
from pipeline.settings import Settings, load_settings
from tests.chaos.form import FULL
from tests.chaos.load import publish as publish_load
from tests.chaos.processes import AUDIT_TRAIL, Worker, cli, wait_until, worker
from tests.chaos.test_rollback import taken
from tests.erasure_support import (
    TENANT,
    Person,
    escrowed_refs,
    places,
    publish,
    publish_bad,
    refs,
    sealed_to,
)

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(600)]

KILLED_AFTER = [Step.LEAF, Step.ORDERED, Step.LEASES, Step.LEAVES, Step.LETTERS]
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def signing(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a trail whose certificates are signed."""
    file = tmp_path_factory.mktemp("keys") / "signing.json"
    os.environ["AUDIT_SIGNING_KEY_FILE"] = str(file)
    os.environ["AUDIT_LOG_ORIGIN"] = "audit.example.com/erasure"
    try:
        cli("signing-key", "create")
        cli("tenants", "add", TENANT)
        yield load_settings()
    finally:
        del os.environ["AUDIT_SIGNING_KEY_FILE"], os.environ["AUDIT_LOG_ORIGIN"]


def ask(person: Person, **env: str) -> str:
    words = ["erase", "--tenant", TENANT, "--id-type", "user_id", "--subject", person.id]
    asked = cli(*words, "--reason", "GDPR-17", "--yes", "-o", "json", AUDIT_OPERATOR="one", **env)
    return str(json.loads(asked)["request"])


def approve(request: str, **env: str) -> dict[str, Any]:
    found = cli("erase", "approve", request, "-o", "json", AUDIT_OPERATOR="two", **env)
    return dict(json.loads(found))


def stored(settings: Settings, ids: list[str]) -> int:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        row = connection.execute(
            "SELECT count(*) FROM leaves WHERE event_id = ANY (%s::uuid[])", [ids]
        ).fetchone()
    return int(row[0]) if row else 0


def caught_up(settings: Settings) -> bool:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        row = connection.execute(
            "SELECT count(*) FROM log_heads, unnest(ARRAY['index', 'archive']) AS follower"
            " LEFT JOIN LATERAL (SELECT next_leaf FROM follower_position AS p"
            "   WHERE p.follower = follower.follower AND p.log_id = log_heads.log_id) AS at ON true"
            " WHERE size > coalesce(next_leaf, 0)"
        ).fetchone()
    return row is not None and row[0] == 0


def everything_stored(settings: Settings, ids: list[str]) -> None:
    wait_until(lambda: stored(settings, ids) == len(ids), 60, "events in the ledger")
    wait_until(lambda: caught_up(settings), 60, "events in the stores")


def written(workers: list[Worker]) -> list[bytes]:
    """What processes wrote: their logs, and their metrics."""
    return [one.log_file.read_bytes() for one in workers] + [
        "\n".join(one.metrics()).encode() for one in workers
    ]


def test_a_person_is_erased_while_the_trail_goes_on(signing: Settings, ids_file: Path) -> None:
    person = Person()
    with worker() as first, worker() as second:
        first.wait_ready()
        second.wait_ready()
        before = publish(signing, person.events(24))
        publish_bad(signing, person)
        everything_stored(signing, before)
        wait_until(lambda: places(signing, person.token).get("dead letters") == 2, 30, "letters")
        planted = places(signing, person.token)
        assert planted.keys() >= {"opened blobs", "index", "topics", "dead letters", "buckets"}

        load = publish_load(signing, ids_file, 10_000, rate=200)
        request = ask(person)
        refused = subprocess.run(
            [*AUDIT_TRAIL, "erase", "approve", request],
            env={**os.environ, "AUDIT_OPERATOR": "one"},
            capture_output=True,
            check=False,
        )
        assert refused.returncode == 1
        during = publish(signing, person.events(6))
        assert load.flows
        began = time.monotonic()
        done = approve(request)
        took_s = time.monotonic() - began
        assert done["state"] in ("inaccessible", "complete"), done
        print(f"inaccessible {took_s:.1f} s after the approval began", done["steps"])

        # No interface gives anything of the person, while load goes on.
        assert places(signing, person.token, written([first, second])) == {}
        (ref, lives), *_more = refs(signing, person)
        assert not lives
        assert ref.bytes not in escrowed_refs(signing)

        # Late, and once more: nobody's. Back again: a new subject.
        late = publish(
            signing, person.events(2, occurred_at=int(time.time() * 1e6) - 60_000_000_000)
        )
        again = publish(signing, person.events(1))
        load.wait()
        everything_stored(signing, [*before, *during, *late, *again])
        assert all(str(ref) not in one for one in sealed_to(signing, late).values())
        assert all(NOBODY in one for one in sealed_to(signing, late).values())
        (_old, _gone), (new, is_new) = refs(signing, person)
        assert is_new
        assert all(str(new) in one for one in sealed_to(signing, again).values())

    comparison = compare_stores(signing)
    assert comparison.equal, comparison.as_dict()
    certificate = json.loads(cli("erase", "certificate", request))
    assert person.token not in json.dumps(certificate)
    note = parse_note(certificate["note"].encode())
    keys: list[VerifierKey] = [key.verifier for key in read_keys(signing.signing_key_file)]
    assert verify_note(note, keys)
    assert json.loads(note.text) == certificate["certificate"]
    assert certificate["certificate"]["affected_leaves"] >= len(before)


def test_events_that_come_again_are_duplicates_and_nobodys(signing: Settings) -> None:
    person = Person()
    events = person.events(3)
    with worker() as one:
        one.wait_ready()
        ids = publish(signing, events)
        everything_stored(signing, ids)
        sealed = sealed_to(signing, ids)
        approve(ask(person))
        marker = person.events(1, occurred_at=int(time.time() * 1e6) - 1_000_000_000)

        publish(signing, events)  # as a replay does
        everything_stored(signing, publish(signing, marker))

        assert sealed_to(signing, ids) == sealed
        assert places(signing, person.token).keys() <= {"topics"}  # what was just sent again
        rows = json.loads(cli("dead-letter", "list", "--limit", "0", "-o", "json"))
        assert not [row for row in rows if row["reason"] == "id_reused"]


@pytest.mark.parametrize("step", KILLED_AFTER if FULL else [Step.ORDERED, Step.LEAVES])
def test_it_goes_on_after_a_kill_at_any_step(signing: Settings, step: Step) -> None:
    person = Person()
    with worker() as one:
        one.wait_ready()
        everything_stored(signing, publish(signing, person.events(3)))
        request = ask(person)
        cli("erase", "approve", request, "--no-run", AUDIT_OPERATOR="two")
        _killed_after(signing, request, step)

        done = json.loads(cli("erase", "resume", request, "-o", "json"))

        assert done["state"] in ("inaccessible", "complete")
        assert places(signing, person.token, written([one])) == {}


def _killed_after(settings: Settings, request: str, step: Step) -> None:
    """Run until the step is noted, and kill the command within whatever follows."""
    process = subprocess.Popen(
        [*AUDIT_TRAIL, "erase", "resume", request],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(
            lambda: _noted(settings, request, step) or process.poll() is not None, 60, str(step)
        )
    finally:
        process.kill()
        process.wait()


def _noted(settings: Settings, request: str, step: Step) -> bool:
    with psycopg.connect(settings.database_redactor_url.get_secret_value()) as connection:
        row = connection.execute(
            "SELECT steps ? %s FROM redaction_request WHERE request_id = %s", [str(step), request]
        ).fetchone()
    return bool(row and row[0])


def test_a_worker_that_was_stopped_through_it_writes_nothing_of_the_person(
    signing: Settings,
) -> None:
    person = Person()
    with worker() as one, worker() as other:
        one.wait_ready()
        other.wait_ready()
        everything_stored(signing, publish(signing, person.events(6)))
        ids = publish(signing, person.events(6))
        one.signal(signal.SIGSTOP)
        try:
            request = ask(person)
            done = approve(request)
        finally:
            one.signal(signal.SIGCONT)
        assert done["state"] in ("inaccessible", "complete"), done

        everything_stored(signing, ids)
        time.sleep(8)
        assert places(signing, person.token, written([one, other])) == {}
        assert len(one.logged("erasure_applied")) + one.starts >= 2


def test_a_restored_database_gives_nobody_back(signing: Settings) -> None:
    person = Person()
    with worker() as one:
        one.wait_ready()
        everything_stored(signing, publish(signing, person.events(3)))
    with taken(signing) as backup:
        with worker() as one:
            one.wait_ready()
            request = ask(person)
            approve(request)
        backup.roll_back()
        assert [lives for _ref, lives in refs(signing, person)] == [True]
        refused = subprocess.run(
            [*AUDIT_TRAIL, "worker"], env={**os.environ, "AUDIT_HTTP_PORT": "0"},
            capture_output=True, check=False, timeout=90,
        )  # fmt: skip
        assert refused.returncode == 2, refused.stderr.decode()[-2000:]
        assert b"erase reapply" in refused.stderr

        rows = json.loads(cli("erase", "reapply", "-o", "json"))

        assert {"request": request, "outcome": "applied"} in rows
        assert [lives for _ref, lives in refs(signing, person)] == [False]
        with worker() as one:
            one.wait_ready()
            done = json.loads(cli("erase", "resume", request, "-o", "json"))
            assert done["state"] in ("inaccessible", "complete")
            assert places(signing, person.token, written([one])) == {}


def test_the_tombstones_are_rebuilt_by_workers_that_join_later(signing: Settings) -> None:
    person = Person()
    with worker() as one:
        one.wait_ready()
        everything_stored(signing, publish(signing, person.events(1)))
        approve(ask(person))
        wait_until(lambda: one.logged("tombstones_kept"), 30, "the tombstone")
        known = _tombstones(one)
        assert known
        with worker() as two, worker() as three:
            for joined in (two, three):
                wait_until(lambda w=joined: _tombstones(w) == known, 60, "the same tombstones")


def _tombstones(of: Worker) -> float:
    for line in of.metrics():
        if line.startswith("audit_tombstone_ids "):
            return float(line.split()[1])
    return 0.0
