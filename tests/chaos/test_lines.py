"""Bad lines to the servers: slow, cut in an answer, reset, silent, gone; a COMMIT's answer lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.chaos.figures import report
from tests.chaos.form import FULL, OUTAGE_S, RSS_MAX_MB
from tests.chaos.load import Rates, publish, wait_drained, wait_for_flow
from tests.chaos.processes import wait_until, worker
from tests.chaos.proof import prove
from tests.chaos.versions import NewVersions
from tests.proxy import Fault, FaultProxy, kafka_line

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(3_000)]

REGISTRY, DATABASE = "AUDIT_REGISTRY_URL", "AUDIT_DATABASE_URL"
BROKER = "AUDIT_KAFKA_BOOTSTRAP"
RATE = 100 if FULL else 300
BREAKS = (Fault.SLOW, Fault.CUT, Fault.RESET, Fault.SILENT, Fault.DOWN)
TIMEOUT_S = 1.5
EACH_S = OUTAGE_S if FULL else 1.2
SILENT_S = OUTAGE_S if FULL else 2.5 * TIMEOUT_S  # it is only noticed after the timeout
ALL_S = (len(BREAKS) - 1) * EACH_S + SILENT_S
INDEX, ARCHIVE = "AUDIT_ELASTICSEARCH_URL", "AUDIT_S3_ENDPOINT_URL"
# Servers whose lines fail at the same time: one after the other in the full form. Broker and database
# stand before the others, so that those would have no traffic.
TOGETHER: tuple[tuple[str, ...], ...] = (
    ((BROKER,), (REGISTRY,), (INDEX,), (ARCHIVE,), (DATABASE,))
    if FULL
    else ((BROKER,), (REGISTRY, INDEX, ARCHIVE), (DATABASE,))
)
SPARE_S = 8.0  # of load, for faults that last longer
OF_NEW_VERSION = 10  # events while the registry's line is bad


@contextmanager
def proxied(settings: Settings) -> Iterator[tuple[dict[str, FaultProxy], dict[str, str]]]:
    """A proxy before each server, and the settings that lead through them."""
    proxies = {
        BROKER: kafka_line(),
        REGISTRY: FaultProxy(settings.registry_url),
        INDEX: FaultProxy(settings.elasticsearch_url),
        ARCHIVE: FaultProxy(settings.s3_endpoint_url),
        DATABASE: FaultProxy(settings.database_url.get_secret_value()),
    }
    try:
        yield (
            proxies,
            {name: proxy.url for name, proxy in proxies.items()}
            | {BROKER: proxies[BROKER].address},
        )
    finally:
        for proxy in proxies.values():
            proxy.close()


def test_lines_that_are_slow_cut_reset_silent_or_gone(
    settings: Settings, ids_file: Path, tmp_path: Path
) -> None:
    with (
        proxied(settings) as (proxies, env),
        worker(
            **env,
            AUDIT_REQUEST_TIMEOUT_S=str(TIMEOUT_S),
            AUDIT_RETRY_MAX_S="1",
            AUDIT_ARCHIVE_MAX_AGE_S="0.5",  # so that each fault of its line meets an object
        ) as one,
    ):
        one.wait_ready()
        new = NewVersions(settings, tmp_path / "new.tsv")
        load = publish(settings, ids_file, int((ALL_S * len(TOGETHER) + SPARE_S) * RATE), rate=RATE)
        wait_for_flow(settings, one)
        for fault in BREAKS:
            for names in TOGETHER:
                for name in names:
                    proxies[name].set(fault)
                if REGISTRY in names:  # it is asked once for each version
                    new.publish(OF_NEW_VERSION)
                time.sleep(SILENT_S if fault is Fault.SILENT else EACH_S)
                for name in names:
                    # Where intake still comes back from the fault before, it lasts until there is
                    # traffic.
                    met = proxies[name].met
                    wait_until(lambda at=(met, fault): at[0][at[1]], 20, f"{name} meets {fault}")
                for name in names:
                    proxies[name].set(Fault.NONE)
        load.wait()
        with ids_file.open("ab") as published:
            published.write(new.published())
        wait_drained(settings, load)

    prove(settings, load)
    report(
        "bad lines",
        events=load.published,
        faults=len(BREAKS) * len(proxies),
        starts=one.starts,
        peak_rss_mb=one.peak_rss_mb,
    )
    assert one.starts == 1
    assert one.peak_rss_mb < RSS_MAX_MB, f"MB in each ten seconds: {one.rss_mb}"


def test_a_commit_whose_answer_is_lost_loses_and_doubles_nothing(
    settings: Settings, ids_file: Path
) -> None:
    with (
        proxied(settings) as (proxies, env),
        worker(**env, AUDIT_RETRY_FIRST_S="0.05") as one,
    ):
        one.wait_ready()
        load = publish(settings, ids_file, int((OUTAGE_S + 5.0) * RATE), rate=RATE)
        wait_for_flow(settings, one)
        with Rates(settings, load) as rates:
            lost_at = time.monotonic()
            proxies[DATABASE].set(Fault.LOSE_COMMIT)
            time.sleep(OUTAGE_S)
            during = rates.between(lost_at, time.monotonic())
        proxies[DATABASE].set(Fault.NONE)
        load.wait()
        wait_drained(settings, load)

    prove(settings, load)
    report(
        "COMMIT answers lost",
        events=load.published,
        faults=proxies[DATABASE].commits_lost,
        starts=one.starts,
        peak_rss_mb=one.peak_rss_mb,
        during_per_s=during,
    )
    assert proxies[DATABASE].commits_lost > 3
    assert during["ledger"] > 0
    assert one.starts == 1
    assert one.peak_rss_mb < RSS_MAX_MB, f"MB in each ten seconds: {one.rss_mb}"
