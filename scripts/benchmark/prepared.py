"""What the bare loader writes, made beforehand: the very bytes that the worker would send.

Same rows in the same COPY streams, same request bodies for the index, same pairs of objects. Only
what is random differs from the worker's: keys, subject refs and nonces.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmark.in_memory import batch_of, make_preparer, sealed
from benchmark.kinds import Kind, by_partition
from benchmark.steps import LATE_AFTER_S, bulks
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import Frontier
from pipeline.domain.records import SealedEvent
from pipeline.importers.encode import RawRecord
from sinks import rows
from sinks.archive_buffer import ArchiveBuffer
from sinks.archive_format import archive_key, blobs_key

TRANSACTION_EVENTS = 5_000
# What the prepared bodies name in place of the index of a run, which is not known yet: as long as
# the name of one, and found nowhere else in a document.
INDEX = "bench-index-of-the-run-xx"


@dataclass(frozen=True, slots=True)
class Transaction:
    """Three COPY streams of one log, and its head and intake afterwards."""

    log_id: int
    leaves: bytes
    events: bytes
    blobs: bytes
    first_leaf: int
    next_leaf: int
    frontier: bytes
    root: bytes


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of the archive (``locked``) or of the vault."""

    locked: bool
    key: str
    body: bytes
    metadata: Mapping[str, str]
    body_sha256: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that one loader writes."""

    topic: str
    events: int
    transactions: Sequence[Transaction]
    bulk_bodies: Sequence[bytes]
    objects: Sequence[StoredObject]


def prepare(
    kind: Kind, records: Sequence[RawRecord], schema_ids: Mapping[str, int], *, object_leaves: int
) -> Prepared:
    """Everything for one kind of event, as far as it can be ready before the loader runs."""
    return asyncio.run(_prepare(kind, records, schema_ids, object_leaves))


def save(prepared: Prepared, path: Path) -> None:
    """For the loader's process to read."""
    with path.open("wb") as file:
        pickle.dump(prepared, file, protocol=5)


def load(path: Path) -> Prepared:
    """What ``save`` wrote, a moment ago and in a folder of our own."""
    with path.open("rb") as file:
        prepared = pickle.load(file)  # noqa: S301
    if not isinstance(prepared, Prepared):
        raise TypeError(f"{path} holds something else")
    return prepared


async def _prepare(
    kind: Kind, records: Sequence[RawRecord], schema_ids: Mapping[str, int], object_leaves: int
) -> Prepared:
    preparer = make_preparer(schema_ids)
    now_us = time.time_ns() // 1000
    transactions: list[list[Transaction]] = []
    bodies: list[bytes] = []
    objects: list[StoredObject] = []
    with ThreadPoolExecutor(1) as threads:
        for partition, part in enumerate(by_partition(records)):
            log_id, name = partition + 1, LogName(kind.topic, partition, 0)
            batch = batch_of(kind.topic, partition, part, now_us // 1000)
            events = (await sealed(preparer, batch, log_id)).events
            for event in events:
                event.stored_at_us = now_us
            transactions.append(_transactions(events, log_id))
            bodies += _bodies(events, name)
            for first in range(0, len(events), object_leaves):
                chosen = events[first : first + object_leaves]
                objects += await _objects(chosen, name, first, threads)
    in_turn = [each for group in zip(*transactions, strict=True) for each in group]
    return Prepared(kind.topic, len(records), in_turn, bodies, objects)


def _transactions(events: Sequence[SealedEvent], log_id: int) -> list[Transaction]:
    packer = rows.RowPacker(late_after_s=LATE_AFTER_S)
    frontier = Frontier()
    transactions = []
    for first in range(0, len(events), TRANSACTION_EVENTS):
        part = events[first : first + TRANSACTION_EVENTS]
        frontier = frontier.append([event.leaf_hash for event in part])
        transactions.append(
            Transaction(
                log_id,
                rows.stream(rows.leaves(log_id, first, part)),
                rows.stream(packer.events(log_id, first, part, part[0].stored_at_us)),
                rows.stream(rows.blobs(log_id, first, part)),
                first,
                first + len(part),
                frontier.to_bytes(),
                frontier.root(),
            )
        )
    return transactions


def _bodies(events: Sequence[SealedEvent], name: LogName) -> list[bytes]:
    return [
        body.replace(b'"audit-events-', b'"%s-' % INDEX.encode()) for body in bulks(events, name, 0)
    ]


async def _objects(
    events: Sequence[SealedEvent], name: LogName, first_leaf: int, threads: ThreadPoolExecutor
) -> list[StoredObject]:
    buffer = ArchiveBuffer(
        name,
        first_leaf,
        executor=threads,
        opened_at_s=0,
        max_events=len(events),
        max_bytes=1 << 40,
    )
    buffer.add_all(events)
    pair = await buffer.pair()
    blobs, leaves = pair.blobs, pair.leaves
    return [
        StoredObject(
            False,
            blobs_key(name, first_leaf),
            pair.blobs_body,
            blobs.to_metadata(),
            blobs.body_sha256,
        ),
        StoredObject(
            True,
            archive_key(name, first_leaf),
            pair.leaves_body,
            leaves.to_metadata(),
            leaves.body_sha256,
        ),
    ]
