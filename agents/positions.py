"""Positions: which raw partitions this worker holds, where each stands, and why one stands still.

An assigned partition is fetched once the ledger has said from where; a partition whose ledger,
archive and topic contradict each other stops with a message that says what to do, the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiokafka.errors import KafkaError
from faust.types import TP

from agents.recovery import Recovery
from agents.transport import BatchConsumer, settle
from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import RAW_TOPICS
from pipeline.domain.records import LogHead
from pipeline.logging import log_event
from pipeline.metrics import Metrics
from sinks.base import Ledger
from sinks.delivery import Delivery
from sinks.follower import Follower
from sinks.operations import HeadRow, Pause

log = logging.getLogger(__name__)

_RUNBOOK = "see docs/runbooks/stopped-partition.md"
REASON_STOPPED = "stopped"
REASON_DEAD_LETTERS = "dead_letters"


class Operators(Protocol):
    """``sinks.operations.Operations``: which logs there are, and table ``partition_pause``."""

    async def heads(self) -> Sequence[HeadRow]: ...

    async def pause(self, topic: str, partition: int, *, reason: str, detail: str) -> bool: ...

    async def pauses(self) -> Sequence[Pause]: ...


class Topics(Protocol):
    """``agents.identity.TopicFacts``."""

    async def ids(self, topic: str) -> tuple[str, str]: ...

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...


@dataclass(slots=True)
class Place:
    """One assigned partition."""

    head: LogHead | None = None
    stopped: str = ""  # why it stands still; looked at again every ``stopped_again_s``
    retry_at: float = 0.0
    topic_id: str = ""  # of the topic that it was placed in
    placed: bool = False  # fetched from where the ledger says, since it last stood still
    paused: str = ""  # why it stands still until `audit-trail resume`
    followed: set[int] = field(default_factory=set)  # log ids of the epochs that followers have

    @property
    def still(self) -> str:
        return self.stopped or self.paused


@dataclass(frozen=True, slots=True)
class Waits:
    """How outages are waited for, and how often pauses and lags are looked at; seconds."""

    retry_first_s: float
    retry_max_s: float
    outage_limit_s: float
    look_every_s: float = 1.0
    stopped_again_s: float = 10.0


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
            self._goes_on(tp, place)

    def reread(self, topic: str, partition: int) -> None:
        """The ledger is behind what this worker wrote: it was rolled back; place it anew."""
        tp = TP(topic, partition)
        self.consumer.stand_still(tp)
        if tp in self._places:
            self._behind.add(tp)
            self._start_placing(tp)

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
        wait_s, waited_s = self._waits.retry_first_s, 0.0
        while True:
            try:
                await self._place_once(tp)
            except ChainBroken as broken:
                self.stop(tp.topic, tp.partition, f"{broken}; {_RUNBOOK}")
            except (Unavailable, KafkaError) as outage:
                if waited_s >= self._waits.outage_limit_s:
                    self._crash(outage)
                    return
                if not waited_s:
                    log_event(
                        log,
                        "partition_waits",
                        level=logging.WARNING,
                        topic=tp.topic,
                        partition=tp.partition,
                        error=outage,
                    )
                await asyncio.sleep(wait_s)
                waited_s += wait_s
                wait_s = min(2 * wait_s, self._waits.retry_max_s)
                continue
            except asyncio.CancelledError:
                raise
            except BaseException as bug:  # noqa: BLE001 - a task's bug must end the worker
                self._crash(bug)
            return

    async def _place_once(self, tp: TP) -> None:
        place = self._places[tp]
        epochs = await self._epochs(tp)
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
        head = await self._recovered(tp, head)
        await self._check_bounds(tp, head)
        return head

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

    async def _check_bounds(self, tp: TP, head: LogHead) -> None:
        first, end = await self._topics.bounds(tp.topic, tp.partition)
        if end < head.next_offset:
            raise ChainBroken(
                str(head.name),
                f"the topic ends at offset {end}, the ledger is at {head.next_offset}: the topic lost"
                f" records or was replaced; {_way_out(tp)}",
            )
        if first > head.next_offset:
            raise ChainBroken(
                str(head.name),
                f"the topic begins at offset {first}, the ledger is at {head.next_offset}: records in"
                f" between were deleted before they were read; {_way_out(tp)}",
            )

    # --- pauses, lags, state ---

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

    async def watch(self) -> None:
        """Lift pauses that a person resumed, and measure lags, until cancelled."""
        while True:
            await asyncio.sleep(self._waits.look_every_s)
            self._measure()
            self._try_stopped_again()
            held = [tp for tp, place in self._places.items() if place.paused]
            if not held:
                continue
            try:
                still = {(pause.topic, pause.partition) for pause in await self._operators.pauses()}
            except Unavailable:
                continue
            for tp in held:
                if tp not in still and tp in self._places:
                    self._places[tp].paused = ""
                    self._metrics.resumed(tp.topic, tp.partition)
                    self.consumer.resume_reading(tp)
                    log_event(log, "partition_resumed", topic=tp.topic, partition=tp.partition)

    async def watch_topics(self) -> None:
        """Place anew what is read of a topic that was replaced, until cancelled.

        A fetch names its topic by name alone: records of the new topic that stand beyond the position
        are read as if they followed. A new log reads all of them again; they are duplicates there.
        """
        while True:
            await asyncio.sleep(self._waits.stopped_again_s)
            for topic in {tp.topic for tp, place in self._places.items() if place.placed}:
                try:
                    _cluster_id, topic_id = await self._topics.ids(topic)
                except Unavailable:
                    continue
                except ChainBroken:
                    topic_id = ""  # gone; placing says so
                for tp, place in list(self._places.items()):
                    if tp.topic == topic and place.placed and place.topic_id != topic_id:
                        place.placed = False
                        self.consumer.stand_still(tp)
                        self._start_placing(tp)

    def _goes_on(self, tp: TP, place: Place) -> None:
        """What stopped a partition is over once it was read on, or has nothing to read."""
        if place.stopped and place.placed:
            place.stopped = ""
            self._metrics.resumed(tp.topic, tp.partition)
            log_event(log, "partition_goes_on", topic=tp.topic, partition=tp.partition)

    def _try_stopped_again(self) -> None:
        """A person may have mended what stopped a partition, by `audit-trail open-epoch` for one."""
        now = time.monotonic()
        for tp, place in self._places.items():
            if place.stopped and now >= place.retry_at:
                place.retry_at = now + self._waits.stopped_again_s
                self._start_placing(tp)

    def _start_placing(self, tp: TP) -> None:
        task = self._tasks.pop(tp, None)
        if task is not None:
            task.cancel()
        if self._closed:
            return
        self._tasks[tp] = asyncio.create_task(self._place(tp), name=f"place {tp}")

    def _measure(self) -> None:
        for tp, place in self._places.items():
            lag = self.lag(tp)
            if lag is not None:
                self._metrics.consumer_lag(tp.topic, tp.partition, lag)
            if lag == 0:
                self._goes_on(tp, place)
        for follower in self._followers:
            status = follower.status()
            self._metrics.follower(
                status.sink,
                lag_records=sum(each.lag_records for each in status.logs),
                lag_seconds=max((each.lag_s for each in status.logs), default=0.0),
                held_bytes=status.held_bytes,
            )

    def lag(self, tp: TP) -> int | None:
        """Records between the ledger and the topic's end, as the last fetch said; None: unknown."""
        place = self._places.get(tp)
        if place is None or place.head is None:
            return None
        end = self.consumer.highwater(tp)
        return None if end is None else max(end - place.head.next_offset, 0)

    @property
    def was_assigned(self) -> bool:
        """The group has given this worker its partitions, which may be none."""
        return self._was_assigned

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
