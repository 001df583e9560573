"""Latency at a steady rate over all five topics: from publishing to the ledger, and to the search.

Events are encoded beforehand, each with the moment at which it is to be published: latency counts
from that moment, also where publishing falls behind it. The worker notes when each was durable in
the ledger; a thread asks the index for one event in fifty until a search finds it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx

from benchmark.pairs import SCRATCH
from benchmark.places import Place, Places
from pipeline.entrypoints.cli.kafka import producer
from pipeline.generator.load import generate
from pipeline.importers.encode import EventEncoder
from pipeline.settings import Settings


class Planned(NamedTuple):
    """A record, and when it is to be published; ``mark``: its event id, if the search is asked."""

    at_us: int
    topic: str
    key: bytes
    value: bytes
    mark: str


_MARK_EVERY = 50
_ASK_EVERY_S = 0.1
# The longest waiting ones: where the index is behind, asking does not slow it more.
_ASKED_MAX = 200
_LINGER_MS = 20
_TRIED = 2_000  # events, to see how long an event takes to prepare
_SPARE = 1.2
_READY_S = 20.0
# The servers meet small batches of five topics for the first time: where cores are few a backlog
# builds up, and goes again.
_WARM_S = 90.0
_AFTER_S = 15.0


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of them lie."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def run_latency(
    places: Places, schema_ids: Mapping[str, int], *, rate: int, for_s: float, tenants: list[str]
) -> dict[str, float]:
    """p50 and p99 in ms, of the events of ``for_s`` seconds after the servers are warm."""
    places.empty_topics()
    report = SCRATCH / "latency.json"
    count = int(rate * (for_s + _WARM_S))
    encoder = EventEncoder(schema_ids)
    tried_at = time.monotonic()
    _plan(encoder, _TRIED, tenants, 0, rate)
    prepare_s = count * (time.monotonic() - tried_at) / _TRIED * _SPARE
    print(
        f"latency: preparing {count:,} events takes {prepare_s:.0f} s, then {_WARM_S:.0f} s to warm up"
    )
    report.unlink(missing_ok=True)
    with places.place(object_leaves=50_000) as place:
        worker = subprocess.Popen(
            [sys.executable, "-m", "benchmark.worker_process", str(report), "latency"],
            env=place.environment,
        )
        try:
            began_us = time.time_ns() // 1000 + int((_READY_S + prepare_s) * 1e6)
            since_us = began_us + int(_WARM_S * 1e6)
            planned = _plan(encoder, count, tenants, began_us, rate)
            searched = _publish_and_search(place, planned)
            time.sleep(_AFTER_S / 3)
        finally:
            worker.terminate()
            worker.wait(60)
    found = json.loads(report.read_text(encoding="utf-8"))
    (SCRATCH / "searchable.json").write_text(json.dumps(searched), encoding="utf-8")
    ledger = [taken / 1000 for at, taken in found["ledger_us"] if at >= since_us]
    search = [taken / 1000 for at, taken in searched if at >= since_us]
    return {
        "rate": rate,
        "p50_ledger_ms": round(percentile(ledger, 0.5)),
        "p99_ledger_ms": round(percentile(ledger, 0.99)),
        "p50_searchable_ms": round(percentile(search, 0.5)),
        "p99_searchable_ms": round(percentile(search, 0.99)),
        "latency_events": len(ledger),
        "latency_searches": len(search),
        "latency_peak_rss_mb": round(found["peak_rss_mb"]),
    }


def _publish_and_search(place: Place, planned: Sequence[Planned]) -> list[tuple[int, int]]:
    pending: dict[str, int] = {}
    searched: list[tuple[int, int]] = []
    done = threading.Event()
    asking = threading.Thread(target=_ask, args=(place.settings, pending, searched, done))
    asking.start()
    try:
        _publish(place.settings, planned, pending)
        ends = time.monotonic() + _AFTER_S
        while pending and time.monotonic() < ends:
            time.sleep(_ASK_EVERY_S)
    finally:
        done.set()
        asking.join()
    if pending:
        raise RuntimeError(f"{len(pending)} events cannot be searched after {_AFTER_S:.0f} s")
    return searched


def _plan(
    encoder: EventEncoder, count: int, tenants: list[str], began_us: int, rate: int
) -> list[Planned]:
    """The records of ``count`` events, ``rate`` a second from ``began_us`` on."""
    planned = []
    made = generate(count, seed=time.time_ns(), start_at_us=0, tenants=tenants)
    for number, (family, event) in enumerate(made):
        at_us = event["occurred_at"] = began_us + number * 1_000_000 // rate
        record = encoder.encode(family, event)
        mark = "" if number % _MARK_EVERY else event["event_id"]
        planned.append(Planned(at_us, record.topic, record.key, record.value, mark))
    return planned


def _publish(settings: Settings, planned: Sequence[Planned], pending: dict[str, int]) -> None:
    sending = producer(settings, **{"linger.ms": _LINGER_MS})
    for at_us, topic, key, value, mark in planned:
        ahead_s = at_us / 1e6 - time.time()
        if ahead_s > 0.002:
            time.sleep(ahead_s)
        if mark:
            pending[mark] = at_us
        sending.produce(topic, key=key, value=value)
        sending.poll(0)
    sending.flush()


def _ask(
    settings: Settings,
    pending: dict[str, int],
    searched: list[tuple[int, int]],
    done: threading.Event,
) -> None:
    url = f"{settings.elasticsearch_url}/{settings.index_prefix}-*/_search"
    with httpx.Client(timeout=10) as client:
        while not done.is_set():
            wanted = list(pending)[:_ASKED_MAX]
            if wanted:
                query: dict[str, Any] = {
                    "query": {"ids": {"values": wanted}},
                    "size": len(wanted),
                    "_source": False,
                }
                hits = client.post(url, json=query).json()["hits"]["hits"]
                now_us = time.time_ns() // 1000
                for hit in hits:
                    at = pending.pop(hit["_id"])
                    searched.append((at, now_us - at))
            time.sleep(_ASK_EVERY_S)
