"""The archive behind its follower: fed from memory and from the ledger, through outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from random import Random
from typing import cast

import pytest

from pipeline.domain.records import LeafRange, LogHead
from sinks.archive import ArchiveDestination
from sinks.base import Ledger
from sinks.follower import Follower, FollowerSettings
from sinks.progress import Stored
from tests.archive_support import (
    Gateway,
    LedgerLog,
    an_event,
    facts,
    new_log,
    open_gateway,
)

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


class FollowedLog(LedgerLog):
    """A log with the position of its follower."""

    stored = 0

    async def position(self, follower: str, log_id: int) -> int:
        assert (follower, log_id) == ("archive", self.log_id)
        return self.stored

    async def advance(self, follower: str, positions: Mapping[int, int]) -> None:
        assert follower == "archive"
        assert positions[self.log_id] >= self.stored
        self.stored = positions[self.log_id]

    async def head(self, log_id: int) -> LogHead:
        assert log_id == self.log_id
        return self.log_head

    def append(self, count: int) -> LeafRange:
        first = len(self.events)
        self.events += [an_event(leaf) for leaf in range(first, first + count)]
        return self.range(first)


class Told:
    """What the follower said."""

    def __init__(self) -> None:
        self.outages = 0
        self.records = 0
        self.alerts: list[str] = []

    def wrote(self, sink: str, *, seconds: float) -> None:
        assert sink == "archive"
        assert seconds >= 0

    def stored(self, sink: str, log: str, stored: Stored) -> None:
        assert sink == "archive"
        assert log
        self.records += stored.records

    def outage(self, sink: str, *, what: str) -> None:
        assert (sink, what) == ("archive", "s3")
        self.outages += 1

    def stopped(self, sink: str, log: str, alert: str) -> None:
        assert sink == "archive"
        assert log
        self.alerts.append(alert)


async def as_it_is(leaves: LeafRange) -> LeafRange:
    return leaves


def a_follower(destination: ArchiveDestination, log: FollowedLog, told: Told) -> Follower:
    bounds = FollowerSettings(max_bytes=400_000, retry_first_s=0.01, retry_max_s=0.05)
    return Follower(destination, cast("Ledger", log), as_it_is, told, settings=bounds)


async def until_stored(follower: Follower, log: FollowedLog) -> None:
    """Run the follower until everything is durable."""
    async with asyncio.timeout(20):
        while log.stored < len(log.events):
            await follower.round()


async def test_leaves_arrive_once_through_outages_and_restarts(gateway: Gateway) -> None:
    random = Random(3)
    log, told = FollowedLog(new_log(), 40), Told()
    gateway.s3.lose = lambda: random.choice(["before", "after", "", ""])

    for _ in range(4):  # each turn is another worker
        destination = gateway.destination(log, max_events=30, max_age_s=0.2)
        follower = a_follower(destination, log, told)
        follower.assign(log.log_head)
        running = asyncio.create_task(follower.run())
        for _ in range(5):
            follower.offer(log.append(random.randrange(1, 60)))
            follower.note_head(log.log_head)
            await asyncio.sleep(0.03)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await until_stored(follower, log)

    assert told.outages > 0
    assert told.alerts == []
    stored = await gateway.stored(log.name)
    assert [facts(event) for found in stored for event in found.events] == [
        facts(event) for event in log.events
    ]


async def test_held_leaves_are_cut_by_age_without_new_ones(gateway: Gateway) -> None:
    log, told = FollowedLog(new_log()), Told()
    follower = a_follower(gateway.destination(log, max_age_s=0.3), log, told)
    follower.assign(log.log_head)
    follower.offer(log.append(7))

    await until_stored(follower, log)

    assert told.records == 7
    assert await gateway.cuts(log.name) == [(0, 7)]


async def test_a_contradiction_stops_the_log_with_an_alert(gateway: Gateway) -> None:
    log, told = FollowedLog(new_log(), 5), Told()
    await gateway.destination(log).write([log.range(0)])
    log.events[2] = an_event(2, seed="other")
    follower = a_follower(gateway.destination(log), log, told)
    follower.assign(log.log_head)

    for _ in range(3):
        await follower.round()
        if told.alerts:
            break

    assert "differ between archive and ledger" in told.alerts[0]
    assert log.stored == 0
