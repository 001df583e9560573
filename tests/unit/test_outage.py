"""Calls through outages: how long, for whom, and what is said."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import pytest

from pipeline.domain.errors import Unavailable
from sinks.outage import NoLongerWanted, Outages

pytestmark = pytest.mark.anyio

LIMIT_S = 30.0


class Clock:
    """Time that passes only in waits and in calls."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.heard: list[str] = []
        self.outages = Outages(
            first_s=0.5,
            longest_s=4.0,
            limit_s=LIMIT_S,
            begins="waits",
            ends="goes_on",
            on_outage=self.heard.append,
            sleep=self.sleep,
            monotonic=lambda: self.now_s,
        )

    async def sleep(self, wait_s: float) -> None:
        self.now_s += wait_s

    def failing(self, *servers: str, takes_s: float = 0.0) -> Callable[[], Awaitable[str]]:
        """A call that finds these servers away, one after the other, then answers."""
        left = list(servers)

        async def call() -> str:
            self.now_s += takes_s
            if left:
                raise Unavailable(left.pop(0))
            return "answer"

        return call


async def test_an_outage_is_heard_of_once_and_each_server_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()

    with caplog.at_level(logging.INFO):
        answer = await clock.outages.through(clock.failing("kafka", "kafka", "kms"), topic="t")

    assert answer == "answer"
    assert clock.heard == ["kafka"]
    assert [record.getMessage() for record in caplog.records] == ["waits", "waits", "goes_on"]
    assert clock.outages.waiting_for == set()


async def test_the_server_that_is_away_now_is_shown() -> None:
    clock, shown = Clock(), []
    failing = clock.failing("kafka", "kms", "kms")

    async def call() -> str:
        shown.append(set(clock.outages.waiting_for))
        return await failing()

    await clock.outages.through(call)

    assert shown == [set(), {"kafka"}, {"kms"}, {"kms"}]


async def test_calls_that_take_long_count_toward_the_limit() -> None:
    clock = Clock()

    with pytest.raises(Unavailable):
        await clock.outages.through(clock.failing(*["kafka"] * 100, takes_s=10.0))

    assert LIMIT_S < clock.now_s <= LIMIT_S + 3 * 14.0
    assert clock.outages.waiting_for == set()


async def test_a_result_that_nobody_wants_any_more_is_not_waited_for() -> None:
    clock = Clock()

    with pytest.raises(NoLongerWanted):
        await clock.outages.through(clock.failing("kafka"), wanted=lambda: False)

    assert clock.heard == []
    assert await clock.outages.through(clock.failing(), wanted=lambda: False) == "answer"
