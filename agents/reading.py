"""Fetching, and handing over what came: raw records in batches, without a gap that nobody saw.

The half of this project's consumer that Faust's task runs (``agents.transport`` has the other): fetch,
hand over, again. A fetch that a rebalance or a seek came into is void, and is fetched again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol, cast

from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from faust.types.transports import ConsumerCallback
from mode.types import ServiceT

from agents.consumer_thread import BatchThread
from agents.fetching import BoundedFetchResult, PartitionHalted, Records
from agents.kafka_answers import kafka_answers
from agents.singles import SinglePositions
from pipeline.domain.errors import Unavailable
from pipeline.domain.records import Record, RecordBatch
from pipeline.logging import log_event

log = logging.getLogger(__name__)

_FETCH_TIMEOUT_S = 1.0
_AFTER_ERROR_S = 0.5
_ASK_EVERY_S = 0.5  # where a transaction's marker may be, while records come


class RawPartitions(Protocol):
    """Who decides about raw partitions: ``agents.positions.Positions``."""

    def is_raw(self, topic: str) -> bool: ...

    def assigned(self, partitions: frozenset[TP]) -> None:
        """These are ours now and paused; position them (``place``) in the background."""
        ...

    def revoked(self, partitions: frozenset[TP]) -> None:
        """These are not ours any more: abandon what is in flight."""
        ...

    def halted(self, partition: TP, why: str) -> None:
        """The partition cannot be read on; it was paused."""
        ...

    async def room(self) -> None:
        """Return once another round of records may be fetched."""
        ...


class ReadingConsumer(driver.Consumer):
    """Reads the partitions that ``agents.transport`` has placed; see the module."""

    _thread: BatchThread
    raw: RawPartitions  # set by the app before it starts, and so is this one:
    fetch_room_bytes: int  # taken out of what was fetched at a time, inflated

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._expected: dict[TP, int] = {}  # of placed raw partitions: the next offset to hand over
        self._gap_seen: dict[TP, int] = {}  # where a gap was found, to be read a second time
        self._ask_again_at = 0.0  # monotonic; see _passed_over
        self._singles = SinglePositions()
        self._placed = asyncio.Event()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """As Faust's; and fetching begins at once."""
        super().resume_partitions(tps)
        self._placed.set()

    def stand_still(self, tp: TP) -> None:
        """Fetch no more of a partition."""
        self.pause_partitions({tp})

    async def _seek_now(self, tp: TP, offset: int) -> None:
        self._thread.seek(tp, offset)

    async def _first(self, tp: TP) -> int:
        return (await self._thread.earliest_offsets(tp))[tp]

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Faust's background task: fetch, hand over, again; it ends when the worker stops, and at a
        rebalance, after which Faust starts it again.
        """
        try:
            await self._fetch_on(fetcher)
        except asyncio.CancelledError:
            # A worker that was slow to stop fetching. Faust's fetcher would end the app: it wakes a
            # supervisor that it does not have.
            if not self.app.rebalancing:
                raise

    async def _fetch_on(self, fetcher: ServiceT) -> None:
        while not (self.should_stop or fetcher.should_stop):
            await self.sleep(0)
            await self.raw.room()
            await self._until_placed()
            began = self._begins()
            fetched = await self._fetch()
            if self.should_stop:
                continue
            if not self.flow_active or began != self._begins():
                # A fetch from before a rebalance is void. It may have taken records of partitions that
                # were placed since, too, and moved past them.
                await self._rewind()
                continue
            await self._hand_over(fetched)

    def _begins(self) -> tuple[int, int]:
        """What a fetch rests on: the generation, and where the topics that Faust seeks were sought."""
        return self.app.consumer_generation_id, self._singles.seeks

    async def _until_placed(self) -> None:
        """Return once a partition may be fetched, or after a while: Faust would sleep for a second."""
        if not self._get_active_partitions():
            self._placed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._placed.wait(), _FETCH_TIMEOUT_S)

    async def _fetch(self) -> Mapping[TP, Records]:
        BoundedFetchResult.begin(self.fetch_room_bytes)
        try:
            records, _active = await self._wait_next_records(_FETCH_TIMEOUT_S)
        except PartitionHalted as halted:
            self._halt(TP(*halted.partition), str(halted))
        except OffsetOutOfRangeError as error:
            for (topic, partition), offset in dict(error.args[0]).items():
                await self._beyond(TP(topic, partition), offset)
        except KafkaError as error:
            log_event(log, "fetch_failed", level=logging.WARNING, error=error)
            await self.sleep(_AFTER_ERROR_S)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        else:
            return cast("Mapping[TP, Records]", records or {})
        await self._rewind()
        return {}

    async def _rewind(self) -> None:
        """Fetch again from where handing over stands: when one partition's records cannot be read,
        aiokafka drops those of others that it had already taken out, and moves past them.
        """
        for tp in [*self._expected, *self._singles.partitions()]:
            expected = self._expected.get(tp, self._singles.next_of(tp))
            if expected is not None:
                with suppress(IllegalStateError):  # revoked meanwhile, and not told yet
                    await self._thread.call_thread(self._seek_now, tp, expected)

    async def _beyond(self, tp: TP, offset: int) -> None:
        """The topic does not have the position. A raw partition stands still: records are lacking. Any
        other is read from its beginning, since what it says twice changes nothing.
        """
        if self.raw.is_raw(tp.topic):
            self._halt(
                tp,
                f"offset {offset} is not in the topic any more: records were deleted before they"
                " were read, or the topic was replaced;"
                f" `audit-trail open-epoch {tp.topic} {tp.partition}` begins a new log",
            )
            return
        try:
            with kafka_answers():
                self._singles.sought({tp: await self._first(tp)})
        except Unavailable as outage:  # the next fetch says the same again
            log_event(log, "fetch_failed", level=logging.WARNING, error=outage)
            await self.sleep(_AFTER_ERROR_S)
            return
        log_event(
            log,
            "topic_read_again",
            level=logging.WARNING,
            topic=tp.topic,
            partition=tp.partition,
            offset=offset,
        )

    def _halt(self, tp: TP, why: str) -> None:
        self.stand_still(tp)
        self.raw.halted(tp, why)

    async def _hand_over(self, fetched: Mapping[TP, Records]) -> None:
        """One message for the raw records of a fetch: at a low rate, twenty partitions bring a few
        each, and a message's way through Faust costs more than they do.
        """
        batches = []
        for tp, records in fetched.items():
            if not self.raw.is_raw(tp.topic):
                await self._deliver_singly(tp, records)
            elif (batch := await self._batch(tp, records)) is not None:
                batches.append(batch)
        batches += await self._passed_over(fetched)
        if batches:
            await self._callback_unless_suspended(self._message(batches))

    async def _batch(self, tp: TP, fetched: Records) -> RecordBatch | None:
        """The records that follow what was handed over before; None: nothing does."""
        expected = self._expected.get(tp)
        if expected is None:  # revoked or stopped since
            return None
        records: list[Record] = fetched
        if records and records[0].offset < expected:
            records = [record for record in records if record.offset >= expected]
        if not records:
            return None
        if records[0].offset > expected and not self._saw_gap(tp, expected):
            await self._thread.call_thread(self._seek_now, tp, expected)
            return None
        # Records of a fetch know their size; without those that were handed over, it is a bound.
        size = fetched.size_bytes
        end = records[-1].offset + 1
        self._expected[tp] = end
        return RecordBatch(tp.topic, tp.partition, expected, end, records, size)

    def _saw_gap(self, tp: TP, expected: int) -> bool:
        """Whether a gap was found there before. Transaction markers leave gaps; a client's bug would too:
        the first time, the caller reads the place once more.
        """
        before = self._gap_seen.get(tp)
        self._gap_seen[tp] = expected
        return before == expected

    async def _passed_over(self, fetched: Mapping[TP, Records]) -> list[RecordBatch]:
        """Gaps that no record behind them shows, as batches without a record, so that the ledger gets to
        the topic's end: a transaction's marker is a partition's last offset, or all of it was aborted.
        """
        # Where records come, nobody waits for a marker: asking at each fetch would cost more than they do.
        now = time.monotonic()
        if fetched and now < self._ask_again_at:
            return []
        self._ask_again_at = now + _ASK_EVERY_S
        quiet = {
            tp: self._expected[tp]
            for tp in self._get_active_partitions()
            if tp in self._expected and tp not in fetched
        }
        if not quiet:
            return []
        reached = await self._thread.call_thread(self._thread.reached, frozenset(quiet))
        batches, again = [], []
        for tp, position in reached.items():
            expected = quiet[tp]
            # One that was placed anew meanwhile has another position than the one that was asked for.
            is_same = self._expected.get(tp) == expected and tp in self._get_active_partitions()
            if position <= expected or not is_same:
                continue
            if self._saw_gap(tp, expected):
                self._expected[tp] = position
                batches.append(RecordBatch(tp.topic, tp.partition, expected, position, [], 0))
            else:
                again.append((tp, expected))
        for tp, expected in again:
            with suppress(IllegalStateError):  # revoked meanwhile, and not told yet
                await self._thread.call_thread(self._seek_now, tp, expected)
        return batches

    def _message(self, batches: list[RecordBatch]) -> ConsumerMessage:
        """To Faust it is a message of the first batch's partition; nobody acks it."""
        batch = batches[0]
        timestamp_ms = batch.records[0].timestamp if batch.records else 0
        return ConsumerMessage(
            batch.topic,
            batch.partition,
            batch.start_offset,
            timestamp_ms / 1000,
            0,
            [],
            None,
            batches,  # type: ignore[arg-type]
            None,
            tp=TP(batch.topic, batch.partition),
            generation_id=self.app.consumer_generation_id,
        )

    async def _deliver_singly(self, tp: TP, records: list[Any]) -> None:
        """Changelog and other topics: a message per record, as Faust has it."""
        began = self._begins()
        for record in records:
            if not self.flow_active or began != self._begins():
                return  # whatever stops the flow, or seeks, says where it goes on
            if self._singles.is_next(tp, record.offset):
                await self._callback_unless_suspended(self._to_message(tp, record))
                if began == self._begins():
                    self._singles.handed_over(tp, record.offset)

    async def _callback_unless_suspended(self, message: Any) -> None:
        callback: ConsumerCallback = self.callback
        await self.wait_first(callback(message), self.suspend_flow.wait())
