"""`audit-trail restore`, as docs/runbooks/database-restore.md has it: everything back before a worker runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.chaos.load import publish, wait_drained
from tests.chaos.processes import cli, worker
from tests.chaos.proof import leaf_hashes, prove_together
from tests.chaos.test_rollback import keys_restored, known, leaves_restored, let_in, taken

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
