"""What each step of one event costs the worker: CPU of one process, one step after the other."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import zstandard

from benchmark.in_memory import SCHEMA_IDS, batch_of, make_preparer, sealed
from benchmark.kinds import Kind
from benchmark.sampling import Sampler
from pipeline.codec.wire import HEADER_BYTES, schema_id
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import Frontier
from pipeline.domain.records import LeafRange, RecordBatch, SealedEvent
from sinks import archive_format, ledger_plan, ocf, prepare, rows
from sinks.documents import Documents
from sinks.index import IndexDestination

LATE_AFTER_S = 86_400
ROUNDS = 5
BODY_BYTES = 2 << 20  # the default of `bulk_max_bytes`
_NAME = LogName("bench", 0, 0)


def measure(kind: Kind, count: int) -> dict[str, float]:
    """µs of CPU per event of each step, the best of a few rounds, and their sum."""
    preparer = make_preparer()
    now_ms = time.time_ns() // 1_000_000
    batch = batch_of(kind.topic, 0, kind.encoded(count, SCHEMA_IDS), now_ms)
    events = asyncio.run(sealed(preparer, batch, 1)).events  # and every key is known from now on
    for event in events:
        event.stored_at_us = now_ms * 1000
    steps = {
        "in Python: wire and decode": lambda: _decode(preparer, batch),
        "in Python: judge and owners": _judging(preparer, batch),
        "in Python: seal": _sealing(preparer, kind, batch),
        "decode, judge, seal, as they run": lambda: asyncio.run(sealed(preparer, batch, 1)),
        "rows of three tables": lambda: _rows(events),
        "Merkle nodes": lambda: _merkle(events),
        "document and bulk line": lambda: _bulks(events),
        "archive datums": lambda: _datums(events),
        "archive zstd": _compressing(events),
    }
    costs = {name: _best(step, count) for name, step in steps.items()}
    costs["sum of what runs"] = sum(
        cost for name, cost in costs.items() if not name.startswith("in Python")
    )
    return costs


def profile(kind: Kind, count: int) -> list[str]:
    """Where those steps spend their time: a few rounds of all of them under the sampler."""
    preparer = make_preparer()
    now_ms = time.time_ns() // 1_000_000
    batch = batch_of(kind.topic, 0, kind.encoded(count, SCHEMA_IDS), now_ms)
    asyncio.run(sealed(preparer, batch, 1))
    sampler = Sampler()
    sampler.start()
    for _ in range(ROUNDS):
        events = asyncio.run(sealed(preparer, batch, 1)).events
        _rows(events)
        _bulks(events)
        _datums(events)
    return sampler.stop()


def _best(step: Callable[[], Any], count: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        gc.collect()
        started = time.process_time()
        step()
        best = min(best, time.process_time() - started)
    return best / count * 1e6


def _decode(preparer: prepare.Preparer, batch: RecordBatch) -> list[Any]:
    ready = preparer._decoders.ready(batch.topic)  # noqa: SLF001
    return [
        ready[schema_id(record.value, 65_536)](record.value, HEADER_BYTES)  # type: ignore[arg-type]
        for record in batch.records
    ]


def _judging(preparer: prepare.Preparer, batch: RecordBatch) -> Callable[[], Any]:
    decoded = _decode(preparer, batch)
    number = schema_id(batch.records[0].value, 65_536)

    def judge() -> Any:
        return [
            preparer._judge.event(record, number, clear, groups)  # noqa: SLF001
            for record, (clear, groups) in zip(batch.records, decoded, strict=True)
        ]

    return judge


def _sealing(preparer: prepare.Preparer, kind: Kind, batch: RecordBatch) -> Callable[[], Any]:
    judged = _judging(preparer, batch)()
    wanted = {subject: 0 for accepted in judged for subject, _values in accepted.owned}
    asyncio.run(preparer._keys.resolve(wanted))  # noqa: SLF001
    known = preparer._keys.known  # noqa: SLF001
    return lambda: [
        prepare._seal(kind.family, accepted, known(accepted.owned) or [])  # noqa: SLF001
        for accepted in judged
    ]


def _merkle(events: Sequence[SealedEvent]) -> None:
    Frontier().append([event.leaf_hash for event in events], ledger_plan.node_hashes).root()


def _rows(events: Sequence[SealedEvent]) -> None:
    packer = rows.RowPacker(late_after_s=LATE_AFTER_S)
    rows.stream(rows.leaves(1, 0, events))
    rows.stream(packer.events(1, 0, events, events[0].stored_at_us))
    rows.stream(rows.blobs(1, 0, events))


def _bulks(events: Sequence[SealedEvent]) -> None:
    bulks(events, _NAME, 0)


def bulks(events: Sequence[SealedEvent], name: LogName, first_leaf: int) -> list[bytes]:
    """The request bodies that the index destination would send."""
    destination = IndexDestination(
        None,  # type: ignore[arg-type]
        Documents(late_after_s=LATE_AFTER_S),
        None,  # type: ignore[arg-type]
        prefix="audit-events",
        bulk_max_bytes=BODY_BYTES,
        retry_first_s=1,
        retry_max_s=1,
    )
    whole = [LeafRange(1, name, first_leaf, events)]
    return [chunk.text for chunk in destination.chunks(whole, BODY_BYTES)]


def _datums(events: Sequence[SealedEvent]) -> None:
    for start in range(0, len(events), 250):
        archive_format.leaf_datums(events[start : start + 250], start)
        archive_format.blob_datums(events[start : start + 250], start)


def _compressing(events: Sequence[SealedEvent]) -> Callable[[], Any]:
    bodies = (
        (archive_format.leaf_datums(events, 0), ocf.ZSTD_LEVEL),
        (archive_format.blob_datums(events, 0).pieces, ocf.ZSTD_LEVEL_CIPHERTEXT),
    )
    size, blocks = ocf.BLOCK_BYTES, []
    for pieces, level in bodies:
        whole = b"".join(pieces)
        cut = [whole[start : start + size] for start in range(0, len(whole), size)]
        blocks.append((zstandard.ZstdCompressor(level=level), cut))
    return lambda: [[compressor.compress(block) for block in cut] for compressor, cut in blocks]
