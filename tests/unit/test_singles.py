"""Changelogs and commands: what a fetch took and nobody was given is fetched again, whoever sought meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import OffsetOutOfRangeError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from agents.singles import SinglePositions
from agents.transport import BatchConsumer
from pipeline.domain.errors import Unavailable

CHANGELOG = TP("group-table-changelog", 0)
FETCHER = cast("Any", SimpleNamespace(should_stop=False))
END = 5


class Changelog(BatchConsumer):
    """A changelog of ``END`` records, a client that moves on with what it gives, and no Faust."""

    flow_active = True
    fetch_room_bytes = 1 << 20
    should_stop = False

    def __init__(self, first: int = 0) -> None:
        self.app = cast("Any", SimpleNamespace(consumer_generation_id=1))
        self.raw = cast("Any", self)
        self._thread = cast("Any", self)
        self._expected = {}
        self._singles = SinglePositions()
        self.first = self.position = first
        self.during: list[Callable[[], Any]] = []  # what comes in between, a fetch each
        self.given: list[int] = []

    def is_raw(self, _topic: str) -> bool:
        return False

    async def sleep(self, *_: Any) -> None:
        """No wait."""

    async def room(self) -> None:
        """There is."""

    async def _until_placed(self) -> None:
        """They are."""

    async def _passed_over(self, _fetched: Any) -> list[Any]:
        return []

    async def _wait_next_records(self, _timeout: float) -> Any:
        if self.position < self.first:
            raise OffsetOutOfRangeError({CHANGELOG: self.position})
        taken = [SimpleNamespace(offset=at) for at in range(self.position, END)]
        self.position = END
        if self.during:
            await self.during.pop(0)()
        else:
            self.should_stop = not taken
        return {CHANGELOG: taken} if taken else {}, None

    def _to_message(self, _tp: Any, record: Any) -> Any:
        return record.offset

    async def _callback_unless_suspended(self, message: Any) -> None:
        self.given.append(message)

    async def earliest_offsets(self, tp: TP) -> dict[TP, int]:
        return {tp: self.first}

    async def call_thread(self, call: Any, *words: Any) -> Any:
        return await call(*words)

    def seek(self, _tp: TP, offset: int) -> None:
        self.position = offset


@pytest.fixture(autouse=True)
def _seeks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust's own seek, without its thread."""

    async def seek_wait(self: Any, partitions: dict[TP, int]) -> None:
        for tp, offset in partitions.items():
            self.seek(tp, offset)

    monkeypatch.setattr(driver.Consumer, "seek_wait", seek_wait)


@pytest.mark.anyio
async def test_what_a_fetch_took_while_recovery_sought_is_given_to_recovery() -> None:
    consumer = Changelog()
    consumer.during = [lambda: consumer.seek_wait({CHANGELOG: 2})]

    await consumer._fetch_on(FETCHER)

    assert consumer.given == [2, 3, 4]


@pytest.mark.anyio
async def test_what_a_fetch_took_over_a_rebalance_is_given_after_it() -> None:
    consumer = Changelog()
    await consumer.seek_wait({CHANGELOG: 1})

    async def rebalance() -> None:
        consumer.app.consumer_generation_id = 2

    consumer.during = [rebalance]

    await consumer._fetch_on(FETCHER)

    assert consumer.given == [1, 2, 3, 4]


@pytest.mark.anyio
async def test_a_seek_in_the_midst_of_handing_over_ends_it() -> None:
    consumer = Changelog()

    async def sought_at_the_second(message: Any) -> None:
        consumer.given.append(message)
        if consumer.given == [0, 1]:
            await consumer.seek_wait({CHANGELOG: 0})

    consumer._callback_unless_suspended = sought_at_the_second  # type: ignore[method-assign]

    await consumer._fetch_on(FETCHER)

    assert consumer.given == [0, 1, 0, 1, 2, 3, 4]


@pytest.mark.anyio
async def test_a_changelog_that_does_not_have_the_position_is_read_from_its_beginning() -> None:
    consumer = Changelog(first=3)
    await consumer.seek_wait({CHANGELOG: 1})

    await consumer._fetch_on(FETCHER)

    assert consumer.given == [3, 4]


@pytest.mark.anyio
async def test_a_broker_that_does_not_say_where_a_changelog_begins_is_asked_again() -> None:
    consumer = Changelog(first=3)
    await consumer.seek_wait({CHANGELOG: 1})
    answers = [Unavailable("kafka"), {CHANGELOG: 3}]

    async def earliest(_tp: TP) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    consumer.earliest_offsets = earliest  # type: ignore[method-assign]

    await consumer._fetch_on(FETCHER)

    assert (consumer.given, answers) == ([3, 4], [])
