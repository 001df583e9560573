"""`audit-trail restore`, as docs/runbooks/database-restore.md has it: everything back before a worker runs,
and nobody who was erased.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.chaos.erasing import approve, ask, everything_stored, written
from tests.chaos.load import publish, wait_drained
from tests.chaos.processes import AUDIT_TRAIL, cli, worker
from tests.chaos.proof import leaf_hashes, prove_together
from tests.chaos.test_rollback import keys_restored, known, leaves_restored, let_in, taken
from tests.erasure_support import Person, places, refs
from tests.erasure_support import publish as publish_events

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(600)]


def test_a_restore_by_hand_brings_every_leaf_and_key_back_before_a_worker_runs(
    settings: Settings, tmp_path: Path
) -> None:
    first = publish(settings, tmp_path / "first.tsv", 800)
    with worker():
        first.wait()
        wait_drained(settings, first)
    with taken(settings) as backup:
        then = leaf_hashes(settings)
        second = publish(settings, tmp_path / "second.tsv", 1_200, tenants=let_in(settings))
        with worker():
            second.wait()
            wait_drained(settings, second)
        before, known_before = leaf_hashes(settings), known(settings)
        backup.roll_back()
        assert leaf_hashes(settings) == then

    rows = json.loads(cli("restore", "--yes", "--output", "json"))
    again = json.loads(cli("restore", "--yes", "--output", "json"))

    assert leaf_hashes(settings) == before
    assert known(settings) == known_before
    assert sum(row["leaves"] - row["leaves_before"] for row in rows) == second.published
    assert all(row["leaves"] == row["leaves_before"] for row in again)
    last = publish(settings, tmp_path / "last.tsv", 200)
    with worker() as one:
        last.wait()
        wait_drained(settings, last)
        assert (leaves_restored(one), keys_restored(one)) == (0, 0)
    prove_together(settings, [first, second, last], tmp_path / "all.tsv")


def test_a_restored_database_gives_nobody_back(signing: Settings) -> None:
    person = Person()
    with worker() as one:
        one.wait_ready()
        everything_stored(signing, publish_events(signing, person.events(3)))
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
            assert places(signing, person, written([one])) == {}
