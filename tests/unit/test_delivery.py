"""From fetched batches to the ledger: what one log cannot do keeps no other waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pipeline.domain.errors import ChainBroken, LetterTooLarge, Reason, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.records import (
    DeadLetter,
    LogHead,
    PreparedBatch,
    RecordBatch,
    WriteOutcome,
)
from pipeline.metrics import Metrics
from sinks.delivery import Delivery
from sinks.flight import DeliveryLimits
from sinks.memory import MemoryLedger
from tests.ledger_support import ARecord
from tests.unit.follower_support import an_event

TOPIC = "audit.raw.authentication"
LIMIT_S = 60.0
PACE_SHARE = 0.75
PATIENCE_S = 30.0


class Ledger(MemoryLedger):
    """Refuses one partition's rows, without knowing whose they are, as a COPY of many logs does."""

    refuses: int | None = None

    async def write(self, batches: Sequence[PreparedBatch]) -> list[WriteOutcome]:
        if self.refuses in [batch.name.partition for batch in batches]:
            names = ", ".join(sorted(str(batch.name) for batch in batches))
            raise ChainBroken(names, "the ledger refuses a row")
        return list(await super().write(batches))


class World:
    """A delivery over some partitions of one topic; time passes only when it waits."""

    def __init__(
        self, partitions: int, *, bad: Sequence[tuple[int, int]] = (), feeds: Sequence[Any] = ()
    ) -> None:
        self.ledger = Ledger()
        self.bad = set(bad)
        self.too_large: set[tuple[int, int]] = set()
        self.letters: list[tuple[int, int]] = []
        self.stopped: dict[int, str] = {}
        self.now_s = 0.0
        self.partitions = partitions
        self.delivery = Delivery(
            self.ledger,  # type: ignore[arg-type]
            self,
            self.publish,
            feeds,
            self,  # type: ignore[arg-type]
            DeliveryLimits(2_000, 1 << 20, 1.0, 8.0, LIMIT_S, 0.5, 1_000, PACE_SHARE, PATIENCE_S),
            Metrics(CollectorRegistry()),
            sleep=self.sleep,
            monotonic=lambda: self.now_s,
        )

    async def open(self) -> None:
        for partition in range(self.partitions):
            head = await self.ledger.open_log(TOPIC, partition, cluster_id="c", topic_id="t")
            self.delivery.assign(head)

    async def sleep(self, wait_s: float) -> None:
        self.now_s += wait_s
        await asyncio.sleep(0)

    async def prepare(self, batches: Sequence[tuple[RecordBatch, LogHead]]) -> list[PreparedBatch]:
        return [self._prepared(batch, head) for batch, head in batches]

    def _prepared(self, batch: RecordBatch, head: LogHead) -> PreparedBatch:
        dead, events = [], []
        for record in batch.records:
            if (batch.partition, record.offset) in self.bad:
                letter = DeadLetter(TOPIC, batch.partition, record, Reason.TRUNCATED)
                dead.append(letter)
            else:
                events.append(an_event(batch.partition, record.offset))
        return PreparedBatch(
            head.log_id, head.name, batch.start_offset, batch.end_offset, events, dead
        )

    async def publish(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            if (letter.partition, letter.record.offset) in self.too_large:
                name = str(LogName(TOPIC, letter.partition))
                raise LetterTooLarge(name, "too large to be kept", offset=letter.record.offset)
        self.letters += [(letter.partition, letter.record.offset) for letter in letters]

    def stored(self, head: LogHead) -> None:
        """The transport's watermark."""

    def stop(self, topic: str, partition: int, why: str) -> None:
        assert topic == TOPIC
        self.stopped[partition] = why

    def submit(self, partition: int, first: int, count: int) -> None:
        records: list[Any] = [ARecord(offset) for offset in range(first, first + count)]
        self.delivery.submit(
            RecordBatch(TOPIC, partition, first, first + count, records, 100 * count)
        )

    async def run(self, rounds: int = 200) -> None:
        """Both tasks for a while; what one of them raises comes out."""
        tasks = [
            asyncio.ensure_future(self.delivery.run_prepare()),
            asyncio.ensure_future(self.delivery.run_write()),
        ]
        for _ in range(rounds):
            await asyncio.sleep(0)
            if any(task.done() for task in tasks):
                break
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def sizes(self) -> list[int]:
        return [len(log.leaves) for log in self.ledger.logs.values()]


@pytest.mark.anyio
async def test_one_of_several_logs_that_the_ledger_refuses_stops_alone() -> None:
    world = World(4)
    await world.open()
    world.ledger.refuses = 2
    for partition in range(4):
        world.submit(partition, 0, 5)

    await world.run()

    assert world.sizes() == [5, 5, 0, 5]
    assert list(world.stopped) == [2]
    assert "the ledger refuses a row" in world.stopped[2]
    assert world.delivery.idle


@pytest.mark.anyio
@pytest.mark.parametrize("at", [0, 1, 3, 9])
async def test_a_letter_that_no_broker_takes_stops_its_log_alone_behind_what_is_before(
    at: int,
) -> None:
    world = World(3, bad=[(0, 1), (1, 0), (1, at), (1, 7), (2, 0)])
    await world.open()
    world.too_large = {(1, at)}
    for first in (0, 4, 8):
        for partition in range(3):
            world.submit(partition, first, 4)

    await world.run()

    kept = [offset for offset in (0, 7) if offset < at]
    assert list(world.stopped) == [1]
    assert sorted(set(world.letters)) == [(0, 1), *((1, offset) for offset in kept), (2, 0)]
    assert world.sizes() == [11, at - len(kept), 11]
    assert list(world.ledger.logs.values())[1].state.next_offset == at
    assert world.now_s == 0.0  # nobody waited as for a broker that is away
    assert world.delivery.idle


@pytest.mark.anyio
async def test_a_ledger_that_is_away_for_less_than_the_limit_is_waited_for() -> None:
    world = World(1)
    await world.open()
    world.ledger.outages_left = 8  # 1 + 2 + 4 + 8 + 8 + 8 + 8 + 8 s at most
    world.submit(0, 0, 5)

    await world.run()

    assert LIMIT_S > world.now_s > LIMIT_S / 3  # waits are cut at random, by up to a half
    assert world.sizes() == [5]


@pytest.mark.anyio
async def test_a_ledger_that_is_away_for_longer_ends_the_worker() -> None:
    world = World(1)
    await world.open()
    world.ledger.outages_left = 1_000
    world.submit(0, 0, 5)

    with pytest.raises(Unavailable):
        await world.run()

    assert LIMIT_S < world.now_s < LIMIT_S + 16
