"""A person is erased while the trail goes on, and nothing gives them back."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pipeline.domain.erasure import Step
from pipeline.domain.notes import VerifierKey, parse_note
from pipeline.entrypoints.cli.compare import compare_stores
from pipeline.entrypoints.cli.schema_ids import registered_ids
from pipeline.importers.encode import EventEncoder
from pipeline.keys.note_keys import verify_note
from pipeline.keys.signing_keys import read_keys
from pipeline.settings import Settings
from tests.chaos.disks import keep_raw_for, on_disk, publish_plain
from tests.chaos.erasing import approve, ask, everything_stored, written
from tests.chaos.form import FULL
from tests.chaos.load import publish as publish_load
from tests.chaos.processes import AUDIT_TRAIL, Worker, cli, wait_until, worker
from tests.erasure_support import (
    Person,
    dead_letters,
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
def pair(signing: Settings) -> Iterator[tuple[Worker, Worker]]:
    """Two workers that share the partitions, for all tests here."""
    with worker() as first, worker() as second:
        first.wait_ready()
        second.wait_ready()
        yield first, second


def test_a_person_is_erased_while_the_trail_goes_on(
    signing: Settings, pair: tuple[Worker, Worker], ids_file: Path
) -> None:
    person = Person()
    before = publish(signing, person.events(24))
    publish_bad(signing, person)
    everything_stored(signing, before)
    wait_until(lambda: dead_letters(signing, person) == 2, 30, "letters")
    planted = places(signing, person)
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
    assert places(signing, person, written(pair)) == {}
    (ref, lives), *_more = refs(signing, person)
    assert not lives
    assert ref.bytes not in escrowed_refs(signing)

    # Late, and once more: nobody's. Back again: a new subject.
    late = publish(signing, person.events(2, occurred_at=int(time.time() * 1e6) - 60_000_000_000))
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


@pytest.mark.usefixtures("pair")
def test_events_that_come_again_are_duplicates_and_nobodys(signing: Settings) -> None:
    person = Person()
    events = person.events(3)
    ids = publish(signing, events)
    everything_stored(signing, ids)
    sealed = sealed_to(signing, ids)
    approve(ask(person))
    marker = person.events(1, occurred_at=int(time.time() * 1e6) - 1_000_000_000)

    publish(signing, events)  # as a replay does
    everything_stored(signing, publish(signing, marker))

    assert sealed_to(signing, ids) == sealed
    assert places(signing, person).keys() <= {"topics"}  # what was just sent again
    rows = json.loads(cli("dead-letter", "list", "--limit", "0", "-o", "json"))
    assert not [row for row in rows if row["reason"] == "id_reused"]


@pytest.mark.parametrize("step", KILLED_AFTER if FULL else [Step.LEAVES])
def test_it_goes_on_after_a_kill_at_any_step(
    signing: Settings, pair: tuple[Worker, Worker], step: Step
) -> None:
    person = Person()
    everything_stored(signing, publish(signing, person.events(3)))
    request = ask(person)
    cli("erase", "approve", request, "--no-run", AUDIT_OPERATOR="two")
    _killed_after(signing, request, step)

    done = json.loads(cli("erase", "resume", request, "-o", "json"))

    assert done["state"] in ("inaccessible", "complete")
    assert places(signing, person, written(pair)) == {}


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


@pytest.mark.usefixtures("pair")
def test_after_the_last_day_no_disk_has_anything_of_the_person(signing: Settings) -> None:
    person = Person()
    encoder = EventEncoder(registered_ids(signing))
    events = person.events(3)
    for family, event in events:
        publish_plain(signing, encoder.encode(family, event))
    everything_stored(signing, [event["event_id"] for _family, event in events])
    places(signing, person)  # refreshes the index
    planted = on_disk(person.token)
    assert planted.keys() == {"kafka", "elasticsearch"}, planted  # the others only have it sealed

    request = ask(person)
    assert approve(request)["state"] == "inaccessible"
    with psycopg.connect(signing.database_admin_url.get_secret_value()) as connection:
        connection.execute(
            "UPDATE redaction_request SET gone_by = now() WHERE request_id = %s", [request]
        )
    before_ms = keep_raw_for(signing, 1_000)  # in place of its days
    try:
        wait_until(lambda: "kafka" not in on_disk(person.token), 60, "segments without the person")
    finally:
        keep_raw_for(signing, before_ms)
    done = json.loads(cli("erase", "resume", request, "-o", "json"))

    assert on_disk(person.token) == {}
    assert done["state"] == "complete"
    certificate = json.loads(cli("erase", "certificate", request))["certificate"]
    assert certificate["physically_gone_at"] >= certificate["physically_gone_by"]


def test_the_tombstones_are_rebuilt_by_a_worker_that_joins_later(
    signing: Settings, pair: tuple[Worker, Worker]
) -> None:
    person, (one, other) = Person(), pair
    everything_stored(signing, publish(signing, person.events(1)))
    before = _tombstones(one)
    approve(ask(person))
    wait_until(lambda: _tombstones(one) > before, 30, "the tombstone")
    wait_until(lambda: _tombstones(other) == _tombstones(one), 30, "the same in both workers")
    with worker() as third:
        wait_until(lambda: _tombstones(third) == _tombstones(one), 60, "the same tombstones")


def _tombstones(of: Worker) -> float:
    for line in of.metrics():
        if line.startswith("audit_tombstone_ids "):
            return float(line.split()[1])
    return 0.0
