"""What the index costs the worker: memory of a held event, CPU of a document, rate of bulks.

``python -m tests.bench.index_bench [count]``; the last part needs AUDIT_ELASTICSEARCH_URL.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import uvloop

from pipeline.domain.records import SealedEvent
from pipeline.generator.bench_events import lean_events, realistic_events
from sinks.documents import Documents
from tests.index_support import (
    LATE_AFTER_S,
    a_range,
    as_caught_up,
    open_index_server,
    seal_event,
)

START_US = 1_763_935_200_000_000
Make = Callable[..., Iterator[tuple[str, dict[str, Any]]]]


def sealed(make: Make, count: int) -> list[SealedEvent]:
    """Events as the ledger hands them to followers."""
    return [
        seal_event(family, event, offset=offset)
        for offset, (family, event) in enumerate(make(count, seed=1, start_at_us=START_US))
    ]


def memory(make: Make, count: int = 2_000) -> None:
    """Bytes per event as tracemalloc sees them, against the follower's estimate."""
    source = sealed(make, count)
    gc.collect()
    tracemalloc.start()
    events = [as_caught_up(event) for event in source]
    for event in events:
        event.canonical = bytes(bytearray(event.canonical))
    held = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    canonical = sum(len(event.canonical) for event in events) / count
    estimate = a_range(events).held_bytes / count
    print(f"memory    {held:8.0f} B/event, estimate {estimate:.0f}, canonical {canonical:.0f}")


def documents(events: list[SealedEvent]) -> None:
    """CPU of building documents, best of five."""
    builder = Documents(late_after_s=LATE_AFTER_S)
    best, size = float("inf"), 0
    for _ in range(5):
        started = time.process_time()
        size = sum(len(builder.document(event, "audit.raw.x/0/1", 1)) for event in events)
        best = min(best, time.process_time() - started)
    count = len(events)
    print(f"document  {best / count * 1e6:8.2f} us/event, {size / count:.0f} B")


async def bulks(events: list[SealedEvent]) -> None:
    """Rate and the worker's CPU of whole writes, by size and number of requests."""
    for mib in (1, 2, 5, 10):
        async with open_index_server() as server:
            server.url = os.environ["AUDIT_ELASTICSEARCH_URL"]  # not by the line of the tests
            destination = server.destination(bulk_max_bytes=mib << 20)
            started, cpu = time.perf_counter(), time.process_time()
            for first in range(0, len(events), 10_000):
                part = events[first : first + 10_000]
                await destination.write([a_range(part, first_leaf=first)])
            wall, cpu = time.perf_counter() - started, time.process_time() - cpu
            await destination.close()
        rate = len(events) / wall
        print(f"bulk {mib:2} MiB {rate:8.0f} events/s, {cpu / len(events) * 1e6:.1f} us CPU/event")


def main() -> None:
    """Run all parts for both kinds of event."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    for make in (lean_events, realistic_events):
        print(make.__name__)
        memory(make)
        events = sealed(make, count)
        documents(events)
        if os.environ.get("AUDIT_ELASTICSEARCH_URL"):
            uvloop.run(bulks(events))


if __name__ == "__main__":
    main()
