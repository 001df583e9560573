"""How fast the archive is verified, on one core: objects made here, read from memory.

PYTHONPATH=. python tests/bench/verify_bench.py [EVENTS]

The bound is 150,000 events/s per core on the machine of `make bench`: SHA-256 of every body, zstandard,
every leaf hash, the subjects of every event, every blob, every root.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from pipeline.compliance.archive_objects import check_object
from sinks.archive_buffer import ArchiveBuffer, ObjectPair
from tests.archive_support import new_log, realistic_event

EVENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000


async def make() -> ObjectPair:
    with ThreadPoolExecutor(1) as executor:
        buffer = ArchiveBuffer(
            new_log(), 0, executor=executor, opened_at_s=0, max_events=EVENTS, max_bytes=1 << 40
        )
        buffer.add_all([realistic_event(leaf) for leaf in range(EVENTS)])
        return await buffer.pair()


def main() -> None:
    pair = asyncio.run(make())
    spent = []
    for _ in range(3):
        started = time.process_time()
        checked = check_object(pair.leaves, pair.leaves_body, pair.blobs, pair.blobs_body)
        spent.append(time.process_time() - started)
        assert not checked.problems
    best = min(spent)
    size = len(pair.leaves_body) // EVENTS, len(pair.blobs_body) // EVENTS
    print(f"{EVENTS} events, {size[0]} + {size[1]} bytes each as stored")
    print(
        f"archive objects verified: {EVENTS / best:,.0f} events/s of CPU ({best / EVENTS * 1e6:.2f} µs each)"
    )


if __name__ == "__main__":
    main()
