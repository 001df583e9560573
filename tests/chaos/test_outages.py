"""A store that is down delays itself alone; ledger, broker or registry down: intake waits in place."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.chaos.figures import report
from tests.chaos.form import BEFORE_S, FULL, KEPT_MIN, OUTAGE_S, RSS_MAX_MB
from tests.chaos.load import (
    PUBLISHED,
    Rates,
    publish,
    stored,
    wait_abreast,
    wait_drained,
    wait_for_flow,
)
from tests.chaos.processes import stack, wait_until, worker
from tests.chaos.proof import prove
from tests.chaos.versions import NewVersions
from tests.proxy import Fault, FaultProxy

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(1_200)]

RATE = 1_000 if FULL else 500  # in the short form other tests run beside
SETTLES_S = 1.0  # what was under way when a server died
OF_NEW_VERSION = 50
FEW_BYTES = 4 * 1024 * 1024
SPARE_S = 12.0 if FULL else 25.0  # until a new worker brings what comes, on a busy machine
EVENTS = int((BEFORE_S + OUTAGE_S + SPARE_S) * RATE)
# What a follower with little memory missed while the index was new, it reads from the ledger first.
EVENTS_SLOW = EVENTS + 60 * RATE


@contextmanager
def away(server: str) -> Iterator[None]:
    stack("kill", server)
    try:
        yield
    finally:
        stack("start", server)


@contextmanager
def slow(line: FaultProxy) -> Iterator[None]:
    line.set(Fault.SLOW)
    yield
    line.set(Fault.NONE)


def rates_under(
    fault: AbstractContextManager[None],
    what: str,
    others: Sequence[str],
    settings: Settings,
    ids_file: Path,
    events: int = EVENTS,
    **env: str,
) -> dict[str, float]:
    """Events a second that reached each store under a fault of one, by which the ``others`` have kept
    their rate from before; every event is in all of them afterwards.
    """
    # Objects a second old at most: the archive's rate is measured over seconds.
    with worker(AUDIT_ARCHIVE_MAX_AGE_S="1", **env) as one:
        one.wait_ready()
        load = publish(settings, ids_file, events, rate=RATE)
        wait_for_flow(settings, one)
        wait_abreast(settings, load, RATE)
        with Rates(settings, load) as rates:
            began_at = time.monotonic()
            time.sleep(BEFORE_S)
            fault_at = time.monotonic()
            with fault:
                settled_at = time.monotonic() + SETTLES_S
                time.sleep(OUTAGE_S)
                ended_at = time.monotonic()
        before = rates.between(began_at, fault_at)
        during = rates.between(settled_at, ended_at)
        load.wait()
        wait_drained(settings, load)

    prove(settings, load)
    # Where the machine is busy less is published as well: no store can keep more than that.
    kept = {
        store: round(during[store] / min(before[store], during[PUBLISHED]), 2) for store in others
    }
    report(
        what,
        events=load.published,
        starts=one.starts,
        peak_rss_mb=one.peak_rss_mb,
        before_per_s=before,
        during_per_s=during,
        kept=kept,
    )
    assert min(kept.values()) >= KEPT_MIN
    assert one.starts == 1
    assert one.peak_rss_mb < RSS_MAX_MB, f"MB in each ten seconds: {one.rss_mb}"
    return during


@pytest.mark.parametrize(
    ("down", "delayed", "others"),
    [
        ("elasticsearch", "index", ("ledger", "archive")),
        ("s3", "archive", ("ledger", "index")),
    ],
)
def test_a_store_that_is_down_delays_itself_alone(
    settings: Settings, ids_file: Path, down: str, delayed: str, others: tuple[str, ...]
) -> None:
    during = rates_under(away(down), f"{down} down", others, settings, ids_file)

    assert during[delayed] == 0


@pytest.mark.skipif(not FULL, reason="in the full form: test_delivery.py has the share of the time")
def test_a_store_that_is_slow_delays_itself_alone(settings: Settings, ids_file: Path) -> None:
    line = FaultProxy(settings.elasticsearch_url)
    during = rates_under(
        slow(line),
        "elasticsearch slow",
        ("ledger", "archive"),
        settings,
        ids_file,
        EVENTS_SLOW,
        AUDIT_ELASTICSEARCH_URL=line.url,
        AUDIT_FOLLOWER_MAX_BYTES=str(FEW_BYTES),  # so that it is full soon
    )
    line.close()

    assert during["index"] < during["ledger"]


@pytest.mark.parametrize(
    ("server", "fault", "undo"),
    [("postgres", "kill", "start"), ("kafka", "kill", "start"), ("kafka", "pause", "resume")],
)
def test_intake_waits_in_the_same_process(
    settings: Settings, ids_file: Path, server: str, fault: str, undo: str
) -> None:
    with worker() as one:
        one.wait_ready()
        load = publish(settings, ids_file, int((OUTAGE_S + 8.0) * RATE), rate=RATE)
        wait_for_flow(settings, one)
        stack(fault, server)
        try:
            time.sleep(OUTAGE_S)
        finally:
            stack(undo, server)
            if server == "postgres":  # the registry keeps its schemas there
                stack("start", "registry")
        back_at = time.monotonic()
        load.wait()
        wait_drained(settings, load)
        drained_s = round(time.monotonic() - back_at, 1)
        counted = f'audit_intake_outages_total{{server="{server}"}}'
        outages = [line for line in one.metrics() if line.startswith(counted)]

    prove(settings, load)
    assert fault == "pause" or outages, "nobody was told that intake waited"
    report(
        f"{server} {'down' if fault == 'kill' else 'paused'}",
        events=load.published,
        starts=one.starts,
        peak_rss_mb=one.peak_rss_mb,
        drained_s=drained_s,
    )
    assert one.starts == 1
    assert one.peak_rss_mb < RSS_MAX_MB, f"MB in each ten seconds: {one.rss_mb}"


def test_events_of_schemas_not_known_yet_wait_for_the_registry(
    settings: Settings, ids_file: Path, tmp_path: Path
) -> None:
    with worker(AUDIT_SESSION_TIMEOUT_S="30") as one:
        one.wait_ready()
        one.signal(
            signal.SIGSTOP
        )  # it knows the schemas that the ledger has recorded, and no other
        new = NewVersions(settings, tmp_path / "new.tsv")
        new.publish(OF_NEW_VERSION)
        load = publish(settings, ids_file, int(OUTAGE_S * RATE), rate=RATE)
        wait_until(lambda: load.published, 60, "the first events")
        stack("kill", "registry")
        one.signal(signal.SIGCONT)
        try:
            time.sleep(OUTAGE_S / 2)  # what was fetched apart from the new ones is stored
            waits_at = stored(settings)["ledger"]
            time.sleep(OUTAGE_S / 2)
            assert stored(settings)["ledger"] == waits_at < len(load.before) + load.published
        finally:
            stack("start", "registry")
        back_at = time.monotonic()
        load.wait()
        with ids_file.open("ab") as published:
            published.write(new.published())
        wait_drained(settings, load)
        drained_s = round(time.monotonic() - back_at, 1)

    prove(settings, load)
    report(
        "registry down",
        events=load.published,
        starts=one.starts,
        peak_rss_mb=one.peak_rss_mb,
        drained_s=drained_s,
    )
    assert one.starts == 1
    assert one.peak_rss_mb < RSS_MAX_MB, f"MB in each ten seconds: {one.rss_mb}"
