"""The ledger is the position: rolled back, its topic replaced, or records gone before they were read."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.settings import Settings
from tests.chaos.support import (
    Worker,
    cli,
    connect,
    leaf_hashes,
    prove,
    publish,
    report,
    stored,
    wait_drained,
    wait_until,
    worker,
)

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(600)]

TOPIC = "audit.raw.admin-action"


def dump(settings: Settings, file: Path) -> None:
    url = settings.database_admin_url.get_secret_value()
    subprocess.run(["pg_dump", "-Fc", "-f", str(file), url], check=True, env=with_postgres())


def roll_back(settings: Settings, file: Path) -> None:
    """The database as it was, keys included, with every connection to it cut."""
    url = settings.database_admin_url.get_secret_value()
    base, _slash, name = url.rpartition("/")
    with connect(
        settings.model_copy(
            update={"database_admin_url": type(settings.database_admin_url)(f"{base}/postgres")}
        ),
        admin=True,
    ) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}"')
    subprocess.run(
        ["pg_restore", "--exit-on-error", "-d", url, str(file)], check=True, env=with_postgres()
    )


def with_postgres() -> dict[str, str]:
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join([*map(str, reversed(binaries)), os.environ["PATH"]])
    return {**os.environ, "PATH": path}


@pytest.mark.parametrize("running", [False, True])
def test_a_rolled_back_database_gets_every_leaf_again(
    settings: Settings, tmp_path: Path, running: bool
) -> None:
    first = publish(settings, tmp_path / "first.tsv", 3_000)
    with worker() as one:
        first.wait()
        wait_drained(settings, first)
    dump(settings, tmp_path / "backup")
    second = publish(settings, tmp_path / "second.tsv", 3_000)
    with worker():  # archives what comes
        second.wait()
        wait_drained(settings, second)
    third = publish(settings, tmp_path / "third.tsv", 2_000)
    with worker(AUDIT_ARCHIVE_MAX_AGE_S="3600"):  # and this stays unarchived
        third.wait()
        wait_until(
            lambda: stored(settings)["ledger"] == len(third.before) + third.published,
            120,
            "all in the ledger",
        )
        wait_until(
            lambda: stored(settings)["index"] == stored(settings)["ledger"], 60, "all indexed"
        )
        before = leaf_hashes(settings)
        if running:
            roll_back(settings, tmp_path / "backup")
            last = publish(settings, tmp_path / "last.tsv", 500)
            last.wait()
            wait_until(
                lambda: stored(settings)["ledger"] == len(before) + 500, 180, "every leaf again"
            )
    if not running:
        roll_back(settings, tmp_path / "backup")
        last = publish(settings, tmp_path / "last.tsv", 500)
        last.wait()
    with worker() as one:
        wait_until(
            lambda: set(stored(settings).values()) == {len(before) + 500}, 180, "all stores agree"
        )
        after = leaf_hashes(settings)
        again = {place: found for place, found in after.items() if place in before}
        assert again == before
        for load in (second, third, last):
            load.before = frozenset()
        prove_all(settings, [first, second, third, last], tmp_path)
        report("rollback, running" if running else "rollback", leaves=len(after), starts=one.starts)


def prove_all(settings: Settings, loads: list[Any], tmp_path: Path) -> None:
    """The same proof over several loads at once."""
    whole = loads[0]
    together = tmp_path / "all.tsv"
    together.write_text("".join(load.ids_file.read_text() for load in loads))
    whole.ids_file = together
    prove(settings, whole)


def partition_of(one: Worker, topic: str, partition: int) -> dict[str, Any]:
    for found in one.state().get("partitions", []):
        if (found["topic"], found["partition"]) == (topic, partition):
            return dict(found)
    return {}


def test_a_log_start_beyond_the_position_stops_that_partition_alone(
    settings: Settings, tmp_path: Path
) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    load = publish(settings, tmp_path / "lost.tsv", 2_000)
    load.wait()
    place = TopicPartition(TOPIC, 0, -1)
    admin.delete_records([place])[place].result(30)

    with worker() as one:
        why = wait_until(
            lambda: partition_of(one, TOPIC, 0).get("paused"), 60, "a stopped partition"
        )
        assert "open-epoch" in why
        others = publish(settings, tmp_path / "others.tsv", 1_000)
        others.wait()
        wait_until(
            lambda: all(
                found["positioned"]
                for found in one.state().get("partitions", [])
                if not found["paused"]
            ),
            60,
            "the others",
        )
        before = stored(settings)["ledger"]
        wait_until(lambda: stored(settings)["ledger"] >= before, 60, "the others go on")
        cli("open-epoch", TOPIC, "0", "--yes")
        wait_until(lambda: partition_of(one, TOPIC, 0).get("paused") == "", 90, "it goes on")
        assert one.starts == 1
        wait_until(lambda: len(set(stored(settings).values())) == 1, 90, "all stores agree")
        report("log start moved", starts=one.starts)


def test_a_topic_that_was_replaced_stops_until_a_person_opens_an_epoch(
    settings: Settings, tmp_path: Path
) -> None:
    with worker() as one:
        wait_until(lambda: one.state().get("ready"), 60, "a ready worker")
        wait_until(lambda: len(set(stored(settings).values())) == 1, 90, "everything stored")
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    admin.delete_topics([TOPIC])[TOPIC].result(30)
    time.sleep(2)
    cli("topics", "create")

    with worker() as one:
        for partition in range(settings.raw_partitions):
            why = wait_until(
                lambda partition=partition: partition_of(one, TOPIC, partition).get("paused"),
                60,
                "a stopped partition",
            )
            assert f"open-epoch {TOPIC} {partition}" in why
        for partition in range(settings.raw_partitions):
            cli("open-epoch", TOPIC, str(partition), "--yes")
        load = publish(settings, tmp_path / "after.tsv", 1_000)
        load.wait()
        wait_drained(settings, load)
        prove(settings, load)
        assert one.starts == 1
        report("topic replaced", starts=one.starts)
