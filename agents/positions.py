"""Positions: which raw partitions this worker holds, where each stands, and why one stands still.

An assigned partition is fetched once the ledger has said from where; a partition whose ledger,
archive and topic contradict each other stops with a message that says what to do, the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from faust.types import TP

from agents.places import Operators, Place, Topics, Waits
from agents.recovery import Recovery
from agents.transport import BatchConsumer, settle
from pipeline.domain.errors import ChainBroken
from pipeline.domain.logs import RAW_TOPICS
from pipeline.domain.records import LogHead, PreparedBatch
from pipeline.logging import log_event
from pipeline.metrics import Metrics
from sinks.base import Ledger
from sinks.delivery import Delivery
from sinks.follower import Follower
from sinks.outage import Outages

log = logging.getLogger(__name__)

_RUNBOOK = "see docs/runbooks/stopped-partition.md"
REASON_STOPPED = "stopped"
REASON_DEAD_LETTERS = "dead_letters"


class Positions:
    """Implements ``RawPartitions`` for the transport and ``PartitionControl`` for delivery."""

    def __init__(
        self,
        ledger: Ledger,
        followers: Sequence[Follower],
        operators: Operators,
        *,
        topics: Topics,
        recovery: Recovery,
        waits: Waits,
        metrics: Metrics,
        crash: Callable[[BaseException], None],
    ) -> None:
        self._ledger = ledger
        self._followers = followers
        self._operators = operators
        self._topics = topics
        self._recovery = recovery
        self._waits = waits
        self._metrics = metrics
        self._crash = crash
        self._outages = Outages(
            first_s=waits.retry_first_s,
            longest_s=waits.retry_max_s,
            limit_s=waits.outage_limit_s,
            begins="partition_waits",
            ends="partition_waits_no_more",
            on_outage=metrics.intake_outage,
        )
        self._places: dict[TP, Place] = {}
        self._tasks: dict[TP, asyncio.Task[None]] = {}
        self._behind: set[TP] = set()  # the ledger was found behind what this worker wrote
        self._was_assigned = False
        self._closed = False
        self.consumer: BatchConsumer  # both set by the composition root: they need this object
        self.delivery: Delivery

    # --- RawPartitions, for the transport ---

    def is_raw(self, topic: str) -> bool:
        return topic in RAW_TOPICS

    def assigned(self, partitions: frozenset[TP]) -> None:
        self.revoked(frozenset(self._places))
        self._was_assigned = True
        for tp in sorted(partitions):
            self._places[tp] = Place()
            self._start_placing(tp)
        log_event(log, "partitions_assigned", partitions=len(partitions))

    def revoked(self, partitions: frozenset[TP]) -> None:
        for tp in partitions:
            task = self._tasks.pop(tp, None)
            if task is not None:
                task.cancel()
            place = self._places.pop(tp, None)
            self.delivery.revoke(tp.topic, tp.partition)
            if place is not None:
                self._metrics.revoked(tp.topic, tp.partition)
                for follower in self._followers:
                    for log_id in place.followed:
                        follower.revoke(log_id)

    def halted(self, partition: TP, why: str) -> None:
        self.stop(partition.topic, partition.partition, f"{why}; {_RUNBOOK}")

    async def room(self) -> None:
        await self.delivery.room()

    # --- PartitionControl, for delivery ---

    def stored(self, head: LogHead) -> None:
        tp = TP(head.name.topic, head.name.partition)
        place = self._places.get(tp)
        if place is not None:
            place.head = head
            self.consumer.stored(tp, head.next_offset)
            self.goes_on(tp)

    def reread(self, topic: str, partition: int) -> None:
        """The ledger is behind what this worker wrote: it was rolled back; place it anew."""
        tp = TP(topic, partition)
        self.delivery.revoke(topic, partition)
        if tp in self._places:
            self._behind.add(tp)
        self.place_anew(tp)

    def stop(self, topic: str, partition: int, why: str) -> None:
        tp = TP(topic, partition)
        self.consumer.stand_still(tp)
        place = self._places.get(tp)
        if place is None:
            return
        place.placed = False
        place.retry_at = time.monotonic() + self._waits.stopped_again_s
        known, place.stopped = place.stopped, why
        if why != known:
            self._metrics.paused(topic, partition, REASON_STOPPED)
            log_event(
                log,
                "partition_stopped",
                level=logging.ERROR,
                topic=topic,
                partition=partition,
                why=why,
            )

    async def pause(self, topic: str, partition: int, why: str) -> None:
        await self._operators.pause(topic, partition, reason=REASON_DEAD_LETTERS, detail=why)
        self._hold(TP(topic, partition), why)

    # --- placing ---

    async def _place(self, tp: TP) -> None:
        """Find where a partition stands and fetch it from there, whatever is down meanwhile."""
        place = partial(self._place_once, tp)
        try:
            await self._outages.through(place, topic=tp.topic, partition=tp.partition)
        except ChainBroken as broken:
            self.stop(tp.topic, tp.partition, f"{broken}; {_RUNBOOK}")
        except asyncio.CancelledError:
            raise
        except BaseException as bug:  # noqa: BLE001 - an outage beyond the limit, or a bug
            self._crash(bug)

    async def _place_once(self, tp: TP) -> None:
        place = self._places[tp]
        epochs = await self._epochs(tp)
        if epochs:  # how far it is behind is known even where it cannot be placed
            place.head = epochs[-1]
        await self._follow_older(tp, place, epochs[:-1])
        try:
            head = await self._current(tp)
        except ChainBroken:
            # Intake stops; what the ledger has goes on to the stores.
            for newest in epochs[-1:]:
                if newest.log_id not in place.followed:
                    self._follow(place, newest)
            raise
        place.head = head
        self.delivery.assign(head)
        self._follow(place, head)
        await self.consumer.place(tp, head.next_offset)
        self._behind.discard(tp)
        place.placed = True
        for pause in await self._operators.pauses():
            if (pause.topic, pause.partition) == tp:
                self._hold(tp, pause.detail or pause.reason)
        log_event(log, "partition_placed", log=str(head.name), next_offset=head.next_offset)

    async def _current(self, tp: TP) -> LogHead:
        """The head of the log that goes on, checked against archive and topic."""
        cluster_id, topic_id = await self._topics.ids(tp.topic)
        self._places[tp].topic_id = topic_id
        head = await self._ledger.open_log(
            tp.topic, tp.partition, cluster_id=cluster_id, topic_id=topic_id
        )
        self._places[tp].head = head
        head = await self._recovered(tp, head)
        return await self._within_bounds(tp, head)

    async def _epochs(self, tp: TP) -> list[LogHead]:
        """Every log of the partition, the newest last."""
        heads = await self._operators.heads()
        return [
            LogHead(row.log_id, row.name, row.size, row.next_offset, row.root)
            for row in sorted(heads, key=lambda row: row.name.epoch)
            if (row.name.topic, row.name.partition) == tp
        ]

    async def _follow_older(self, tp: TP, place: Place, older: Sequence[LogHead]) -> None:
        """Logs that ended may have leaves that a store, or a rolled-back ledger, still lacks."""
        behind = tp in self._behind
        for head in older:
            if behind or head.log_id not in place.followed:
                self._follow(place, await self._recovery.recover(head, rolled_back=behind))

    def _follow(self, place: Place, head: LogHead) -> None:
        place.followed.add(head.log_id)
        for follower in self._followers:
            follower.assign(head)

    async def _recovered(self, tp: TP, head: LogHead) -> LogHead:
        """What the archive has and the ledger lost comes back first.

        The group's committed offset tells a rolled-back ledger: it is never ahead of an honest one.
        """
        committed = await self.consumer.committed(tp)
        behind = committed is not None and committed > head.next_offset
        return await self._recovery.recover(head, rolled_back=behind or tp in self._behind)

    async def _within_bounds(self, tp: TP, head: LogHead) -> LogHead:
        """The head, once the topic holds what follows it. Raises ``ChainBroken``: it does not."""
        first, end = await self._topics.bounds(tp.topic, tp.partition)
        self._places[tp].ends(head, (first, end))
        if end < head.next_offset:
            raise ChainBroken(
                str(head.name),
                f"the topic ends at offset {end}, the ledger is at {head.next_offset}: the topic lost"
                f" records or was replaced; {_way_out(tp)}",
            )
        if head.next_offset < first <= await self._operators.deleted_below(tp.topic, tp.partition):
            # An erasure cut the topic there, and the database was rolled back since. Once the archive has
            # given back every leaf of these records, what is left of them are holes.
            head = await self._recovery.recover(head, rolled_back=True)
            if first <= head.next_offset:
                return head
            gap = PreparedBatch(head.log_id, head.name, head.next_offset, first, [])
            (outcome,) = await self._ledger.write([gap])
            log_event(log, "erased_records_passed_over", log=str(head.name), next_offset=first)
            return outcome.head
        if first > head.next_offset:
            raise ChainBroken(
                str(head.name),
                f"the topic begins at offset {first}, the ledger is at {head.next_offset}: records in"
                f" between were deleted before they were read; {_way_out(tp)}",
            )
        return head

    # --- pauses ---

    def _hold(self, tp: TP, why: str) -> None:
        self.consumer.stand_still(tp)
        place = self._places.get(tp)
        if place is not None:
            place.paused = why
            self._metrics.paused(tp.topic, tp.partition, REASON_DEAD_LETTERS)
            log_event(
                log,
                "partition_paused",
                level=logging.ERROR,
                topic=tp.topic,
                partition=tp.partition,
                why=why,
            )

    # --- for agents.watching ---

    def place_anew(self, tp: TP) -> None:
        """Stand still, and ask ledger and topic again where to go on."""
        self.consumer.stand_still(tp)
        place = self._places.get(tp)
        if place is not None:
            place.placed = False
            self._start_placing(tp)

    def goes_on(self, tp: TP) -> None:
        """What stopped a partition is over once it was read on, or has nothing to read."""
        place = self._places.get(tp)
        if place is not None and place.stopped and place.placed:
            place.stopped = ""
            self._show(tp, place)
            log_event(log, "partition_goes_on", topic=tp.topic, partition=tp.partition)

    def resume(self, tp: TP) -> None:
        """Go on with a partition whose pause was lifted, unless it stands still for more than that:
        it is read again once it is placed.
        """
        place = self._places.get(tp)
        if place is not None:
            place.paused = ""
            self._show(tp, place)
            if place.placed:
                self.consumer.resume_reading(tp)
            log_event(log, "partition_resumed", topic=tp.topic, partition=tp.partition)

    def _show(self, tp: TP, place: Place) -> None:
        """Why a partition stands still, of two reasons the one that is left."""
        self._metrics.resumed(tp.topic, tp.partition)
        if place.stopped:
            self._metrics.paused(tp.topic, tp.partition, REASON_STOPPED)
        if place.paused:
            self._metrics.paused(tp.topic, tp.partition, REASON_DEAD_LETTERS)

    def _start_placing(self, tp: TP) -> None:
        task = self._tasks.pop(tp, None)
        if task is not None:
            task.cancel()
        if self._closed:
            return
        self._tasks[tp] = asyncio.create_task(self._place(tp), name=f"place {tp}")

    def lag(self, tp: TP) -> int | None:
        """Records between the ledger and the topic's end, as the last fetch said, or the broker when it
        was asked since; None: unknown.
        """
        place = self._places.get(tp)
        if place is None or place.head is None:
            return None
        if place.outside is not None:
            return place.outside
        known = [end for end in (self.consumer.highwater(tp), place.end) if end is not None]
        return max(max(known) - place.head.next_offset, 0) if known else None

    @property
    def was_assigned(self) -> bool:
        """The group has given this worker its partitions, which may be none."""
        return self._was_assigned

    @property
    def waiting_for(self) -> set[str]:
        """The servers that placing waits for now."""
        return self._outages.waiting_for

    def places(self) -> dict[TP, Place]:
        """Every assigned partition, now."""
        return dict(self._places)

    async def close(self) -> None:
        """Cancel what is being placed, and place nothing more."""
        self._closed = True
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            await settle(task)


def _way_out(tp: TP) -> str:
    return f"`audit-trail open-epoch {tp.topic} {tp.partition}` begins a new log"
