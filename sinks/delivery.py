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
from functools import partial

from pipeline.domain.errors import ChainBroken, OutOfPosition
from pipeline.domain.records import LogHead, PreparedBatch, RecordBatch, WriteOutcome
from pipeline.logging import log_event
from pipeline.metrics import Metrics
from sinks.base import (
    Feed,
    Ledger,
    PartitionControl,
    Prepare,
    PublishDeadLetters,
    ReusedIds,
    StaleKeys,
)
from sinks.burial import Burial
from sinks.flight import DeliveryLimits, Flight, Lane, any_of, merge
from sinks.outage import NoLongerWanted, Outages

log = logging.getLogger(__name__)

_PACE_S = 0.01  # between two looks at a healthy follower that is nearly full
_PACE_MAX_S = 1.0  # at once
_STALE_S = 0.1


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
        self._feeds = feeds
        self._control = control
        self._limits = limits
        self._metrics = metrics
        self._sleep = sleep
        self._monotonic = monotonic
        self._now = now
        self._outages = Outages(
            first_s=limits.retry_first_s,
            longest_s=limits.retry_max_s,
            limit_s=limits.outage_limit_s,
            begins="intake_waits",
            ends="intake_goes_on",
            on_outage=metrics.intake_outage,
            sleep=sleep,
            monotonic=monotonic,
        )
        self._burial = Burial(
            publish_dead_letters, control, self._outages, limits, metrics, self.revoke
        )
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._fetched: deque[Flight] = deque()
        self._prepared: deque[Flight] = deque()
        self._queued_bytes = 0
        self._oldest_ms: dict[int, int] = {}  # of each flight: its first record's broker timestamp
        self._paced_at = monotonic()
        self._may_wait_s = 0.0
        self._changed = asyncio.Event()

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
        if lane is None or lane.halt is not None:
            return
        self._metrics.consumed(batch.topic, len(batch.records))
        self._count_bytes(batch.size_bytes)
        flight = Flight(batch, lane)
        if batch.records:
            self._oldest_ms[id(flight)] = batch.records[0].timestamp
        self._fetched.append(flight)
        self._changed.set()

    async def through_outages(self, call: Callable[[], Awaitable[None]]) -> None:
        """Make a call that all of intake waits for; shown and counted as its own outages are. Raises
        ``Unavailable`` after ``outage_limit_s``.
        """
        await self._outages.through(call)

    @property
    def waiting_for(self) -> set[str]:
        """The servers that intake waits for now; ``agents.watching`` adds the broker."""
        return self._outages.waiting_for

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
            flights: list[Flight] = []
            records = 0
            while self._fetched and records < self._limits.batch_events:
                flights.append(self._fetched.popleft())
                records += len(flights[-1].batch.records)
            await self._prepare(
                [flight for flight in flights if flight.lane.active and flight.lane.halt is None]
            )
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
            flights: list[Flight] = []
            events = 0
            while self._prepared and (not flights or events < self._limits.batch_events):
                flight = self._prepared.popleft()
                events += len(flight.prepared.events) if flight.prepared else 0
                flights.append(flight)
            self._changed.set()
            await self._pace()
            await self._write(flights)
            for flight in flights:
                self._landed(flight)

    # --- preparing ---

    async def _prepare(self, flights: Sequence[Flight]) -> None:
        lanes = [flight.lane for flight in flights]
        batches = [(flight.batch, flight.lane.head) for flight in flights]
        prepare = partial(self._preparer.prepare, batches)
        try:
            prepared = await self._outages.through(prepare, wanted=any_of(lanes))
        except NoLongerWanted:
            return
        for flight, batch in zip(flights, prepared, strict=True):
            flight.prepared = batch
        if not await self._burial.bury_prepared(flights):
            for flight in flights:
                flight.prepared = None
            return
        for flight, batch in zip(flights, prepared, strict=True):
            records, dead = len(flight.batch.records), len(batch.dead)
            await self._burial.hold_if_rotten(flight, records=records, dead=dead)

    async def _prepare_again(self, flights: Sequence[Flight]) -> None:
        """A person was erased since these were sealed: the same records with the keys as they are now.
        Their dead letters are acknowledged again, under the keys that they have.
        """
        await self._sleep(
            _STALE_S
        )  # the lease is renewed each second, and applies the erasure then
        live = [flight for flight in flights if flight.lane.active and flight.prepared is not None]
        log_event(log, "batches_sealed_again", batches=len(live))
        try:
            batches = [(flight.batch, flight.lane.head) for flight in live]
            prepared = await self._outages.through(
                partial(self._preparer.prepare, batches),
                wanted=any_of([flight.lane for flight in live]),
            )
        except NoLongerWanted:
            return
        for flight, batch in zip(live, prepared, strict=True):
            flight.prepared = batch
        if not await self._burial.bury_prepared(live):
            for flight in live:
                flight.prepared = None

    # --- writing ---

    async def _write(self, flights: Sequence[Flight]) -> None:
        while True:
            live = merge(flight for flight in flights if flight.lane.active)
            if not live:
                return None
            try:
                return await self._write_once(live)
            except ReusedIds as reused:
                lanes = [lane for lane, _batch in live]
                if not await self._burial.bury_reused(lanes, flights, reused):
                    return None
            except StaleKeys:
                await self._prepare_again(flights)
            except OutOfPosition as ahead:
                self._read_again(live, ahead)
            except ChainBroken as broken:
                if len(live) == 1:
                    return self._burial.stop(live[0][1].name, str(broken))
                # The server does not say which log it is; written apart, each speaks for itself.
                for lane, _batch in live:
                    await self._write([flight for flight in flights if flight.lane is lane])
                return None

    async def _write_once(self, live: Sequence[tuple[Lane, PreparedBatch]]) -> None:
        started = self._monotonic()
        write = partial(self._ledger.write, [batch for _lane, batch in live])
        try:
            outcomes = await self._outages.through(
                write, wanted=any_of([lane for lane, _batch in live])
            )
        except NoLongerWanted:
            return
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
        if lane.halt is not None and outcome.head.next_offset >= lane.halt_at:
            self._burial.stop(lane.head.name, str(lane.halt))

    # --- waiting ---

    async def _pace(self) -> None:
        """Let a healthy follower that is nearly full go first, for a part of the time at most.

        What it cannot keep it reads from the ledger again, at three times the cost; but a store that
        is slower than what comes in must not slow the ledger for long.
        """
        began = self._monotonic()
        worked_s = began - self._paced_at
        share = self._limits.pace_share
        self._may_wait_s = min(self._may_wait_s + worked_s * share / (1 - share), _PACE_MAX_S)
        while self._monotonic() - began < self._may_wait_s and any(
            feed.is_pressed() for feed in self._feeds
        ):
            await self._sleep(_PACE_S)
        self._paced_at = self._monotonic()
        self._may_wait_s -= min(self._paced_at - began, self._may_wait_s)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _prepared_events(self) -> int:
        return sum(len(flight.prepared.events) for flight in self._prepared if flight.prepared)

    def _landed(self, flight: Flight) -> None:
        self._oldest_ms.pop(id(flight), None)
        self._count_bytes(-flight.batch.size_bytes)
        self._changed.set()

    def _count_bytes(self, more: int) -> None:
        self._queued_bytes += more
        self._metrics.intake_queue_bytes.set(self._queued_bytes)
