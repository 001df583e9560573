"""Throughput: the worker and the bare loader in turns, each on a fresh place of the same stack."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psycopg

from benchmark.kinds import Kind, by_partition, object_leaves
from benchmark.places import BUILD, Place, Places
from benchmark.prepared import prepare, save
from pipeline.entrypoints.cli.kafka import producer
from pipeline.entrypoints.cli.output import say
from pipeline.importers.encode import RawRecord
from pipeline.settings import Settings

SCRATCH = BUILD / "bench"
_RUN_AT_MOST_S = 600
_WARM_UPS = 2


@dataclass(frozen=True, slots=True)
class Pair:
    """One run of each, one after the other."""

    events: int
    worker: Mapping[str, Any]
    loader: Mapping[str, Any]

    @property
    def ratio(self) -> float:
        """The worker's rate over the loader's."""
        return float(self.loader["wall_s"]) / float(self.worker["wall_s"])


@dataclass(frozen=True, slots=True)
class Throughput:
    """All pairs of one kind of event; figures are medians over them."""

    kind: Kind
    pairs: list[Pair]

    def figures(self) -> dict[str, float]:
        """Name → value, as they stand in the report."""
        events = self.pairs[0].events
        workers = [pair.worker for pair in self.pairs]
        loaders = [pair.loader for pair in self.pairs]
        return {
            "event_bytes": self.kind.size_bytes,
            "events_per_run": events,
            "pairs": len(self.pairs),
            "end_to_end_ratio": round(median(pair.ratio for pair in self.pairs), 3),
            "end_to_end_ratio_lowest": round(min(pair.ratio for pair in self.pairs), 3),
            "end_to_end_ratio_highest": round(max(pair.ratio for pair in self.pairs), 3),
            "events_per_s": round(events / median(run["wall_s"] for run in workers)),
            "loader_events_per_s": round(events / median(run["wall_s"] for run in loaders)),
            "worker_cpu_us_per_event": round(
                median(run["cpu_s"] for run in workers) / events * 1e6, 1
            ),
            "loader_cpu_us_per_event": round(
                median(run["cpu_s"] for run in loaders) / events * 1e6, 1
            ),
            "peak_rss_mb": round(max(run["peak_rss_mb"] for run in workers)),
        }


def publish(kind: Kind, records: list[RawRecord], settings: Settings) -> None:
    """Fill the topic: every partition gets the same number of records."""
    sending = producer(settings, **{"queue.buffering.max.messages": len(records) + 1})
    failures: list[str] = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failures.append(str(error))

    for partition, part in enumerate(by_partition(records)):
        for record in part:
            sending.produce(
                kind.topic,
                key=record.key,
                value=record.value,
                partition=partition,
                on_delivery=delivered,
            )
            sending.poll(0)
    sending.flush()
    if failures:
        raise RuntimeError(f"{len(failures)} records were not taken: {failures[0]}")


def run_pairs(
    kind: Kind, places: Places, settings: Settings, schema_ids: Mapping[str, int], **wanted: int
) -> Throughput:
    """``pairs`` interleaved pairs of ``events`` events."""
    count = wanted["events"]
    leaves = object_leaves(count)
    say(f"{kind.name}: {count:,} events of {kind.size_bytes} bytes: making and publishing them")
    SCRATCH.mkdir(parents=True, exist_ok=True)
    records = kind.encoded(count, schema_ids)
    places.empty_topics()
    publish(kind, records, settings)
    ready = SCRATCH / f"{kind.name}.ready"
    save(prepare(kind, records, schema_ids, object_leaves=leaves), ready)
    pairs: list[Pair] = []
    # The first pairs warm up the servers, whose compilers give them a third of their speed at first, and
    # do not count. Whoever comes second finds them warmer: worker and loader take turns at that.
    for number in range(1 - _WARM_UPS, wanted["pairs"] + 1):
        runs: dict[str, dict[str, Any]] = {}
        for side in ("worker", "loader") if number % 2 else ("loader", "worker"):
            with places.place(object_leaves=leaves) as place:
                runs[side] = (
                    run_worker(place, count)
                    if side == "worker"
                    else run_loader(place, ready, count)
                )
        if number < 1:
            continue
        worker, loader = runs["worker"], runs["loader"]
        pairs.append(Pair(count, worker, loader))
        say(
            f"{kind.name}: pair {number}: worker {count / worker['wall_s']:,.0f} events/s,"
            f" {worker['cpu_s'] / count * 1e6:.1f} us CPU an event,"
            f" {worker['peak_rss_mb']:.0f} MB;"
            f" loader {count / loader['wall_s']:,.0f} events/s;"
            f" ratio {pairs[-1].ratio:.2f}"
        )
    ready.unlink()
    return Throughput(kind, pairs)


def run_worker(place: Place, count: int, *words: str) -> dict[str, Any]:
    """One worker until it has drained the topic; every store has all events afterwards."""
    found = _run(place, "benchmark.worker_process", SCRATCH / "worker.json", *words)
    wanted = dict.fromkeys(("ledger", "index", "archive"), count)
    if found["events"] != wanted:
        raise RuntimeError(f"the worker stored {found['events']}, not {wanted}")
    check(place, count)
    return found


def run_loader(place: Place, ready: Path, count: int) -> dict[str, Any]:
    """One loader."""
    found = _run(place, "benchmark.loader_process", ready, SCRATCH / "loader.json")
    check(place, count)
    return found


def check(place: Place, count: int) -> None:
    """Ledger and index hold as many as were published."""
    url = f"{place.settings.elasticsearch_url}/{place.settings.index_prefix}-*"
    httpx.post(f"{url}/_refresh", timeout=60).raise_for_status()
    indexed = httpx.get(f"{url}/_count", timeout=60).json()["count"]
    with psycopg.connect(place.settings.database_admin_url.get_secret_value()) as connection:
        found = connection.execute(
            "SELECT (SELECT count(*) FROM leaves), (SELECT count(*) FROM audit_logs)"
        ).fetchone()
    if found != (count, count) or indexed != count:
        raise RuntimeError(f"leaves and rows {found}, documents {indexed}, published {count}")


def _run(place: Place, module: str, *words: Path | str) -> dict[str, Any]:
    report = next(word for word in words if isinstance(word, Path) and word.suffix == ".json")
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, *map(str, words)]
    subprocess.run(command, env=place.environment, check=True, timeout=_RUN_AT_MOST_S)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found
