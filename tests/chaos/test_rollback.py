"""The ledger is the position: rolled back to a backup, every leaf comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pipeline.settings import Settings
from tests.chaos.figures import report
from tests.chaos.form import FULL
from tests.chaos.load import connect, publish, stored, wait_drained
from tests.chaos.processes import Worker, cli, wait_until, worker
from tests.chaos.proof import archived, leaf_hashes, prove_together

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(600)]

# Events that come after the rollback: of one topic. The others' partitions have nothing new that
# would show a running worker that their ledger is behind.
LAST = 500
LAST_FAMILY = "authentication"
LAST_RATE = 200


class Backup:
    """A copy of the ledger's database as it was, keys included, on the same server."""

    def __init__(self, settings: Settings) -> None:
        url = settings.database_admin_url.get_secret_value()
        self._live = str(conninfo_to_dict(url)["dbname"])
        self._copy = f"{self._live}_backup"
        self._url = make_conninfo(url, dbname="postgres")

    def take(self) -> None:
        """Copy; nobody may be connected."""
        self._replace(self._copy, self._live)

    def roll_back(self) -> None:
        """Every connection is cut, and the database is as it was."""
        self._replace(self._live, self._copy)

    def forget(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            self._drop(connection, self._copy)

    def _replace(self, name: str, by: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            self._drop(connection, name)
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(by)
                )
            )

    @staticmethod
    def _drop(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )


@contextmanager
def taken(settings: Settings) -> Iterator[Backup]:
    backup = Backup(settings)
    backup.take()
    try:
        yield backup
    finally:
        backup.forget()


def known(settings: Settings) -> tuple[set[str], set[tuple[object, ...]]]:
    """The tenants that the database knows, and the data subjects with their keys."""
    url = settings.database_admin_url.get_secret_value()
    with psycopg.connect(url) as connection:
        tenants = connection.execute("SELECT tenant FROM tenants").fetchall()
        people = connection.execute("SELECT subject_ref, wrapped_key FROM audit_user").fetchall()
    return {tenant for (tenant,) in tenants}, set(people)


def let_in(settings: Settings) -> int:
    """One tenant more for `generate`, whose people are all new; how many tenants it has now."""
    with connect(settings) as connection:
        names = {name for (name,) in connection.execute("SELECT tenant FROM tenants")}
    number = next(number for number in count(1) if f"tenant-{number}" not in names)
    cli("tenants", "add", f"tenant-{number}")
    return number


@pytest.mark.parametrize("running", [False, True] if FULL else [True])
def test_a_rolled_back_database_gets_every_leaf_again(
    settings: Settings, tmp_path: Path, running: bool
) -> None:
    first = publish(settings, tmp_path / "first.tsv", 2_000)
    with worker():
        first.wait()
        wait_drained(settings, first)
    with taken(settings) as backup:
        known_then = known(settings)
        second = publish(settings, tmp_path / "second.tsv", 3_000, tenants=let_in(settings))
        with worker():
            second.wait()
            wait_drained(settings, second)
        third = publish(settings, tmp_path / "third.tsv", 2_000, tenants=let_in(settings))
        with worker(AUDIT_ARCHIVE_MAX_AGE_S="3600") as one:  # these the archive does not get
            third.wait()
            wait_stored(settings, len(third.before) + third.published)
            before, archived_before = leaf_hashes(settings), archived(settings)
            assert len(before) - len(archived_before) == third.published
            known_before = known(settings)
            assert len(known_before[0]) == len(known_then[0]) + 2
            assert known_before[1] > known_then[1]
            if running:  # under load: of some leaves the index knows more than its position says
                last = publish(
                    settings, tmp_path / "last.tsv", LAST, rate=LAST_RATE, family=LAST_FAMILY
                )
                wait_until(lambda: stored(settings)["ledger"] > len(before), 60, "some of the last")
                backup.roll_back()
                last.wait()
                wait_stored(settings, len(before) + LAST)
                assert one.starts == 1
                assert leaves_restored(one)
        if not running:
            backup.roll_back()
            last = publish(settings, tmp_path / "last.tsv", LAST, family=LAST_FAMILY)
            last.wait()
    with worker() as two:
        wait_until(
            lambda: set(stored(settings).values()) == {len(before) + LAST},
            180,
            lambda: f"{len(before) + LAST} everywhere; {stored(settings)}",
        )

    after, archived_after = leaf_hashes(settings), archived(settings)
    assert {place: after.get(place) for place in before} == before
    assert {place: archived_after.get(place) for place in archived_before} == archived_before
    tenants, people = known(settings)
    assert tenants == known_before[0]
    assert people >= known_before[1]  # the last events may name new ones
    prove_together(settings, [first, second, third, last], tmp_path / "all.tsv")
    report(
        "rolled back, worker running" if running else "rolled back",
        events=sum(load.published for load in (first, second, third, last)),
        starts=1,
        from_archive=leaves_restored(one) + leaves_restored(two),
        from_topic=third.published,
        keys_restored=keys_restored(one) + keys_restored(two),
    )
    assert leaves_restored(one) + leaves_restored(two) == second.published
    assert two.starts == 1


def wait_stored(settings: Settings, leaves: int) -> None:
    """Until ledger and index have so many leaves."""

    def there() -> bool:
        now = stored(settings)
        return now["ledger"] == now["index"] == leaves

    wait_until(there, 180, lambda: f"{leaves} leaves; {stored(settings)}")


def leaves_restored(one: Worker) -> int:
    return sum(entry["leaves"] for entry in one.logged("leaves_restored"))


def keys_restored(one: Worker) -> int:
    return sum(entry["keys"] for entry in one.logged("keys_restored"))
