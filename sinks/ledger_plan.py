"""What one ledger transaction does with its batches, before any store is touched: pure rules.

Guarantees that leaves, positions and frontiers follow from the locked heads alone, so that a batch
that arrives twice, or is cut differently, gives each record one fate. Both ledgers use it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.domain.errors import ChainBroken, OutOfPosition
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import Frontier, parents
from pipeline.domain.records import (
    LeafRange,
    LogHead,
    PreparedBatch,
    SealedEvent,
    WriteOutcome,
)
from pipeline.native import native
from sinks.base import ReusedIds

node_hashes = parents if native is None else native.parents


@dataclass(slots=True)
class HeadState:
    """A locked head; ``root`` is that of ``frontier``."""

    log_id: int
    name: LogName
    next_offset: int
    frontier: Frontier
    root: bytes

    @property
    def head(self) -> LogHead:
        """The head as the contract shows it."""
        return LogHead(self.log_id, self.name, self.frontier.size, self.next_offset, self.root)


@dataclass(slots=True)
class Portion:
    """The part of one batch that the ledger lacks. ``events`` shrinks as duplicates are found."""

    batch: PreparedBatch
    first_offset: int
    events: list[SealedEvent]
    dead_lettered: int
    skipped: int
    first_leaf: int = 0
    duplicates: int = 0

    @property
    def next_offset(self) -> int:
        """The offset after the portion."""
        return max(self.batch.end_offset, self.first_offset)

    @property
    def holes(self) -> int:
        """Offsets without a record."""
        records = len(self.events) + self.duplicates + self.dead_lettered
        return self.next_offset - self.first_offset - records

    def outcome(self, head: LogHead) -> WriteOutcome:
        """What the caller is told once the portion is durable."""
        accepted = LeafRange(head.log_id, head.name, self.first_leaf, self.events)
        return WriteOutcome(head, accepted, self.duplicates, self.skipped)


def restored_head(
    log_id: int, name: LogName, *, next_offset: int, size: int, frontier: bytes, root: bytes
) -> HeadState:
    """A head as it was stored.

    Raises:
        ChainBroken: Its root, size and frontier contradict each other.
    """
    try:
        state = HeadState(log_id, name, next_offset, Frontier.from_bytes(size, frontier), root)
    except ValueError:
        state = None
    if state is None or state.frontier.root() != root:
        raise ChainBroken(
            str(name),
            f"the row of log_heads contradicts itself at size {size}: compare its root with the"
            " newest archive object, then restore the database",
        )
    return state


def portions(batches: Sequence[PreparedBatch], heads: Mapping[int, HeadState]) -> list[Portion]:
    """What each batch adds to its head; several batches of one log follow each other.

    Raises:
        ChainBroken: There is no such head, or it is of another log.
        OutOfPosition: A batch begins after its head.
    """
    positions = {log_id: head.next_offset for log_id, head in heads.items()}
    planned = []
    for batch in batches:
        head = heads.get(batch.log_id)
        if head is None or head.name != batch.name:
            raise ChainBroken(
                str(batch.name),
                f"log_heads has no row {batch.log_id} of this log: was the database replaced?"
                " Restart the worker",
            )
        position = positions[batch.log_id]
        if batch.start_offset > position:
            raise OutOfPosition(
                str(batch.name), next_offset=position, batch_start=batch.start_offset
            )
        portion = _portion(batch, position)
        positions[batch.log_id] = portion.next_offset
        planned.append(portion)
    return planned


def restoration(
    leaves: LeafRange, next_offset: int, heads: Mapping[int, HeadState]
) -> list[Portion]:
    """What leaves of the archive add to their head; they must continue it.

    Raises:
        ChainBroken: They do not, or there is no such head.
    """
    head = heads.get(leaves.log_id)
    start = head.next_offset if head else 0
    offsets = [event.offset for event in leaves.events]
    continues = head is not None and leaves.first_leaf == head.frontier.size
    if not continues or (offsets and not start <= offsets[0] <= offsets[-1] < next_offset):
        raise ChainBroken(
            str(leaves.name),
            f"leaf {leaves.first_leaf} of the archive does not continue the ledger at leaf"
            f" {head.frontier.size if head else 0}, offset {start}",
        )
    # The archive says which offsets became leaves, not what became of the others: holes.
    batch = PreparedBatch(leaves.log_id, leaves.name, start, next_offset, list(leaves.events))
    planned = portions([batch], heads)
    place(planned, heads)
    return planned


def _portion(batch: PreparedBatch, position: int) -> Portion:
    events, dead = batch.events, len(batch.dead)
    if batch.start_offset < position:
        events = [event for event in events if event.offset >= position]
        dead = sum(letter.record.offset >= position for letter in batch.dead)
    skipped = len(batch.events) + len(batch.dead) - len(events) - dead
    portion = Portion(batch, position, list(events), dead, skipped)
    if portion.holes < 0:
        raise ValueError(f"log {batch.name}: more records than offsets from {position} on")
    return portion


def sift(
    planned: Sequence[Portion],
    stored: Mapping[bytes, bytes],
    erased: Collection[bytes] = frozenset(),
) -> None:
    """Take out of the portions what the ledger, or an earlier event of the call, has already.

    ``stored`` maps event ids to leaf hashes; of those in ``erased`` the id alone makes a duplicate, since
    the same event is sealed otherwise now. Nothing is changed when ids are reused.

    Raises:
        ReusedIds: Events whose id is there with another hash.
    """
    known = dict(stored)
    reused: dict[LogName, list[SealedEvent]] = {}
    kept: list[list[SealedEvent]] = []
    for portion in planned:
        fresh = []
        for event in portion.events:
            held = known.get(event.event_id)
            if held is None:
                known[event.event_id] = event.leaf_hash
                fresh.append(event)
            elif held != event.leaf_hash and event.event_id not in erased:
                reused.setdefault(portion.batch.name, []).append(event)
        kept.append(fresh)
    if reused:
        raise ReusedIds(reused)
    for portion, fresh in zip(planned, kept, strict=True):
        portion.duplicates += len(portion.events) - len(fresh)
        portion.events = fresh


def place(planned: Iterable[Portion], heads: Mapping[int, HeadState]) -> None:
    """Give each portion its first leaf, from the locked heads."""
    sizes = {log_id: head.frontier.size for log_id, head in heads.items()}
    for portion in planned:
        log_id = portion.batch.log_id
        portion.first_leaf = sizes[log_id]
        sizes[log_id] += len(portion.events)


def moved(planned: Iterable[Portion], heads: Mapping[int, HeadState]) -> dict[int, HeadState]:
    """The heads after the portions: one Merkle append per log."""
    hashes: dict[int, list[bytes]] = {}
    offsets: dict[int, int] = {}
    for portion in planned:
        log_id = portion.batch.log_id
        hashes.setdefault(log_id, []).extend([event.leaf_hash for event in portion.events])
        offsets[log_id] = portion.next_offset
    after = {}
    for log_id, leaves in hashes.items():
        head = heads[log_id]
        frontier = head.frontier.append(leaves, node_hashes)
        root = frontier.root() if leaves else head.root
        after[log_id] = HeadState(log_id, head.name, offsets[log_id], frontier, root)
    return after
