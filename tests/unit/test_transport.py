"""What a fetch took that nobody may be given is fetched again; what holds no record is passed over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import IllegalStateError
from faust.types import TP

from agents.fetching import Records
from agents.singles import SinglePositions
from agents.transport import BatchConsumer
from pipeline.domain.records import RecordBatch

ONE, TWO = TP("audit.raw.authentication", 0), TP("audit.raw.authentication", 1)


class Fetching(BatchConsumer):
    """Two partitions placed, and fetches that a rebalance comes into; no broker, no Faust."""

    flow_active = True
    should_stop = False

    def __init__(self, *generations: int) -> None:
        self.app = cast("Any", SimpleNamespace(consumer_generation_id=generations[0]))
        self.raw = cast("Any", self)
        self._thread = cast("Any", self)
        self._expected = {ONE: 10, TWO: 20}
        self._singles = SinglePositions()
        self._generations = list(generations[1:])
        self.sought: list[tuple[TP, int]] = []
        self.given: list[Any] = []
        self.revoked: set[TP] = set()

    async def sleep(self, *_: Any) -> None:
        """No wait."""

    async def room(self) -> None:
        """There is."""

    async def _until_placed(self) -> None:
        """They are."""

    async def _fetch(self) -> Any:
        self.app.consumer_generation_id = self._generations.pop(0)
        self.should_stop = not self._generations and len(self.given) > 5
        return {ONE: ["record"]}

    async def _hand_over(self, fetched: Any) -> None:
        self.given.append(fetched)
        self.should_stop = not self._generations

    async def call_thread(self, call: Any, *words: Any) -> Any:
        return await call(*words)

    def seek(self, tp: TP, offset: int) -> None:
        if tp in self.revoked:
            raise IllegalStateError(f"no assignment for {tp}")
        self.sought.append((tp, offset))


FETCHER = cast("Any", SimpleNamespace(should_stop=False))


@pytest.mark.anyio
async def test_what_a_fetch_took_over_a_rebalance_is_fetched_again() -> None:
    consumer = Fetching(1, 2, 2)

    await consumer._fetch_on(FETCHER)

    assert consumer.sought == [(ONE, 10), (TWO, 20)]
    assert len(consumer.given) == 1  # the second fetch alone


@pytest.mark.anyio
async def test_fetches_within_a_generation_are_handed_over_without_a_seek() -> None:
    consumer = Fetching(1, 1, 1)

    await consumer._fetch_on(FETCHER)

    assert consumer.sought == []
    assert len(consumer.given) == 2


@pytest.mark.anyio
async def test_a_partition_that_was_revoked_meanwhile_keeps_no_other_from_being_sought() -> None:
    consumer = Fetching(1, 2, 2)
    consumer.revoked = {ONE}

    await consumer._fetch_on(FETCHER)

    assert consumer.sought == [(TWO, 20)]


class Ending(BatchConsumer):
    """One partition that is handed over up to 10, and a client whose position is at ``position``."""

    def __init__(self, position: int) -> None:
        self.app = cast("Any", SimpleNamespace(consumer_generation_id=1))
        self.raw = cast("Any", SimpleNamespace(is_raw=lambda _topic: True))
        self._thread = cast("Any", self)
        self._expected = {ONE: 10}
        self._singles = SinglePositions()
        self._gap_seen = {}
        self.position = self.end = position
        self.active = {ONE}
        self.given: list[RecordBatch] = []

    def _get_active_partitions(self) -> set[TP]:
        return self.active

    async def call_thread(self, call: Any, *words: Any) -> Any:
        return await call(*words)

    async def reached(self, partitions: Any) -> dict[TP, int]:
        return dict.fromkeys(partitions, self.position)

    def seek(self, _tp: TP, offset: int) -> None:
        self.position = offset

    async def _callback_unless_suspended(self, message: Any) -> None:
        self.given += message.value

    async def fetch(self, *offsets: int) -> None:
        """A fetch that gives records at these offsets, and gets to the end."""
        self.position = self.end
        records = Records(SimpleNamespace(offset=at, timestamp=1) for at in offsets)
        await self._hand_over({ONE: records} if offsets else {})


@pytest.mark.anyio
async def test_what_holds_no_record_at_the_end_of_a_partition_is_passed_over_once_it_was_read_twice() -> (
    None
):
    consumer = Ending(12)

    await consumer.fetch()
    assert (consumer.given, consumer.position) == ([], 10)  # the place is read once more
    for _ in range(3):
        await consumer.fetch()

    assert consumer.given == [RecordBatch(*ONE, 10, 12, [], 0)]


@pytest.mark.anyio
async def test_records_that_the_second_reading_brings_are_handed_over() -> None:
    consumer = Ending(12)

    await consumer.fetch()
    await consumer.fetch(10, 11)
    await consumer.fetch()

    assert [(batch.start_offset, batch.end_offset) for batch in consumer.given] == [(10, 12)]
    assert [record.offset for record in consumer.given[0].records] == [10, 11]


@pytest.mark.anyio
async def test_a_partition_that_stands_still_is_not_passed_over() -> None:
    consumer = Ending(12)
    consumer.active = set()

    for _ in range(3):
        await consumer.fetch()

    assert consumer.given == []


@pytest.mark.anyio
async def test_a_partition_that_is_placed_anew_meanwhile_is_not_passed_over() -> None:
    consumer = Ending(12)
    await consumer.fetch()

    async def placed_anew(partitions: Any) -> dict[TP, int]:
        consumer._expected[ONE] = 5
        return dict.fromkeys(partitions, 12)

    consumer.reached = placed_anew  # type: ignore[method-assign]
    await consumer.fetch()

    assert consumer.given == []
