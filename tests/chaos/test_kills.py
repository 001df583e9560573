"""Nothing lost, nothing twice: workers killed, paused and rebalanced while events flow."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.chaos.support import (
    BURST,
    EVENTS,
    KILLS,
    RATE,
    SESSION_S,
    Worker,
    prove,
    publish,
    report,
    wait_drained,
    worker,
)

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(3_000)]


def test_workers_killed_at_random_moments(settings: Settings, ids_file: Path) -> None:
    chance = random.Random(7)
    load = publish(settings, ids_file, EVENTS)

    with worker() as one:
        for _ in range(KILLS):
            time.sleep(chance.uniform(2.0, 2 * EVENTS / RATE / KILLS))
            one.signal(signal.SIGKILL)
        for _ in range(BURST):
            time.sleep(chance.uniform(0.1, 1.0))
            one.signal(signal.SIGKILL)
        load.wait()
        wait_drained(settings, load)

        prove(settings, load)
        report("kill -9", events=load.published, starts=one.starts, rss_mb=round(one.peak_rss_mb))


def test_two_workers_and_a_rebalance_every_few_seconds(settings: Settings, ids_file: Path) -> None:
    chance = random.Random(8)
    load = publish(settings, ids_file, EVENTS)

    with worker(0) as one:
        rebalances = 0
        while load.process.poll() is None:
            two = Worker(1)
            time.sleep(chance.uniform(4.0, 6.0))
            two.signal(signal.SIGKILL if rebalances % 2 else signal.SIGTERM)
            two.stop()
            rebalances += 1
            time.sleep(1.0)
        load.wait()
        wait_drained(settings, load)

        prove(settings, load)
        report("rebalances", events=load.published, rebalances=2 * rebalances, starts=one.starts)


def test_a_worker_that_stands_still_for_longer_than_its_session(
    settings: Settings, ids_file: Path
) -> None:
    load = publish(settings, ids_file, EVENTS)

    with worker(0) as one, worker(1) as two:
        for stopped in (one, two) * (3 if KILLS > 3 else 1):
            time.sleep(4.0)
            stopped.signal(signal.SIGSTOP)
            time.sleep(SESSION_S + 3.0)
            stopped.signal(signal.SIGCONT)
        load.wait()
        wait_drained(settings, load)

        prove(settings, load)
        report("SIGSTOP", events=load.published, starts=one.starts + two.starts)
