"""A store that is down delays itself alone; ledger, broker or registry down: intake waits in place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

from pipeline.settings import Settings
from tests.chaos.proxy import Fault, FaultProxy
from tests.chaos.support import (
    OUTAGE_S,
    RATE,
    RSS_MAX_MB,
    Worker,
    prove,
    publish,
    report,
    stack,
    stored,
    wait_drained,
    wait_until,
    worker,
)

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(1_200)]

WARM_S = 5.0
EVENTS = int((WARM_S + OUTAGE_S + 5) * RATE / 2)


def rates(settings: Settings, for_s: float) -> dict[str, float]:
    """Events a second that reach each store."""
    began, before = time.monotonic(), stored(settings)
    time.sleep(for_s)
    after, took_s = stored(settings), time.monotonic() - began
    return {store: (after[store] - before[store]) / took_s for store in before}


def wait_for_flow(settings: Settings, one: Worker) -> None:
    """Until this worker stores what comes."""
    wait_until(lambda: one.state().get("ready"), 60, "a ready worker")
    before = stored(settings)["archive"]
    wait_until(lambda: stored(settings)["archive"] > before, 60, "the first archived events")


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
    with worker() as one:
        load = publish(settings, ids_file, EVENTS, rate=RATE // 2)
        wait_for_flow(settings, one)
        time.sleep(WARM_S)  # what was published before the worker was ready is caught up
        stack("kill", down)
        try:
            during = rates(settings, OUTAGE_S - 3.0)
        finally:
            stack("start", down)
        load.wait()
        wait_drained(settings, load)

        prove(settings, load)
        kept = {store: round(during[store] / (RATE / 2), 2) for store in others}
        report(
            f"{down} down",
            rate_kept=kept,
            delayed_rate=round(during[delayed]),
            starts=one.starts,
            rss_mb=round(one.peak_rss_mb),
        )
        assert min(kept.values()) > 0.7, kept
        assert during[delayed] == 0
        assert one.starts == 1
        assert one.peak_rss_mb < RSS_MAX_MB


@pytest.mark.parametrize("down", ["postgres", "registry", "kafka"])
def test_intake_waits_in_the_same_process(settings: Settings, ids_file: Path, down: str) -> None:
    with worker() as one:
        load = publish(settings, ids_file, EVENTS, rate=RATE // 2)
        wait_for_flow(settings, one)
        stack("kill", down)
        time.sleep(OUTAGE_S)
        stack("start", down)
        if down == "postgres":  # the registry keeps its schemas there
            stack("start", "registry")
        load.wait()
        wait_drained(settings, load)

        prove(settings, load)
        report(f"{down} down", starts=one.starts, rss_mb=round(one.peak_rss_mb))
        assert one.starts == 1
        assert one.peak_rss_mb < RSS_MAX_MB


@contextmanager
def proxied(settings: Settings) -> Iterator[tuple[dict[str, FaultProxy], dict[str, str]]]:
    """A proxy before each server but the broker, and the settings that lead through them."""
    proxies: dict[str, FaultProxy] = {}
    env: dict[str, str] = {}
    for name, url in (
        ("AUDIT_REGISTRY_URL", settings.registry_url),
        ("AUDIT_ELASTICSEARCH_URL", settings.elasticsearch_url),
        ("AUDIT_S3_ENDPOINT_URL", settings.s3_endpoint_url),
        ("AUDIT_DATABASE_URL", settings.database_url.get_secret_value()),
    ):
        parts = urlsplit(url)
        proxies[name] = FaultProxy(parts.hostname or "", parts.port or 0)
        netloc = parts.netloc.replace(f":{parts.port}", f":{proxies[name].port}")
        env[name] = urlunsplit(parts._replace(netloc=netloc))
    assert conninfo_to_dict(env["AUDIT_DATABASE_URL"])
    try:
        yield proxies, {**env, "AUDIT_REQUEST_TIMEOUT_S": "3"}
    finally:
        for proxy in proxies.values():
            proxy.close()


def test_lines_that_are_slow_cut_reset_silent_or_gone(settings: Settings, ids_file: Path) -> None:
    each_s = max(OUTAGE_S / 5, 3.0)
    with proxied(settings) as (proxies, env), worker(**env) as one:
        load = publish(settings, ids_file, int(each_s * 20 * 300), rate=300)
        wait_for_flow(settings, one)
        for fault in (Fault.SLOW, Fault.CUT, Fault.RESET, Fault.BLACKHOLE, Fault.DOWN):
            for proxy in proxies.values():
                proxy.set(fault)
                time.sleep(each_s)
                proxy.set(Fault.NONE)
        load.wait()
        wait_drained(settings, load)

        prove(settings, load)
        report("bad lines", events=load.published, starts=one.starts, rss_mb=round(one.peak_rss_mb))
        assert one.starts == 1
        assert one.peak_rss_mb < RSS_MAX_MB
