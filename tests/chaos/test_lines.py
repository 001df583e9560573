"""Bad lines to the servers: slow, cut in an answer, reset, silent, gone; a COMMIT's answer lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.chaos.figures import report
from tests.chaos.form import OUTAGE_S, RSS_MAX_MB
from tests.chaos.load import Rates, publish, wait_drained, wait_for_flow
from tests.chaos.processes import worker
from tests.chaos.proof import prove
from tests.proxy import Fault, FaultProxy

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(1_200)]

DATABASE = "AUDIT_DATABASE_URL"
RATE = 300
BREAKS = (Fault.SLOW, Fault.CUT, Fault.RESET, Fault.SILENT, Fault.DOWN)
# A silent line is only noticed after the timeout: each fault lasts longer than that.
TIMEOUT_S = 1.5
EACH_S = max(OUTAGE_S / 5, 2.5 * TIMEOUT_S)


@contextmanager
def proxied(settings: Settings) -> Iterator[tuple[dict[str, FaultProxy], dict[str, str]]]:
    """A proxy before each server but the broker, and the settings that lead through them.

    The broker tells its clients its own address: it is stopped and paused instead.
    """
    proxies = {
        "AUDIT_REGISTRY_URL": FaultProxy(settings.registry_url),
        "AUDIT_ELASTICSEARCH_URL": FaultProxy(settings.elasticsearch_url),
        "AUDIT_S3_ENDPOINT_URL": FaultProxy(settings.s3_endpoint_url),
        DATABASE: FaultProxy(settings.database_url.get_secret_value()),
    }
    try:
        yield proxies, {name: proxy.url for name, proxy in proxies.items()}
    finally:
        for proxy in proxies.values():
            proxy.close()


def test_lines_that_are_slow_cut_reset_silent_or_gone(settings: Settings, ids_file: Path) -> None:
    with (
        proxied(settings) as (proxies, env),
        worker(**env, AUDIT_REQUEST_TIMEOUT_S=str(TIMEOUT_S), AUDIT_RETRY_MAX_S="1") as one,
    ):
        one.wait_ready()
        faults = len(BREAKS) * len(proxies)
        load = publish(settings, ids_file, int(EACH_S * faults * RATE), rate=RATE)
        wait_for_flow(settings, one)
        for fault in BREAKS:
            for proxy in proxies.values():
                proxy.set(fault)
                time.sleep(EACH_S)
                proxy.set(Fault.NONE)
        load.wait()
        wait_drained(settings, load)

    prove(settings, load)
    report(
        "bad lines",
        events=load.published,
        faults=faults,
        starts=one.starts,
        peak_rss_mb=one.peak_rss_mb,
    )
    assert one.starts == 1
    assert one.peak_rss_mb < RSS_MAX_MB


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
