"""What a fetch took that nobody may be given is fetched again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import IllegalStateError
from faust.types import TP

from agents.transport import BatchConsumer

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
