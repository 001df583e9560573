"""What stage 1 of the detections costs the worker: µs of one process per event, with all shipped rules.

    nice -n 19 python scripts/benchmark/detection.py [events of a range] [rounds]

Made load of 1,000 events a second is prepared as the worker does it, and aggregated in ranges. `no rule wants` are the
same events under another family; `look at the values` is what the maps of an event cost by themselves.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmark.in_memory import SCHEMA_IDS, batch_of, make_preparer, sealed
from benchmark.kinds import TENANT
from pipeline.detections.files import load_rules
from pipeline.detections.trials import trial_hash
from pipeline.domain.detection.aggregate import Aggregator
from pipeline.domain.detection.counters import Counters
from pipeline.domain.detection.signals import pack
from pipeline.domain.logs import RAW_PREFIX, LogName
from pipeline.domain.records import LeafRange, SealedEvent
from pipeline.generator.load import generate
from pipeline.importers.encode import EventEncoder, RawRecord

RULES = Path(__file__).resolve().parents[2] / "agents" / "rules"
COUNT = 40_000
RATE = 1_000  # events a second: what a range covers is seconds, as where cost matters
PEOPLE = 20_000
_AN_HOUR_US = 3_600_000_000


def main() -> int:
    """The exit status."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    by_family = made(COUNT)
    events = [event for found in by_family.values() for event in found]
    rules = [one.rule for one in load_rules(RULES).files]
    print(
        f"{len(events)} events of {len(by_family)} families, {len(rules)} rules, ranges of {size}"
    )
    aggregator = Aggregator(rules, trial_hash)
    idle = Aggregator([], trial_hash)
    timed("all rules", events, by_family, size, rounds, aggregator)
    timed("no rule wants", events, by_family, size, rounds, idle)
    for family, found in by_family.items():
        timed(family, found, {family: found}, size, rounds, aggregator)
    cost(
        "look at the values",
        len(events),
        rounds,
        lambda: [len(event.clear) + len(event.opened) for event in events],
    )
    signals = [
        signal
        for leaves in ranges(by_family, size)
        for signal in aggregator.aggregate(leaves).signals
    ]
    begin = time.process_time()
    written = sum(len(pack(signals[at : at + size])) for at in range(0, len(signals), size))
    took = time.process_time() - begin
    print(f"as bytes: {took / len(events) * 1e6:.1f} µs an event")
    print(f"{len(signals) / len(events):.2f} signals, {written / len(events):.0f} bytes an event")
    begin = time.process_time()
    alerts = Counters(rules).apply(signals)
    took = time.process_time() - begin
    print(f"stage 2 in memory: {took / len(signals) * 1e6:.1f} µs a signal; {len(alerts)} alerts")
    return 0


def made(count: int) -> dict[str, Sequence[SealedEvent]]:
    """Some load, sealed; by family."""
    start_us = time.time_ns() // 1000 - _AN_HOUR_US
    encoder = EventEncoder(SCHEMA_IDS)
    records: dict[str, list[RawRecord]] = {}
    times: dict[str, list[int]] = {}
    load = generate(
        count,
        seed=11,
        start_at_us=start_us,
        span_us=count * 1_000_000 // RATE,
        tenants=(TENANT,),
        people_per_tenant=PEOPLE,
    )
    for family, event in load:
        records.setdefault(family, []).append(encoder.encode(family, event))
        times.setdefault(family, []).append(event["occurred_at"])
    preparer = make_preparer()

    async def prepare() -> dict[str, Sequence[SealedEvent]]:
        found = {}
        for log_id, (family, encoded) in enumerate(records.items()):
            batch = batch_of(RAW_PREFIX + family, 0, encoded, 0)
            # Accepted when they happened, not all today.
            for record, at_us in zip(batch.records, times[family], strict=True):
                record.timestamp = at_us // 1000
            found[family] = (await sealed(preparer, batch, log_id)).events
        return found

    return asyncio.run(prepare())


def ranges(by_family: dict[str, Sequence[SealedEvent]], size: int) -> list[LeafRange]:
    """The leaves of a log for each family."""
    return [
        LeafRange(log_id, LogName(RAW_PREFIX + family, 0, 0), first, events[first : first + size])
        for log_id, (family, events) in enumerate(by_family.items())
        for first in range(0, len(events), size)
    ]


def timed(
    name: str,
    events: Sequence[SealedEvent],
    by_family: dict[str, Sequence[SealedEvent]],
    size: int,
    rounds: int,
    aggregator: Aggregator,
) -> None:
    """Print what the aggregation of some events costs."""
    cut = ranges(by_family, size)

    def aggregate() -> None:
        for leaves in cut:
            aggregator.aggregate(leaves)

    cost(name, len(events), rounds, aggregate)


def cost(name: str, count: int, rounds: int, step: Callable[[], object]) -> None:
    """Print the median and the best of some rounds."""
    found = []
    gc.collect()
    gc.freeze()  # what was made for the bench is not looked through again and again
    for _ in range(rounds):
        begin = time.process_time()
        step()
        found.append((time.process_time() - begin) / count * 1e6)
    print(f"{name:24}{median(found):8.2f} µs an event, {min(found):.2f} at best")


if __name__ == "__main__":
    sys.exit(main())
