"""What one event costs the archive, in µs of CPU: encoding, compression by level, a whole write.

PYTHONPATH=. python tests/bench/archive_bench.py
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import zstandard

from pipeline.domain.merkle import Frontier
from pipeline.domain.records import LeafRange
from sinks import ocf
from sinks.archive import ArchiveDestination
from sinks.archive_format import blob_datums, leaf_datums
from sinks.s3 import S3
from tests.archive_support import escrowed_already, new_log, realistic_event

EVENTS = 20_000
LEVELS = (-5, -1, 1, 2, 3, 4, 5)


def cpu_us(act: Callable[[], Any]) -> float:
    """CPU of this process per event, the best of three."""
    spent = []
    for _ in range(3):
        started = time.process_time()
        act()
        spent.append(time.process_time() - started)
    return min(spent) / EVENTS * 1e6


def main() -> None:
    events = [realistic_event(leaf) for leaf in range(EVENTS)]
    canonical = sum(len(event.canonical) for event in events) // EVENTS
    print(f"canonical event: {canonical} bytes, {len(events[0].blobs)} blob")
    print(f"leaf datums      {cpu_us(lambda: leaf_datums(events, 10**7)):6.2f} µs")
    print(f"blob datums      {cpu_us(lambda: blob_datums(events, 10**7)):6.2f} µs")
    hashes = [event.leaf_hash for event in events]
    print(f"subtree root     {cpu_us(lambda: Frontier().append(hashes).root()):6.2f} µs")
    raw = b"".join(leaf_datums(events, 10**7))
    chunks = [raw[at : at + ocf.BLOCK_BYTES] for at in range(0, len(raw), ocf.BLOCK_BYTES)]
    for level in LEVELS:
        packer = zstandard.ZstdCompressor(level=level)
        packed = sum(len(packer.compress(chunk)) for chunk in chunks) // EVENTS
        spent = cpu_us(partial(compress, packer, chunks))
        print(f"zstd level {level:3}   {spent:6.2f} µs  {len(raw) // EVENTS} -> {packed} bytes")
    spent = cpu_us(lambda: asyncio.run(write(events)))
    print(f"write, no server {spent:6.2f} µs (all threads; without the SDK's signing and sending)")


def compress(packer: zstandard.ZstdCompressor, chunks: list[bytes]) -> None:
    for chunk in chunks:
        packer.compress(chunk)


async def write(events: list[Any]) -> None:
    """One object of everything, put nowhere."""
    client = SimpleNamespace(put_object=lambda **_: None, close=lambda: None)
    s3 = S3(cast("Any", client))
    name = new_log()
    destination = ArchiveDestination(
        s3,
        archive_bucket="archive",
        vault_bucket="vault",
        read_ledger=cast("Any", None),
        ensure_escrowed=escrowed_already,
        retention_days=lambda _: timedelta(days=365).days,
        lock_mode="GOVERNANCE",
        max_events=EVENTS,
    )
    for at in range(0, EVENTS, 2_500):
        await destination.write([LeafRange(1, name, at, events[at : at + 2_500])])
    assert destination.held_bytes == 0
    await s3.close()


if __name__ == "__main__":
    main()
