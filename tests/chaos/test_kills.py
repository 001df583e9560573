"""Nothing lost, nothing twice: workers killed, paused and rebalanced while events flow."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.chaos.figures import report
from tests.chaos.form import BURST, EVENTS, FULL, KILLS, PAUSES, RATE, RSS_MAX_MB, SESSION_S
from tests.chaos.load import Load, publish, stored, wait_drained
from tests.chaos.processes import Worker, wait_until, worker
from tests.chaos.proof import prove

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(3_000)]

# A worker that was killed holds its partitions for a session; then the next one begins to store.
KILL_EVERY_S = SESSION_S + (4.0 if FULL else 8.0)  # other tests run beside the short form
PAUSE_S = SESSION_S + 3.0
AWAKE_S = 4.0


def lasting(seconds: float) -> int:
    """The rate at which all events take so long, if that is no more than usual."""
    return int(min(RATE, EVENTS / seconds))


def wait_for_more(settings: Settings, load: Load) -> None:
    """Until the ledger gets events again; for nothing once all of them are published."""
    before = stored(settings)["ledger"]
    wait_until(
        lambda: not load.flows or stored(settings)["ledger"] > before,
        90,
        lambda: f"more than {before} leaves; {stored(settings)}",
    )


def assert_lean(*workers: Worker) -> None:
    for one in workers:
        assert one.peak_rss_mb < RSS_MAX_MB, f"MB in each ten seconds: {one.rss_mb}"


def test_workers_killed_at_random_moments(settings: Settings, ids_file: Path) -> None:
    chance = random.Random(7)
    load = publish(settings, ids_file, EVENTS, rate=lasting(KILLS * KILL_EVERY_S))

    killed_in_flow = 0
    with worker() as one:
        for _ in range(KILLS):
            wait_for_more(settings, load)
            time.sleep(chance.uniform(0.0, 2.0))
            killed_in_flow += load.flows
            one.signal(signal.SIGKILL)
        for _ in range(BURST):
            time.sleep(chance.uniform(0.1, 1.0))
            one.signal(signal.SIGKILL)
        load.wait()
        wait_drained(settings, load)

    prove(settings, load)
    report(
        "kill -9",
        events=load.published,
        faults=KILLS + BURST,
        starts=one.starts,
        peak_rss_mb=one.peak_rss_mb,
    )
    assert killed_in_flow > KILLS / 2
    assert one.starts > KILLS
    assert_lean(one)


def test_two_workers_and_a_rebalance_every_few_seconds(settings: Settings, ids_file: Path) -> None:
    chance = random.Random(8)
    load = publish(settings, ids_file, EVENTS, rate=RATE // 2 if FULL else RATE // 6)

    joined: list[Worker] = []
    with worker() as one:
        one.wait_ready()
        while load.flows:
            with worker() as two:
                two.wait_ready()  # it holds a partition at least
                joined.append(two)
                time.sleep(chance.uniform(0.5, 3.0))
                if len(joined) % 2 == 0:
                    two.kill()
        load.wait()
        wait_drained(settings, load)
        rebalances = len(one.logged("partitions_assigned"))

    prove(settings, load)
    report(
        "rebalances",
        events=load.published,
        faults=rebalances,
        starts=one.starts,
        peak_rss_mb=max(each.peak_rss_mb for each in (one, *joined)),
    )
    assert len(joined) > 1
    assert rebalances > len(joined)
    assert_lean(one, *joined)


def test_a_worker_that_stands_still_for_longer_than_its_session(
    settings: Settings, ids_file: Path
) -> None:
    rate = lasting(PAUSES * (AWAKE_S + PAUSE_S))
    load = publish(settings, ids_file, EVENTS, rate=rate)

    with worker() as one, worker() as two:
        one.wait_ready()
        two.wait_ready()
        for number in range(PAUSES):
            stopped: Worker = (one, two)[number % 2]
            time.sleep(AWAKE_S)
            stopped.signal(signal.SIGSTOP)
            time.sleep(PAUSE_S)
            stopped.signal(signal.SIGCONT)
        load.wait()
        wait_drained(settings, load)

    prove(settings, load)
    report(
        "SIGSTOP",
        events=load.published,
        faults=PAUSES,
        starts=one.starts + two.starts,
        peak_rss_mb=max(one.peak_rss_mb, two.peak_rss_mb),
    )
    assert (one.starts, two.starts) == (1, 1)
    assert_lean(one, two)
