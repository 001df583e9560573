"""The Faust transport of this project: one message per fetch, sought by the ledger.

What differs from Faust's own (0.15.3, pinned: these are private methods):
raw topics travel as lists of ``RecordBatch``; every assigned raw partition stays paused until somebody has
positioned it (``RawPartitions``); the offsets committed to Kafka are a watermark of our own, for lag
tools only, since stock Faust can commit past a record that was never acked (issue #606); a failed
commit or an unreadable partition never crashes the worker; in-flight batches are abandoned on revoke.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from agents.consumer_thread import BatchThread
from agents.kafka_answers import kafka_answers
from agents.reading import ReadingConsumer


class BatchConsumer(ReadingConsumer):
    """The consumer; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._watermark: dict[TP, int] = {}  # of raw partitions: what the ledger has

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    # --- positions ---

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Faust calls it after every assignment, once streams may flow: raw partitions stay paused
        until they are placed, whatever time the ledger takes; the others are sought as ever.
        """
        assigned = self.assignment()
        raw = frozenset(tp for tp in assigned if self.raw.is_raw(tp.topic))
        self.pause_partitions(raw)
        for tp in raw:
            self._expected.pop(tp, None)
        # Recovery has read the changelogs up to their ends, and goes on from there.
        changelogs = self.app.tables.changelog_topics
        others = [tp for tp in assigned - raw if tp.topic not in changelogs]
        with kafka_answers():
            committed = {tp: await self._committed_or_first(tp) for tp in others}
            if committed:
                await self.seek_wait(committed)
        self.raw.assigned(raw)
        return committed

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """As Faust's, whose recovery calls it; a fetch under way is void."""
        self._singles.sought(partitions)
        await super().seek_wait(partitions)
        self._singles.sought(partitions)

    async def _committed_or_first(self, tp: TP) -> int:
        """One that the group never committed is read from its beginning."""
        offset = await self._thread.committed(tp)
        return await self._first(tp) if offset is None else offset

    async def place(self, tp: TP, next_offset: int) -> None:
        """Fetch a raw partition from ``next_offset`` on. Raises ``Unavailable``."""
        with kafka_answers():
            await self._thread.call_thread(self._seek_now, tp, next_offset)
        self._expected[tp] = next_offset
        self.resume_partitions({tp})

    def resume_reading(self, tp: TP) -> None:
        """Go on after ``stand_still``, where it stood."""
        if tp in self._expected:
            self.resume_partitions({tp})

    async def committed(self, tp: TP) -> int | None:
        """The offset that the group committed, if any. Raises ``Unavailable``."""
        with kafka_answers():
            return await self._thread.committed(tp)

    def stored(self, tp: TP, next_offset: int) -> None:
        """The ledger has everything below ``next_offset``."""
        if tp in self._expected:
            self._watermark[tp] = next_offset

    # --- revoking ---

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._abandon(frozenset(revoked) | self.assignment())
        await super().on_partitions_revoked(revoked)

    async def wait_empty(self) -> None:
        """Nothing raw is waited for: what is in flight is read again by the next owner."""
        self._abandon(frozenset(self._expected))
        await super().wait_empty()

    def _abandon(self, partitions: frozenset[TP]) -> None:
        raw = frozenset(tp for tp in partitions if self.raw.is_raw(tp.topic))
        self._singles.let_go(partitions - raw)
        self.raw.revoked(raw)
        for tp in raw:
            self._expected.pop(tp, None)
        self._unacked_messages -= {
            message for message in self._unacked_messages if message.tp in raw
        }

    # --- committing ---

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        yield from super()._filter_tps_with_pending_acks(topics)
        yield from (tp for tp in self._watermark if topics is None or tp.topic in topics)

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        raw = {tp for tp in tps if tp in self._watermark}
        offsets = super()._filter_committable_offsets([tp for tp in tps if tp not in raw])
        for tp in raw:
            offset = self._watermark.pop(tp)
            if self._committed_offset[tp] != offset:
                offsets[tp] = offset
        return offsets


class BatchTransport(driver.Transport):
    """Faust's aiokafka transport with this consumer."""

    Consumer = BatchConsumer


async def settle(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
