"""Latency at a steady rate over all five topics: from publishing to the ledger, and to the search.

A thread publishes events that occur now; the worker notes when each was durable in the ledger; a
second thread asks the index for one event in fifty until a search finds it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from benchmark.pairs import SCRATCH
from benchmark.places import Place, Places
from pipeline.entrypoints.cli.kafka import producer
from pipeline.generator.load import generate
from pipeline.importers.encode import EventEncoder
from pipeline.settings import Settings

Event = tuple[str, dict[str, Any]]  # family, values

_MARK_EVERY = 50
_ASK_EVERY_S = 0.1
_READY_S = 20.0
_WARM_S = 10.0
_AFTER_S = 15.0


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of them lie."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def run_latency(
    places: Places, schema_ids: Mapping[str, int], *, rate: int, for_s: float, tenants: list[str]
) -> dict[str, float]:
    """p50 and p99 in ms, of events published after the first seconds."""
    places.empty_topics()
    report = SCRATCH / "latency.json"
    # Beforehand: making an event costs this machine more than storing it.
    count = int(rate * (for_s + _WARM_S))
    made = list(generate(count, seed=int(time.time()), start_at_us=0, tenants=tenants))
    report.unlink(missing_ok=True)
    with places.place(object_leaves=50_000) as place:
        worker = subprocess.Popen(
            [sys.executable, "-m", "benchmark.worker_process", str(report), "latency"],
            env=place.environment,
        )
        try:
            time.sleep(_READY_S)
            since_us = time.time_ns() // 1000 + int(_WARM_S * 1e6)
            searched = _publish_and_search(place, schema_ids, rate, made)
            time.sleep(_AFTER_S / 3)
        finally:
            worker.terminate()
            worker.wait(60)
    found = json.loads(report.read_text(encoding="utf-8"))
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


def _publish_and_search(
    place: Place, schema_ids: Mapping[str, int], rate: int, made: Sequence[Event]
) -> list[tuple[int, int]]:
    pending: dict[str, int] = {}
    searched: list[tuple[int, int]] = []
    done = threading.Event()
    asking = threading.Thread(target=_ask, args=(place.settings, pending, searched, done))
    asking.start()
    try:
        _publish(place.settings, schema_ids, rate, made, pending)
        ends = time.monotonic() + _AFTER_S
        while pending and time.monotonic() < ends:
            time.sleep(_ASK_EVERY_S)
    finally:
        done.set()
        asking.join()
    if pending:
        raise RuntimeError(f"{len(pending)} events cannot be searched after {_AFTER_S:.0f} s")
    return searched


def _publish(
    settings: Settings,
    schema_ids: Mapping[str, int],
    rate: int,
    made: Sequence[Event],
    pending: dict[str, int],
) -> None:
    encoder = EventEncoder(schema_ids)
    sending = producer(settings, **{"linger.ms": 20})
    began = time.monotonic()
    for number, (family, event) in enumerate(made):
        ahead = began + number / rate - time.monotonic()
        if ahead > 0.002:
            time.sleep(ahead)
        event["occurred_at"] = time.time_ns() // 1000
        record = encoder.encode(family, event)
        if number % _MARK_EVERY == 0:
            pending[event["event_id"]] = event["occurred_at"]
        sending.produce(record.topic, key=record.key, value=record.value)
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
            wanted = list(pending)
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
