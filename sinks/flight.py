"""Batches on their way from a fetch to the ledger, and the lanes that they are in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline.domain.errors import ChainBroken, LetterTooLarge, Reason
from pipeline.domain.records import DeadLetter, LogHead, PreparedBatch, RecordBatch, SealedEvent


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """Bounds, each a setting."""

    batch_events: int
    queue_bytes: int
    retry_first_s: float
    retry_max_s: float
    outage_limit_s: float
    dead_letter_ratio: float
    dead_letter_window: int
    pace_share: float


@dataclass(slots=True)
class Lane:
    """One assigned partition: its log's head, and whether batches of it still count."""

    head: LogHead
    active: bool = True
    halt: ChainBroken | None = None  # why it stops, once all before ``halt_at`` is in the ledger
    halt_at: int = 0
    seen: int = 0
    bad: int = 0

    def is_rotten(self, records: int, dead: int, limits: DeliveryLimits) -> bool:
        """Whether more records of the window under way were bad than the limit allows of a whole one."""
        self.seen += records
        self.bad += dead
        window = max(self.seen, limits.dead_letter_window)
        rotten = self.bad > limits.dead_letter_ratio * window
        if rotten or self.seen >= limits.dead_letter_window:
            self.seen = self.bad = 0
        return rotten


@dataclass(slots=True)
class Flight:
    """A batch on its way."""

    batch: RecordBatch
    lane: Lane
    prepared: PreparedBatch | None = None

    def cut(self, at: LetterTooLarge) -> None:
        """Keep what is before a record that cannot be kept; of a batch behind it, nothing."""
        batch = self.prepared
        if batch is None or batch.start_offset >= at.offset:
            self.prepared = None
        elif at.offset < batch.end_offset:
            self.prepared = replace(
                batch,
                end_offset=at.offset,
                events=[event for event in batch.events if event.offset < at.offset],
                dead=[letter for letter in batch.dead if letter.record.offset < at.offset],
            )

    def take_reused(self, reused: Sequence[SealedEvent]) -> list[DeadLetter]:
        """The prepared events whose ids the ledger holds with other content, as dead letters now."""
        batch = self.prepared
        if batch is None:
            return []
        offsets = {event.offset for event in reused}
        records = {record.offset: record for record in self.batch.records}
        letters = [
            DeadLetter(
                self.batch.topic,
                self.batch.partition,
                records[event.offset],
                Reason.ID_REUSED,
                "event_id: in the ledger with another content",
                batch.name.epoch,
            )
            for event in batch.events
            if event.offset in offsets and event.offset in records
        ]
        gone = {letter.record.offset for letter in letters}
        events = [event for event in batch.events if event.offset not in gone]
        self.prepared = replace(batch, events=events, dead=[*batch.dead, *letters])
        return letters


def any_of(lanes: Sequence[Lane]) -> Callable[[], bool]:
    """Whether one of the lanes still counts, asked later."""
    return lambda: any(lane.active for lane in lanes)


def _older(one: int | None, other: int | None) -> int | None:
    known = [epoch for epoch in (one, other) if epoch is not None]
    return min(known, default=None)


def merge(flights: Iterable[Flight]) -> list[tuple[Lane, PreparedBatch]]:
    """One batch per lane: what follows without a gap is one transaction's one batch."""
    merged: dict[int, tuple[Lane, PreparedBatch]] = {}
    for flight in flights:
        batch = flight.prepared
        if batch is None:
            continue
        _lane, before = merged.get(id(flight.lane), (flight.lane, None))
        if before is not None:
            batch = replace(
                before,
                end_offset=batch.end_offset,
                events=before.events + batch.events,
                dead=before.dead + batch.dead,
                erasure_epoch=_older(before.erasure_epoch, batch.erasure_epoch),
            )
        merged[id(flight.lane)] = (flight.lane, batch)
    return list(merged.values())
