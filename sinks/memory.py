"""The ledger in memory: the fake that tests of followers, delivery and agents run against.

Keeps the promises of ``sinks.base.Ledger``, durability aside; the contract suite holds it to them.
An outage is a number: so many calls fail before, or after, they took effect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import Frontier
from pipeline.domain.records import LeafRange, LogHead, PreparedBatch, SealedEvent, WriteOutcome
from sinks.base import READ_BYTES
from sinks.ledger_plan import HeadState, moved, place, portions, restoration, sift


@dataclass(slots=True)
class MemoryLog:
    """One log: its head, and every leaf."""

    state: HeadState
    cluster_id: str
    topic_id: str
    leaves: list[SealedEvent] = field(default_factory=list)


class MemoryLedger:
    """A ledger that forgets at the end of the process.

    ``outages_left`` calls raise ``Unavailable`` and change nothing; ``lost_answers_left`` writes
    raise it after they were stored, as when the answer to COMMIT is lost.
    """

    def __init__(self, *, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.logs: dict[int, MemoryLog] = {}
        self.positions: dict[tuple[str, int], int] = {}
        self.outages_left = 0
        self.lost_answers_left = 0
        self._ids: dict[bytes, bytes] = {}
        self._now_us = now_us

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to close; the leaves stay."""

    async def open_log(
        self, topic: str, partition: int, *, cluster_id: str, topic_id: str
    ) -> LogHead:
        """See ``sinks.base.Ledger``."""
        self._answer()
        log = self._newest(topic, partition)
        if log is None:
            log = self._make(LogName(topic, partition), cluster_id, topic_id)
        if (log.cluster_id, log.topic_id) != (cluster_id, topic_id):
            raise ChainBroken(str(log.state.name), "was written from another cluster or topic")
        return log.state.head

    async def open_epoch(
        self,
        topic: str,
        partition: int,
        *,
        cluster_id: str,
        topic_id: str,
        first_offset: int = 0,
        end_offset: int | None = None,
        begins_at: int | None = None,
    ) -> LogHead:
        """See ``PostgresLedger.open_epoch``."""
        self._answer()
        log = self._newest(topic, partition)
        agrees = log is not None and (log.cluster_id, log.topic_id) == (cluster_id, topic_id)
        if agrees and log is not None and end_offset is not None:
            agrees = first_offset <= log.state.head.next_offset <= end_offset
        if log is None or not agrees:
            epoch = log.state.name.epoch + 1 if log else 1
            name = LogName(topic, partition, epoch)
            begins = first_offset if begins_at is None else begins_at
            log = self._make(name, cluster_id, topic_id, begins)
        return log.state.head

    async def write(self, batches: Sequence[PreparedBatch]) -> Sequence[WriteOutcome]:
        """See ``sinks.base.Ledger``."""
        self._answer()
        heads = self._heads(batches)
        planned = portions(batches, heads)
        sift(planned, self._ids)
        place(planned, heads)
        after = moved(planned, heads)
        now_us = self._now_us()
        for portion in planned:
            for event in portion.events:
                event.stored_at_us = now_us
            self._append(portion.batch.log_id, portion.events)
        self._move(after)
        if self.lost_answers_left:
            self.lost_answers_left -= 1
            raise Unavailable("postgres", "the answer was lost")
        return [portion.outcome(after[portion.batch.log_id].head) for portion in planned]

    async def restore(self, leaves: LeafRange, *, next_offset: int) -> LogHead:
        """See ``PostgresLedger.restore``."""
        self._answer()
        heads = {leaves.log_id: self._log(leaves.log_id).state}
        planned = restoration(leaves, next_offset, heads)
        if any(event.event_id in self._ids for event in leaves.events):
            raise ChainBroken(str(leaves.name), "an event is in the ledger at another place")
        self._append(leaves.log_id, leaves.events)
        after = moved(planned, heads)
        self._move(after)
        return after[leaves.log_id].head

    async def read(self, log_id: int, first_leaf: int, *, limit: int) -> LeafRange:
        """See ``sinks.base.Ledger``."""
        self._answer()
        log = self._log(log_id)
        events: list[SealedEvent] = []
        room_bytes = READ_BYTES
        for event in log.leaves[first_leaf : first_leaf + limit]:
            if room_bytes <= 0:
                break
            room_bytes -= len(event.canonical)
            events.append(_without_opened(event))
        return LeafRange(log_id, log.state.name, first_leaf, events)

    async def head(self, log_id: int) -> LogHead:
        """See ``sinks.base.Ledger``."""
        self._answer()
        return self._log(log_id).state.head

    async def position(self, follower: str, log_id: int) -> int:
        """See ``sinks.base.Ledger``."""
        self._answer()
        return self.positions.get((follower, log_id), 0)

    async def advance(self, follower: str, positions: Mapping[int, int]) -> None:
        """See ``sinks.base.Ledger``."""
        self._answer()
        for log_id, next_leaf in positions.items():
            held = self.positions.get((follower, log_id), 0)
            size = len(self._log(log_id).leaves)
            self.positions[follower, log_id] = max(held, min(next_leaf, size))

    def _answer(self) -> None:
        if self.outages_left:
            self.outages_left -= 1
            raise Unavailable("postgres", "out on purpose")

    def _newest(self, topic: str, partition: int) -> MemoryLog | None:
        of_partition = [
            log
            for log in self.logs.values()
            if (log.state.name.topic, log.state.name.partition) == (topic, partition)
        ]
        return max(of_partition, key=lambda log: log.state.name.epoch, default=None)

    def _make(
        self, name: LogName, cluster_id: str, topic_id: str, next_offset: int = 0
    ) -> MemoryLog:
        log_id = len(self.logs) + 1
        state = HeadState(log_id, name, next_offset, Frontier(), Frontier().root())
        self.logs[log_id] = MemoryLog(state, cluster_id, topic_id)
        return self.logs[log_id]

    def _log(self, log_id: int) -> MemoryLog:
        log = self.logs.get(log_id)
        if log is None:
            raise ChainBroken("unknown", "its row in log_heads is gone: was the database replaced?")
        return log

    def _heads(self, batches: Sequence[PreparedBatch]) -> dict[int, HeadState]:
        wanted = {batch.log_id for batch in batches}
        return {log_id: self.logs[log_id].state for log_id in wanted if log_id in self.logs}

    def _append(self, log_id: int, events: Sequence[SealedEvent]) -> None:
        self.logs[log_id].leaves.extend(events)
        self._ids.update({event.event_id: event.leaf_hash for event in events})

    def _move(self, after: Mapping[int, HeadState]) -> None:
        for log_id, state in after.items():
            self.logs[log_id].state = state


def _without_opened(event: SealedEvent) -> SealedEvent:
    return SealedEvent(
        event_id=event.event_id,
        family=event.family,
        occurred_at_us=event.occurred_at_us,
        offset=event.offset,
        broker_timestamp_ms=event.broker_timestamp_ms,
        schema_id=event.schema_id,
        clear=event.clear,
        opened={},
        canonical=event.canonical,
        leaf_hash=event.leaf_hash,
        blobs=event.blobs,
        actor_ref=event.actor_ref,
        stored_at_us=event.stored_at_us,
    )
