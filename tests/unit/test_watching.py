"""What is noticed without a record that says so: a ledger behind, a topic replaced, a broker away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from faust.types import TP
from prometheus_client import CollectorRegistry

from agents.places import Place, Waits
from agents.watching import Watch
from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.records import LogHead
from pipeline.metrics import Metrics
from sinks.operations import HeadRow, Pause

ONE, TWO = TP("audit.raw.authentication", 0), TP("audit.raw.data-access", 1)
TOPIC_ID = "topic-1"


@dataclass
class World:
    """Two partitions that are read, at offsets 10 and 20, and what their servers answer."""

    held: dict[int, int] = field(default_factory=lambda: {1: 10, 2: 20})
    topic_id: str | Exception = TOPIC_ID
    meanwhile: Callable[[], None] = lambda: None
    done: list[tuple[str, TP]] = field(default_factory=list)
    waiting_for: set[str] = field(default_factory=set)
    crashes: list[BaseException] = field(default_factory=list)
    lags: dict[TP, int | None] = field(default_factory=dict)
    oldest: int | None = None
    bounds_of: dict[TP, tuple[int, int] | Exception] = field(default_factory=dict)
    asked: list[TP] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self._places = {
            tp: Place(head=LogHead(log_id, LogName(tp.topic, tp.partition), 5, offset),
                      topic_id=TOPIC_ID, placed=True)
            for tp, log_id, offset in ((ONE, 1, 10), (TWO, 2, 20))
        }  # fmt: skip

    def watch(self, outage_limit_s: float = 3600.0) -> Watch:
        waits = Waits(0.0, 0.0, outage_limit_s, look_every_s=0.0, stopped_again_s=0.0)
        return Watch(
            self,  # type: ignore[arg-type]  # the part of Positions that it uses
            (),
            self,
            self,
            waits,
            self.metrics,
            delivery=self,  # type: ignore[arg-type]
            crash=self.crashes.append,
        )

    def places(self) -> dict[TP, Place]:
        return dict(self._places)

    def reread(self, topic: str, partition: int) -> None:
        self.place_anew(TP(topic, partition), "reread")

    def place_anew(self, tp: TP, how: str = "anew") -> None:
        self.done.append((how, tp))
        self._places[tp].placed = False

    def resume(self, tp: TP) -> None:
        self.done.append(("resumed", tp))
        self._places[tp].paused = ""

    def goes_on(self, tp: TP) -> None:
        """Nothing was stopped."""

    def lag(self, tp: TP) -> int | None:
        return self.lags.get(tp, 0)

    def oldest_ms(self) -> int | None:
        return self.oldest

    async def heads(self) -> Sequence[HeadRow]:
        self.meanwhile()
        now = datetime.now(UTC)
        return [
            HeadRow(at, LogName("t", at), 5, offset, b"", now) for at, offset in self.held.items()
        ]

    async def deleted_below(self, topic: str, partition: int) -> int:
        return 0

    async def pauses(self) -> Sequence[Pause]:
        return []

    async def pause(self, topic: str, partition: int, *, reason: str, detail: str) -> bool:
        raise AssertionError

    async def ids(self, topic: str) -> tuple[str, str]:
        if isinstance(self.topic_id, Exception):
            raise self.topic_id
        return "cluster", self.topic_id if topic == ONE.topic else TOPIC_ID

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        self.asked.append(TP(topic, partition))
        found = self.bounds_of.get(TP(topic, partition), (0, 0))
        if isinstance(found, Exception):
            raise found
        return found

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


async def a_while(loop: Coroutine[Any, Any, None]) -> None:
    """Let a loop go round some times."""
    task = asyncio.ensure_future(loop)
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("held", "reread"),
    [
        ({1: 10, 2: 20}, []),
        ({1: 12, 2: 25}, []),
        ({1: 9, 2: 20}, [("reread", ONE)]),
        ({2: 5}, [("reread", ONE), ("reread", TWO)]),
    ],
)
async def test_a_log_that_the_ledger_lost_leaves_of_is_read_again_once(
    held: dict[int, int], reread: list[tuple[str, TP]]
) -> None:
    world = World(held=held)

    await a_while(world.watch().ledger())

    assert world.done == reread


@pytest.mark.anyio
async def test_what_is_written_while_the_ledger_is_asked_is_not_taken_for_lost() -> None:
    world = World()

    def write() -> None:
        head = world.places()[ONE].head
        assert head is not None
        world.places()[ONE].head = LogHead(1, head.name, 9, 99)
        world.meanwhile = lambda: world.held.update({1: 99})

    world.meanwhile = write

    await a_while(world.watch().ledger())

    assert world.done == []


@pytest.mark.anyio
@pytest.mark.parametrize("now", ["topic-2", ChainBroken("t", "it is gone")])
async def test_a_replaced_topic_is_placed_anew(now: str | Exception) -> None:
    world = World(topic_id=now)

    await a_while(world.watch().topics())

    gone = {("anew", ONE), ("anew", TWO)}
    assert set(world.done) == (gone if isinstance(now, Exception) else {("anew", ONE)})


@pytest.mark.anyio
async def test_a_broker_that_is_away_is_said_once_and_until_it_is_back() -> None:
    world = World(topic_id=Unavailable("kafka"))
    watch = world.watch()
    task = asyncio.ensure_future(watch.topics())
    for _ in range(20):
        await asyncio.sleep(0)
    during = set(world.waiting_for)
    world.topic_id = TOPIC_ID
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()

    assert during == {"kafka"}
    assert world.waiting_for == set()
    outages = world.metrics.registry.get_sample_value(
        "audit_intake_outages_total", {"server": "kafka"}
    )
    assert outages == 1
    assert world.crashes == []
    assert world.done == []


@pytest.mark.anyio
async def test_a_broker_that_is_away_for_longer_than_the_limit_ends_the_worker() -> None:
    world = World(topic_id=Unavailable("kafka", "no answer"))

    await a_while(world.watch(outage_limit_s=0.0).topics())

    assert world.crashes
    assert all(isinstance(crash, Unavailable) for crash in world.crashes)


@pytest.mark.anyio
async def test_a_pause_that_a_person_lifted_goes_on() -> None:
    world = World()
    world.places()[TWO].paused = "dead_letters"

    await a_while(world.watch().partitions())

    assert world.done == [("resumed", TWO)]


@pytest.mark.anyio
async def test_the_ledger_lags_by_the_oldest_record_that_is_under_way() -> None:
    world = World(oldest=int((time.time() - 60) * 1000))

    def lag_s() -> float | None:
        return world.metrics.registry.get_sample_value(
            "audit_durable_lag_seconds", {"sink": "ledger"}
        )

    await a_while(world.watch().partitions())
    during = lag_s()
    world.oldest = None
    await a_while(world.watch().partitions())

    assert during is not None
    assert 60 <= during < 70
    assert lag_s() == 0.0


@pytest.mark.anyio
async def test_the_broker_is_asked_for_the_ends_of_what_stands_still_or_is_behind() -> None:
    world = World(bounds_of={ONE: (0, 70), TWO: (0, 20)})
    await a_while(world.watch().topics())
    assert world.asked == []

    world.places()[ONE].paused = "dead_letters"
    await a_while(world.watch().topics())
    assert set(world.asked) == {ONE}
    assert world.places()[ONE].end == 70

    world.places()[ONE].paused, world.lags[TWO] = "", 5
    world.asked.clear()
    await a_while(world.watch().topics())
    assert set(world.asked) == {TWO}


@pytest.mark.anyio
async def test_a_topic_that_is_gone_keeps_no_other_from_being_measured() -> None:
    world = World(bounds_of={ONE: ChainBroken("t", "it is gone"), TWO: (0, 33)})
    for place in world.places().values():
        place.stopped = "contradicted"

    await a_while(world.watch().topics())

    assert world.places()[TWO].end == 33
    assert world.crashes == []


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["paused", "stopped", "not placed"])
async def test_the_ledger_lags_for_as_long_as_a_partition_stands_still_with_records_left(
    how: str,
) -> None:
    world = World(lags={ONE: 7})
    place = world.places()[ONE]
    if how == "not placed":
        place.placed = False
    else:
        setattr(place, how, "why")
    place.retry_at = time.monotonic() + 3_600
    watch = world.watch()
    # As if a person had not lifted it; what the loop does besides measuring is tried elsewhere.
    watch._measure()
    since = place.behind_since
    assert since is not None
    place.behind_since = since - 90

    watch._measure()

    lag_s = world.sample("audit_durable_lag_seconds", sink="ledger")
    assert lag_s is not None
    assert 90 <= lag_s < 100
    assert (
        world.sample("audit_consumer_lag_records", topic=ONE.topic, partition=str(ONE.partition))
        == 7
    )
    world.lags[ONE] = 0
    watch._measure()
    assert world.sample("audit_durable_lag_seconds", sink="ledger") == 0.0
