"""A topic that does not continue the log: its partition stops and says what to do, others go on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.entrypoints.cli.kafka import producer
from pipeline.settings import Settings
from tests.chaos.figures import report
from tests.chaos.form import FULL
from tests.chaos.load import Load, publish, stored, wait_drained
from tests.chaos.processes import Worker, cli, wait_until
from tests.chaos.proof import prove

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(600)]

TOPIC = "audit.raw.data-access"
STOPPED = 'audit_partition_paused{{partition="{}",reason="stopped",topic="{}"}} 1.0'


@pytest.mark.parametrize("running", [False, True] if FULL else [True])
def test_a_log_start_beyond_the_position_stops_that_partition_alone(
    settings: Settings, tmp_path: Path, running: bool
) -> None:
    lost = tmp_path / "lost.tsv"

    def lose() -> Load:
        load = publish(settings, lost, 2_000)
        load.wait()
        end = TopicPartition(TOPIC, 0, -1)
        admin = admin_of(settings)
        admin.delete_records([end])[end].result(30)
        return load

    with disturbed(settings, lose, running=running) as (one, load):
        why = wait_stopped(one, 0)
        assert "deleted before they were read" in why
        assert "audit-trail open-epoch" in why
        kept = lines_of(lost, without=f"{TOPIC}:0:")
        assert len(kept) < load.published
        others = publish(settings, tmp_path / "others.tsv", 1_000)
        others.wait()
        flowing = lines_of(others.ids_file, without=f"{TOPIC}:0:")
        wait_ledger(settings, len(load.before) + len(kept) + len(flowing))
        assert one.partitions()[TOPIC, 0]["paused"]

        cli("open-epoch", TOPIC, "0", "--yes")

        wait_until(lambda: not one.partitions()[TOPIC, 0]["paused"], 90, "it goes on")
        load.ids_file.write_text("".join(kept + others.ids_file.read_text().splitlines(True)))
        wait_drained(settings, load)

    prove(settings, load)
    report(
        "log start moved, running" if running else "log start moved",
        events=load.published,
        starts=one.starts,
    )
    assert one.starts == 1


@pytest.mark.parametrize("running", [False, True] if FULL else [False])
def test_a_topic_that_was_replaced_stops_until_a_person_opens_an_epoch(
    settings: Settings, tmp_path: Path, running: bool
) -> None:
    partitions = range(settings.raw_partitions)
    bad = f"no event, {uuid4()}"

    def replace() -> Load:
        admin = admin_of(settings)
        admin.delete_topics([TOPIC])[TOPIC].result(30)
        time.sleep(2)  # the broker deletes in the background
        cli("topics", "create")
        publish_first(settings, bad)
        load = publish(settings, tmp_path / "after.tsv", 1_000)
        load.wait()
        return load

    with disturbed(settings, replace, running=running) as (one, load):
        for partition in partitions:
            assert f"open-epoch {TOPIC} {partition}" in wait_stopped(one, partition)
        flowing = lines_of(load.ids_file, without=f"{TOPIC}:")
        wait_ledger(settings, len(load.before) + len(flowing))

        for partition in partitions:
            cli("open-epoch", TOPIC, str(partition), "--yes")

        wait_drained(settings, load)

    epochs = [row["log"] for row in json.loads(cli("status", "--output", "json"))]
    for partition in partitions:  # a store may lack leaves of a log that ended
        assert len([log for log in epochs if log.startswith(f"{TOPIC}/{partition}/")]) > 1
    prove(settings, load)
    newest = max(int(log.rpartition("/")[2]) for log in epochs if log.startswith(f"{TOPIC}/0/"))
    assert cli("dead-letter", "show", f"{TOPIC}:0:0:{newest}") == bad
    report(
        "topic replaced, running" if running else "topic replaced",
        events=load.published,
        starts=one.starts,
    )
    assert one.starts == 1


class disturbed:  # noqa: N801 - used as a context manager
    """A worker that comes after the fault, or that sleeps through it and wakes up beside it."""

    def __init__(self, settings: Settings, fault: Callable[[], Load], *, running: bool) -> None:
        self._settings = settings
        self._fault = fault
        self._running = running

    def __enter__(self) -> tuple[Worker, Load]:
        if not self._running:
            load = self._fault()
            self._worker = Worker()
            return self._worker, load
        # Longer than the fault takes: it wakes up with its partitions.
        self._worker = Worker(AUDIT_SESSION_TIMEOUT_S="60")
        try:
            self._worker.wait_ready()
            self._worker.signal(signal.SIGSTOP)
            load = self._fault()
            self._worker.signal(signal.SIGCONT)
        except BaseException:
            self._worker.stop()
            raise
        return self._worker, load

    def __exit__(self, *_: object) -> None:
        self._worker.stop()


def admin_of(settings: Settings) -> AdminClient:
    """To be held until its answers are there."""
    return AdminClient({"bootstrap.servers": settings.kafka_bootstrap})


def publish_first(settings: Settings, bad: str) -> None:
    """A dead letter at an offset that topics before had, too."""
    sending = producer(settings)
    sending.produce(TOPIC, value=bad.encode(), partition=0)
    assert sending.flush(30) == 0


def wait_stopped(one: Worker, partition: int) -> str:
    """Why the partition stands still, the same in ``/readyz`` and log; the metric shows it."""

    def paused() -> str:
        found = one.partitions().get((TOPIC, partition), {})
        return str(found.get("paused", ""))

    why = wait_until(paused, 60, lambda: f"partition {partition} stops; {one.state()}")
    metric = STOPPED.format(partition, TOPIC)
    wait_until(lambda: metric in one.metrics(), 10, metric)
    assert why in [entry["why"] for entry in one.logged("partition_stopped")]
    return why


def wait_ledger(settings: Settings, leaves: int) -> None:
    wait_until(
        lambda: stored(settings)["ledger"] >= leaves,
        90,
        lambda: f"{leaves} leaves or more; {stored(settings)}",
    )


def lines_of(ids_file: Path, *, without: str) -> list[str]:
    """Lines of an ids file whose position does not begin like this."""
    return [line for line in ids_file.read_text().splitlines(True) if f"\t{without}" not in line]
