"""A partition that stands still for two reasons goes on only when both are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from faust.types import TP
from prometheus_client import CollectorRegistry

from agents.places import Waits
from agents.positions import Positions
from pipeline.domain.errors import ChainBroken
from pipeline.domain.logs import LogName
from pipeline.domain.records import LogHead
from pipeline.metrics import Metrics
from sinks.operations import HeadRow, Pause

ONE = TP("audit.raw.authentication", 0)
HEAD = LogHead(1, LogName(*ONE), 5, 10)
FOREVER_S = 3_600.0


class Servers:
    """Consumer, delivery, ledger, topics, operators and recovery of one partition."""

    def __init__(self) -> None:
        self.replaced = False
        self.held: list[Pause] = []
        self.ends = (0, 99)
        self.fetched: int | None = None
        self.logs: list[Any] = []
        self.done: list[str] = []
        self.metrics = Metrics(CollectorRegistry())
        everything = cast("Any", self)
        self.positions = Positions(
            everything,
            (),
            everything,
            topics=everything,
            recovery=everything,
            waits=Waits(0.0, 0.0, FOREVER_S),
            metrics=self.metrics,
            crash=self.crash,
        )
        self.positions.consumer = self.positions.delivery = everything

    def crash(self, bug: BaseException) -> None:
        raise bug

    async def ids(self, _topic: str) -> tuple[str, str]:
        return "cluster", "topic-2" if self.replaced else "topic-1"

    async def bounds(self, _topic: str, _partition: int) -> tuple[int, int]:
        return self.ends

    def highwater(self, _tp: TP) -> int | None:
        return self.fetched

    async def heads(self) -> Sequence[Any]:
        return self.logs

    async def deleted_below(self, topic: str, partition: int) -> int:
        return 0

    async def pauses(self) -> Sequence[Pause]:
        return self.held

    async def pause(self, *_: Any, **__: Any) -> bool:
        return True

    async def open_log(self, *_: Any, **__: Any) -> LogHead:
        if self.replaced:
            raise ChainBroken(str(HEAD.name), "the topic was replaced")
        return HEAD

    async def recover(self, head: LogHead, *, rolled_back: bool) -> LogHead:
        assert not rolled_back
        return head

    async def committed(self, _tp: TP) -> int | None:
        return None

    def assign(self, _head: LogHead) -> None:
        """Delivery takes a log."""

    def revoke(self, *_: Any) -> None:
        """Delivery leaves one."""

    async def place(self, _tp: TP, next_offset: int) -> None:
        self.done.append(f"read from {next_offset}")

    def stand_still(self, _tp: TP) -> None:
        self.done.append("stand still")

    def resume_reading(self, _tp: TP) -> None:
        self.done.append("go on")

    async def placed_anew(self) -> None:
        self.positions.place_anew(ONE)
        await self.settled()

    async def settled(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def reasons(self) -> set[str]:
        """Why the metric says that the partition stands still."""
        return {
            sample.labels["reason"]
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "audit_partition_paused"
        }


@pytest.mark.anyio
async def test_a_lifted_pause_does_not_read_a_partition_whose_topic_was_replaced() -> None:
    servers = Servers()
    positions = servers.positions
    positions.assigned(frozenset({ONE}))
    await servers.settled()
    await positions.pause(*ONE, "too many bad records")
    servers.replaced = True
    await servers.placed_anew()
    assert servers.done[0] == "read from 10"
    assert servers.reasons() == {"stopped", "dead_letters"}

    servers.done.clear()
    positions.resume(ONE)

    assert servers.done == []
    assert servers.reasons() == {"stopped"}
    servers.replaced = False
    await servers.placed_anew()
    assert servers.done == ["stand still", "read from 10"]
    await positions.close()


@pytest.mark.anyio
async def test_a_partition_that_is_placed_again_stays_paused() -> None:
    servers = Servers()
    positions = servers.positions
    positions.assigned(frozenset({ONE}))
    await servers.settled()
    servers.held = [
        Pause(*ONE, "dead_letters", "too many bad records", None, None, datetime.now(UTC))
    ]
    servers.replaced = True
    await servers.placed_anew()
    servers.replaced = False
    await servers.placed_anew()
    positions.goes_on(ONE)

    assert servers.done[-2:] == ["read from 10", "stand still"]
    assert servers.reasons() == {"dead_letters"}
    positions.resume(ONE)
    assert servers.done[-1] == "go on"
    assert servers.reasons() == set()
    await positions.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("ends", "lag"),
    [((0, 99), 89), ((12, 99), 89), ((0, 4), 4), ((4, 4), 0)],
    ids=["replaced", "begins later", "ends before", "empty"],
)
async def test_the_lag_of_a_partition_that_never_was_placed_is_known(
    ends: tuple[int, int], lag: int
) -> None:
    servers = Servers()
    servers.replaced = True
    servers.logs = [HeadRow(1, HEAD.name, 5, 10, b"", datetime.now(UTC))]
    servers.ends = ends
    positions = servers.positions
    positions.assigned(frozenset({ONE}))
    await servers.settled()
    (place,) = positions.places().values()
    assert "replaced" in place.stopped

    place.ends(place.head, await servers.bounds(*ONE))

    assert positions.lag(ONE) == lag
    await positions.close()


@pytest.mark.anyio
async def test_the_lag_goes_by_the_newest_end_that_is_known() -> None:
    servers = Servers()
    positions = servers.positions
    positions.assigned(frozenset({ONE}))
    await servers.settled()
    (place,) = positions.places().values()
    assert positions.lag(ONE) == 89  # known from placing, before the first fetch

    servers.fetched = 120
    assert positions.lag(ONE) == 110

    await positions.pause(*ONE, "too many bad records")
    place.ends(place.head, (0, 150))
    assert positions.lag(ONE) == 140
    await positions.close()
