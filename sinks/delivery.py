"""Delivery: every fetched batch, through judge and seal, past the dead letter, into the ledger.

Two tasks side by side: one prepares the next batches while the other's ledger transaction is under
way. A batch's dead letters are acknowledged before its transaction begins; followers are fed and
the batch is acked after it. What is down is waited for in place, up to ``outage_limit_s``; a revoked
partition's batches are abandoned at every step, since the next owner reads them again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from pipeline.domain.errors import ChainBroken, OutOfPosition, Reason, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.records import (
    DeadLetter,
    LeafRange,
    LogHead,
    PreparedBatch,
    RecordBatch,
    SealedEvent,
    WriteOutcome,
)
from pipeline.logging import log_event
from pipeline.metrics import Metrics
from sinks.base import Ledger, ReusedIds

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_PACE_S = 0.01  # between two looks at a healthy follower that is nearly full

# Acknowledged by all in-sync replicas on return; the same letters may be published again.
PublishDeadLetters = Callable[[Sequence[DeadLetter]], Awaitable[None]]


class Feed(Protocol):
    """What a follower offers to delivery."""

    def offer(self, fresh: LeafRange) -> None: ...

    def note_head(self, head: LogHead) -> None: ...

    def is_pressed(self) -> bool: ...


class Prepare(Protocol):
    """``sinks.prepare.Preparer``."""

    async def prepare(
        self, batches: Sequence[tuple[RecordBatch, LogHead]]
    ) -> list[PreparedBatch]: ...


class PartitionControl(Protocol):
    """What delivery asks of the transport, which owns fetching."""

    def stored(self, head: LogHead) -> None:
        """The ledger has everything below ``head.next_offset``."""
        ...

    def reread(self, topic: str, partition: int) -> None:
        """Ask the ledger where the partition stands, and fetch it from there on, again."""
        ...

    def stop(self, topic: str, partition: int, why: str) -> None:
        """Stop fetching the partition until a person acts; the others go on."""
        ...

    async def pause(self, topic: str, partition: int, why: str) -> None:
        """The same, remembered in the database until ``audit-trail resume``; what is fetched
        already goes on. Raises ``Unavailable``.
        """
        ...


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


@dataclass(slots=True)
class Lane:
    """One assigned partition: its log's head, and whether batches of it still count."""

    head: LogHead
    active: bool = True
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
class _Flight:
    """A batch on its way."""

    batch: RecordBatch
    lane: Lane
    prepared: PreparedBatch | None = field(default=None)


class Delivery:
    """Brings record batches to the ledger and tells the followers."""

    def __init__(
        self,
        ledger: Ledger,
        preparer: Prepare,
        publish_dead_letters: PublishDeadLetters,
        feeds: Sequence[Feed],
        control: PartitionControl,
        limits: DeliveryLimits,
        metrics: Metrics,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._preparer = preparer
        self._publish = publish_dead_letters
        self._feeds = feeds
        self._control = control
        self._limits = limits
        self._metrics = metrics
        self._sleep = sleep
        self._monotonic = monotonic
        self._now = now
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._fetched: deque[_Flight] = deque()
        self._prepared: deque[_Flight] = deque()
        self._queued_bytes = 0
        self._oldest_ms: dict[int, int] = {}  # of each flight: its first record's broker timestamp
        self._changed = asyncio.Event()
        self.waiting_for: set[str] = set()

    # --- what the transport calls ---

    def assign(self, head: LogHead) -> None:
        """Take batches of a log from ``head.next_offset`` on."""
        self.revoke(head.name.topic, head.name.partition)
        self._lanes[head.name.topic, head.name.partition] = Lane(head)

    def revoke(self, topic: str, partition: int) -> None:
        """Abandon what is in flight for a partition; nothing of it is acked or waited for."""
        lane = self._lanes.pop((topic, partition), None)
        if lane is not None:
            lane.active = False
            self._changed.set()

    async def room(self) -> None:
        """Return once less than ``queue_bytes`` wait for the ledger (back pressure)."""
        while self._queued_bytes >= self._limits.queue_bytes:
            await self._wait()

    def submit(self, batch: RecordBatch) -> None:
        """Take a batch; one of a partition that was revoked meanwhile is dropped."""
        lane = self._lanes.get((batch.topic, batch.partition))
        if lane is None:
            return
        self._metrics.consumed(batch.topic, len(batch.records))
        self._count_bytes(batch.size_bytes)
        flight = _Flight(batch, lane)
        self._oldest_ms[id(flight)] = batch.records[0].timestamp if batch.records else 0
        self._fetched.append(flight)
        self._changed.set()

    @property
    def idle(self) -> bool:
        """Nothing is in flight."""
        return not self._queued_bytes and not self._fetched and not self._prepared

    def oldest_ms(self) -> int | None:
        """The broker timestamp of the oldest batch that is under way; None: nothing is."""
        return min(self._oldest_ms.values(), default=None)

    # --- the two tasks; the worker runs both until it ends ---

    async def run_prepare(self) -> None:
        """Prepare what is fetched, in order: all of it at once, up to ``batch_events``."""
        while True:
            while not self._fetched or self._prepared_events() >= self._limits.batch_events:
                await self._wait()
            flights: list[_Flight] = []
            records = 0
            while self._fetched and records < self._limits.batch_events:
                flights.append(self._fetched.popleft())
                records += len(flights[-1].batch.records)
            await self._prepare([flight for flight in flights if flight.lane.active])
            for flight in flights:
                if flight.prepared is None:
                    self._landed(flight)
                else:
                    self._prepared.append(flight)
            self._changed.set()

    async def run_write(self) -> None:
        """Write what is prepared, all of it in one transaction, up to ``batch_events``."""
        while True:
            while not self._prepared:
                await self._wait()
            flights: list[_Flight] = []
            events = 0
            while self._prepared and (not flights or events < self._limits.batch_events):
                flight = self._prepared.popleft()
                events += len(flight.prepared.events) if flight.prepared else 0
                flights.append(flight)
            self._changed.set()
            while any(feed.is_pressed() for feed in self._feeds):
                await self._sleep(_PACE_S)
            await self._write(flights)
            for flight in flights:
                self._landed(flight)

    # --- preparing ---

    async def _prepare(self, flights: Sequence[_Flight]) -> None:
        lanes = [flight.lane for flight in flights]
        batches = [(flight.batch, flight.lane.head) for flight in flights]
        prepared = await self._through_outages(lanes, lambda: self._preparer.prepare(batches))
        letters = [letter for batch in prepared or () for letter in batch.dead]
        if prepared is None or (letters and not await self._bury(lanes, letters)):
            return
        for flight, batch in zip(flights, prepared, strict=True):
            flight.prepared = batch
            if flight.lane.is_rotten(len(flight.batch.records), len(batch.dead), self._limits):
                await self._pause(flight)

    async def _pause(self, flight: _Flight) -> None:
        why = f"more than {self._limits.dead_letter_ratio:.0%} of the records are dead letters"
        pause = partial(self._control.pause, flight.batch.topic, flight.batch.partition, why)
        await self._through_outages([flight.lane], pause)

    async def _bury(self, lanes: Sequence[Lane], letters: Sequence[DeadLetter]) -> bool:
        """Publish dead letters; false if every lane was revoked first. A log of which one cannot be
        kept stops, without a letter or an event of the batch under way.
        """

        async def publish() -> bool:
            await self._publish(letters)
            return True

        while letters:
            try:
                if not await self._through_outages(lanes, publish):
                    return False
                break
            except ChainBroken as broken:
                letters = self._without_log(lanes, letters, broken)
        for topic in {letter.topic for letter in letters}:
            reasons = [letter.reason for letter in letters if letter.topic == topic]
            self._metrics.dead_lettered(topic, reasons)
        return True

    def _without_log(
        self, lanes: Sequence[Lane], letters: Sequence[DeadLetter], broken: ChainBroken
    ) -> list[DeadLetter]:
        """Stop the log that ``broken`` names; the letters of the others."""
        lane = next((lane for lane in lanes if str(lane.head.name) == broken.log), None)
        if lane is None:
            raise broken
        name = lane.head.name
        if lane.active:
            self._stop(name, str(broken))
        return [
            letter
            for letter in letters
            if (letter.topic, letter.partition) != (name.topic, name.partition)
        ]

    def _stop(self, name: LogName, why: str) -> None:
        """Nothing of a log goes on until a person has acted."""
        self.revoke(name.topic, name.partition)
        log_event(log, "log_stopped", level=logging.ERROR, log=str(name), why=why)
        self._control.stop(name.topic, name.partition, why)

    # --- writing ---

    async def _write(self, flights: Sequence[_Flight]) -> None:
        while True:
            live = _merge(flight for flight in flights if flight.lane.active)
            if not live:
                return None
            try:
                return await self._write_once(live)
            except ReusedIds as reused:
                if not await self._bury_reused(live, flights, reused):
                    return None
            except OutOfPosition as ahead:
                self._read_again(live, ahead)
            except ChainBroken as broken:
                if len(live) == 1:
                    return self._stop(live[0][1].name, str(broken))
                # The server does not say which log it is; written apart, each speaks for itself.
                for lane, _batch in live:
                    await self._write([flight for flight in flights if flight.lane is lane])
                return None

    async def _write_once(self, live: Sequence[tuple[Lane, PreparedBatch]]) -> None:
        started = self._monotonic()
        outcomes = await self._through_outages(
            [lane for lane, _batch in live],
            partial(self._ledger.write, [batch for _lane, batch in live]),
        )
        if outcomes is not None:
            self._metrics.committed(self._monotonic() - started)
            for (lane, _batch), outcome in zip(live, outcomes, strict=True):
                self._stored(lane, outcome)

    def _read_again(self, live: Iterable[tuple[Lane, PreparedBatch]], ahead: OutOfPosition) -> None:
        """The log whose batch is ahead of the ledger; the batches of the others are written."""
        name = next((batch.name for _lane, batch in live if str(batch.name) == ahead.log), None)
        if name is None:
            raise ahead
        log_event(log, "log_read_again", log=ahead.log, next_offset=ahead.next_offset)
        self.revoke(name.topic, name.partition)
        self._control.reread(name.topic, name.partition)

    def _stored(self, lane: Lane, outcome: WriteOutcome) -> None:
        lane.head = outcome.head
        topic, accepted = outcome.head.name.topic, outcome.accepted
        self._metrics.stored(topic, accepted=len(accepted.events), duplicates=outcome.duplicates)
        if accepted.events:
            self._metrics.durable(
                "ledger",
                now_ms=int(self._now() * 1000),
                broker_timestamps_ms=[event.broker_timestamp_ms for event in accepted.events],
            )
        if not lane.active:
            return
        self._control.stored(outcome.head)
        for feed in self._feeds:
            if accepted.events:
                feed.offer(accepted)
            feed.note_head(outcome.head)

    async def _bury_reused(
        self,
        live: Sequence[tuple[Lane, PreparedBatch]],
        flights: Sequence[_Flight],
        reused: ReusedIds,
    ) -> bool:
        """Reused ids become dead letters, then the same batches are written without them."""
        letters: list[DeadLetter] = []
        found: list[tuple[_Flight, int]] = []
        for flight in flights:
            batch = flight.prepared
            if batch is None or batch.name not in reused.events:
                continue
            offsets = {event.offset for event in reused.events[batch.name]}
            records = {record.offset: record for record in flight.batch.records}
            mine = [
                DeadLetter(
                    flight.batch.topic,
                    flight.batch.partition,
                    records[event.offset],
                    Reason.ID_REUSED,
                    "event_id: in the ledger with another content",
                    batch.name.epoch,
                )
                for event in batch.events
                if event.offset in offsets
            ]
            if mine:
                flight.prepared = _without(batch, mine)
                letters += mine
                found.append((flight, len(mine)))
        if not await self._bury([lane for lane, _batch in live], letters):
            return False
        for flight, dead in found:  # their records were counted when they were prepared
            if flight.lane.is_rotten(0, dead, self._limits):
                await self._pause(flight)
        return True

    # --- waiting ---

    async def _through_outages(
        self, lanes: Sequence[Lane], call: Callable[[], Awaitable[_T]]
    ) -> _T | None:
        """The call's result, tried until it is there; None once no lane is active.

        Raises:
            Unavailable: After ``outage_limit_s``: the worker ends and its supervisor restarts it.
        """
        wait_s, down_since, what = self._limits.retry_first_s, 0.0, ""
        try:
            while True:
                try:
                    return await call()
                except Unavailable as outage:
                    if not any(lane.active for lane in lanes):
                        return None
                    now = self._monotonic()
                    if not what:
                        down_since = now
                        self._metrics.intake_outage(outage.what)
                        log_event(log, "intake_waits", server=outage.what, level=logging.WARNING)
                    elif now - down_since > self._limits.outage_limit_s:
                        raise
                    self.waiting_for.discard(what)
                    what = outage.what
                    self.waiting_for.add(what)
                    await self._sleep(wait_s)
                    wait_s = min(2 * wait_s, self._limits.retry_max_s)
        finally:
            if what:
                self.waiting_for.discard(what)
                log_event(log, "intake_goes_on", server=what)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _prepared_events(self) -> int:
        return sum(len(flight.prepared.events) for flight in self._prepared if flight.prepared)

    def _landed(self, flight: _Flight) -> None:
        self._oldest_ms.pop(id(flight), None)
        self._count_bytes(-flight.batch.size_bytes)
        self._changed.set()

    def _count_bytes(self, more: int) -> None:
        self._queued_bytes += more
        self._metrics.intake_queue_bytes.set(self._queued_bytes)


def _merge(flights: Iterable[_Flight]) -> list[tuple[Lane, PreparedBatch]]:
    """One batch per lane: what follows without a gap is one transaction's one batch."""
    merged: dict[int, tuple[Lane, PreparedBatch]] = {}
    for flight in flights:
        batch = flight.prepared
        if batch is None:
            continue
        known = merged.get(id(flight.lane))
        if known is None:
            merged[id(flight.lane)] = (flight.lane, batch)
        else:
            before = known[1]
            merged[id(flight.lane)] = (
                flight.lane,
                PreparedBatch(
                    log_id=before.log_id,
                    name=before.name,
                    start_offset=before.start_offset,
                    end_offset=batch.end_offset,
                    events=before.events + batch.events,
                    dead=before.dead + batch.dead,
                ),
            )
    return list(merged.values())


def _without(batch: PreparedBatch, letters: Sequence[DeadLetter]) -> PreparedBatch:
    """The batch with some of its events turned into dead letters."""
    gone = {letter.record.offset for letter in letters}
    events: list[SealedEvent] = [event for event in batch.events if event.offset not in gone]
    return PreparedBatch(
        log_id=batch.log_id,
        name=batch.name,
        start_offset=batch.start_offset,
        end_offset=batch.end_offset,
        events=events,
        dead=[*batch.dead, *letters],
    )
