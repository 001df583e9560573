"""The worker, unchanged, with a watch on it: `python -m benchmark.worker_process REPORT`.

Three of its methods are wrapped to note the time: the first partition's assignment to delivery,
which comes before its first fetch; each ledger commit; each time a follower's store has made
leaves durable. REPORT is written when the worker ends.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from array import array
from pathlib import Path
from typing import Any

from benchmark.sampling import Sampler
from pipeline.entrypoints.stores import FollowerMetrics
from pipeline.entrypoints.worker import run_worker
from pipeline.logging import configure_logging
from pipeline.settings import load_settings
from sinks.delivery import Delivery


class Watch:
    """What happened when; CPU is user and system time of the whole process, all threads."""

    def __init__(self, sampler: Sampler | None) -> None:
        self._sampler = sampler
        self.began: tuple[float, float] | None = None
        self.last: dict[str, tuple[float, float]] = {}
        self.events: dict[str, int] = {}
        # Of each event in the order of commits: when it occurred, and until it was durable; us.
        self.occurred_us = array("q")
        self.ledger_us = array("q")

    def begin(self) -> None:
        if self.began is None:
            self.began = (time.perf_counter(), _cpu_s())
            if self._sampler:
                self._sampler.start()

    def note(self, store: str, events: int) -> None:
        self.events[store] = self.events.get(store, 0) + events
        self.last[store] = (time.perf_counter(), _cpu_s())

    def note_commit(self, events: Any) -> None:
        self.note("ledger", len(events))
        now_us = time.time_ns() // 1000
        occurred = [event.occurred_at_us for event in events]
        self.occurred_us.extend(occurred)
        self.ledger_us.extend([now_us - at for at in occurred])

    def report(self) -> dict[str, Any]:
        """Everything, in seconds from the beginning."""
        if self.began is None:
            return {"events": {}}
        wall, cpu = self.began
        ended, ended_cpu = max(self.last.values(), default=(wall, cpu))
        return {
            "events": self.events,
            "wall_s": ended - wall,
            "cpu_s": ended_cpu - cpu,
            "startup_cpu_s": cpu,
            "peak_rss_mb": _peak_rss_mb(),
            "until_s": {store: at - wall for store, (at, _cpu) in self.last.items()},
        }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_rss_mb() -> float:
    """Of this program alone: getrusage counts what the parent held when it made the process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(
        int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")
    )


def watch_worker(watch: Watch) -> None:
    """Wrap what is watched, in this process only."""
    assign, stored, durable = Delivery.assign, Delivery._stored, FollowerMetrics.stored  # noqa: SLF001

    def watched_assign(self: Delivery, head: Any) -> None:
        watch.begin()
        assign(self, head)

    def watched_stored(self: Delivery, lane: Any, outcome: Any) -> None:
        watch.note_commit(outcome.accepted.events)
        stored(self, lane, outcome)

    def watched_durable(self: FollowerMetrics, sink: str, log: str, news: Any) -> None:
        watch.note(sink, news.records)
        durable(self, sink, log, news)

    Delivery.assign = watched_assign  # type: ignore[method-assign]
    Delivery._stored = watched_stored  # type: ignore[method-assign]  # noqa: SLF001
    FollowerMetrics.stored = watched_durable  # type: ignore[method-assign]


def main(report: Path, *words: str) -> int:
    """Run until drained (or told to end with ``latency``), then write the report."""
    sampler = Sampler() if "profile" in words else None
    watch = Watch(sampler)
    watch_worker(watch)
    settings = load_settings(drain="latency" not in words)
    configure_logging(settings.log_level)
    status = run_worker(settings)
    found = watch.report()
    if sampler:
        found["profile"] = sampler.stop()
    if "latency" in words:
        found["ledger_us"] = list(zip(watch.occurred_us, watch.ledger_us, strict=True))
    report.write_text(json.dumps(found), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
