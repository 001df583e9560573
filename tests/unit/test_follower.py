"""A follower against a ledger and a destination that fail in every way the contracts allow."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, LogHead, SealedEvent
from sinks.follower import Follower, FollowerSettings
from sinks.memory_destination import MemoryDestination
from sinks.progress import Stored

NOW_S = 1_700_000_000.0
Hook = Callable[[], None]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def an_event(log_id: int, leaf: int) -> SealedEvent:
    canonical = f"{log_id}/{leaf}".encode()
    return SealedEvent(
        event_id=sha256(canonical).digest()[:16],
        family="authentication",
        occurred_at_us=int(NOW_S * 1e6),
        offset=leaf,
        broker_timestamp_ms=leaf,
        schema_id=1,
        clear={},
        opened={},
        canonical=canonical,
        leaf_hash=sha256(b"\0" + canonical).digest(),
        blobs=(),
        actor_ref=None,
        stored_at_us=int(NOW_S * 1e6) + leaf * 1_000_000,
    )


class ScriptedLedger:
    """Logs of known leaves; a hook runs while a call is under way, and calls can fail."""

    def __init__(self) -> None:
        self.logs: dict[int, list[SealedEvent]] = defaultdict(list)
        self.positions: dict[int, int] = defaultdict(int)
        self.outages_left = 0
        self.reads = 0
        self.meanwhile: Hook = lambda: None

    def head_of(self, log_id: int) -> LogHead:
        size = len(self.logs[log_id])
        return LogHead(log_id, LogName("t", log_id), size, size)

    def append(self, log_id: int, count: int) -> LeafRange:
        first = len(self.logs[log_id])
        self.logs[log_id] += [an_event(log_id, first + n) for n in range(count)]
        return LeafRange(log_id, LogName("t", log_id), first, self.logs[log_id][first:])

    async def read(self, log_id: int, first_leaf: int, *, limit: int) -> LeafRange:
        await self._answer()
        self.reads += 1
        events = self.logs[log_id][first_leaf : first_leaf + limit]
        self.meanwhile()
        return LeafRange(log_id, LogName("t", log_id), first_leaf, events)

    async def head(self, log_id: int) -> LogHead:
        await self._answer()
        return self.head_of(log_id)

    async def position(self, follower: str, log_id: int) -> int:
        await self._answer()
        position = self.positions[log_id]
        self.meanwhile()
        return position

    async def advance(self, follower: str, positions: Mapping[int, int]) -> None:
        await self._answer()
        self.meanwhile()
        for log_id, position in positions.items():
            assert position > self.positions[log_id], "a position must only move forward"
            self.positions[log_id] = position

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.outages_left:
            self.outages_left -= 1
            raise Unavailable("postgres")


class WatchedDestination(MemoryDestination):
    """Runs a hook while a write is under way."""

    def __init__(self, *, cut: int = 1) -> None:
        super().__init__("watched", cut=cut)
        self.meanwhile: Hook = lambda: None
        self.broken: set[int] = set()
        self.writes = 0

    async def write(self, ranges: Any) -> Mapping[int, int]:
        self.writes += 1
        await asyncio.sleep(0)
        self.meanwhile()
        for leaves in ranges:
            if leaves.log_id in self.broken:
                raise ChainBroken(str(leaves.name), "object 0 has another root")
        return await super().write(ranges)


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.outages: list[str] = []
        self.records = 0
        self.alerts: list[str] = []

    def wrote(self, sink: str, *, seconds: float) -> None:
        pass

    def stored(self, sink: str, log: str, stored: Stored) -> None:
        self.records += stored.records

    def outage(self, sink: str, *, what: str) -> None:
        self.outages.append(what)

    def stopped(self, sink: str, log: str, alert: str) -> None:
        self.alerts.append(log)


async def stop(task: asyncio.Task[None]) -> None:
    """End a follower as its worker does; one that ended by itself says why."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


class World:
    """One ledger, one destination, and the follower of the current worker."""

    def __init__(self, *, cut: int = 1, max_bytes: int = 10**9, catch_up: int = 7) -> None:
        self.ledger = ScriptedLedger()
        self.destination = WatchedDestination(cut=cut)
        self.notes = Notes()
        self.waits_s: list[float] = []
        self.settings = FollowerSettings(
            max_bytes=max_bytes, write_max_bytes=max_bytes, catch_up_events=catch_up
        )
        self.follower = self.restart()

    def restart(self) -> Follower:
        """A new process: nothing in memory survives."""
        for log_id in range(9):
            self.destination.forget(log_id)
        self.follower = Follower(
            self.destination,
            self.ledger,  # type: ignore[arg-type]  # the part of it that a follower uses
            _as_they_are,
            self.notes,
            settings=self.settings,
            sleep=self._sleep,
            now=lambda: NOW_S,
        )
        return self.follower

    async def settle(self) -> None:
        """Let the follower run until it has nothing to do."""
        self.ledger.outages_left = self.destination.outages_left = 0
        self.destination.flush_held = True
        task = asyncio.ensure_future(self.follower.run())
        for _ in range(400):
            await asyncio.sleep(0)
            if task.done():
                break
        await stop(task)

    def in_store(self, log_id: int) -> list[int]:
        return list(self.destination.leaves.get(log_id, {}))

    async def _sleep(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)
        await asyncio.sleep(0)


async def _as_they_are(leaves: LeafRange) -> LeafRange:
    await asyncio.sleep(0)
    return leaves


STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 1), st.integers(1, 9)),
    st.tuples(st.just("unoffered"), st.integers(0, 1), st.integers(1, 9)),
    st.tuples(st.just("late offer"), st.integers(0, 1), st.integers(1, 9)),
    st.tuples(st.just("assign"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("revoke"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("crash"), st.just(0), st.just(0)),
    st.tuples(st.just("store down"), st.just(0), st.integers(1, 3)),
    st.tuples(st.just("ledger down"), st.just(0), st.integers(1, 3)),
    st.tuples(st.just("flush"), st.just(0), st.integers(0, 1)),
    st.tuples(st.just("run"), st.just(0), st.integers(1, 6)),
)
Step = tuple[str, int, int]


def take_step(world: World, step: Step) -> None:
    """Everything but a crash and running: it may also happen while a call is under way."""
    what, log_id, count = step
    ledger, follower = world.ledger, world.follower
    if what == "append":
        follower.offer(ledger.append(log_id, count))
    elif what == "unoffered":
        ledger.append(log_id, count)
        follower.note_head(ledger.head_of(log_id))
    elif what == "late offer":
        first = max(len(ledger.logs[log_id]) - count, 0)
        again = ledger.logs[log_id][first:]
        follower.offer(LeafRange(log_id, LogName("t", log_id), first, again))
    elif what == "assign":
        follower.assign(ledger.head_of(log_id))
    elif what == "revoke":
        follower.revoke(log_id)
    elif what == "store down":
        world.destination.outages_left = count
    elif what == "ledger down":
        ledger.outages_left = count
    elif what == "flush":
        world.destination.flush_held = bool(count)


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(STEPS, min_size=10, max_size=50),
    during=st.lists(STEPS.filter(lambda step: step[0] not in ("crash", "run")), max_size=20),
    cut=st.sampled_from([1, 4]),
    max_bytes=st.sampled_from([1_000, 5_000, 10**9]),
)
def test_store_ends_with_each_leaf_once_and_in_order_whatever_happens(
    steps: list[Step], during: list[Step], cut: int, max_bytes: int
) -> None:
    async def scenario() -> None:
        world = World(cut=cut, max_bytes=max_bytes)
        catch_up_bytes = world.settings.catch_up_events * world.ledger.append(1_000, 1).held_bytes
        pending = list(during)

        def meanwhile() -> None:
            if pending:
                take_step(world, pending.pop())

        task = asyncio.ensure_future(world.follower.run())
        for log_id in range(2):
            world.follower.assign(world.ledger.head_of(log_id))
        for _ in range(5):
            await asyncio.sleep(0)
        world.ledger.meanwhile = world.destination.meanwhile = meanwhile
        for step in steps:
            if step[0] == "crash":
                await stop(task)
                world.restart()
                task = asyncio.ensure_future(world.follower.run())
            elif step[0] == "run":
                for _ in range(step[2]):
                    await asyncio.sleep(0)
            else:
                take_step(world, step)
            assert world.follower.status().held_bytes <= max_bytes + catch_up_bytes
        await stop(task)

        pending.clear()
        world.restart()
        for log_id in range(2):
            world.follower.assign(world.ledger.head_of(log_id))
        await world.settle()

        for log_id in range(2):
            size = len(world.ledger.logs[log_id])
            assert world.in_store(log_id) == list(range(size))
            assert world.ledger.positions[log_id] == size
        assert world.follower.status().caught_up

    asyncio.run(scenario())


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(STEPS, min_size=10, max_size=50), cut=st.sampled_from([1, 4]))
def test_a_worker_that_never_crashes_needs_no_restart_to_end_complete(
    steps: list[Step], cut: int
) -> None:
    async def scenario() -> None:
        world = World(cut=cut, max_bytes=5_000)
        task = asyncio.ensure_future(world.follower.run())
        for log_id in range(2):
            world.follower.assign(world.ledger.head_of(log_id))
        for step in steps:
            if step[0] == "run":
                for _ in range(step[2]):
                    await asyncio.sleep(0)
            elif step[0] not in ("crash", "revoke"):
                take_step(world, step)
        await stop(task)

        await world.settle()

        for log_id in range(2):
            assert world.in_store(log_id) == list(range(len(world.ledger.logs[log_id])))
        assert world.follower.status().caught_up

    asyncio.run(scenario())


@pytest.mark.anyio
async def test_in_health_leaves_come_from_memory_alone() -> None:
    world = World()
    world.follower.assign(world.ledger.head_of(1))
    await world.settle()

    for _ in range(20):
        world.follower.offer(world.ledger.append(1, 5))
        await world.follower.round()

    assert world.ledger.reads == 0
    assert world.in_store(1) == list(range(100))
    assert world.notes.records == 100


@pytest.mark.anyio
async def test_goes_back_to_memory_although_offers_never_pause() -> None:
    world = World(catch_up=50)
    world.ledger.append(1, 200)
    world.follower.assign(world.ledger.head_of(1))
    world.ledger.meanwhile = lambda: world.follower.offer(world.ledger.append(1, 5))
    world.destination.meanwhile = world.ledger.meanwhile

    for _ in range(40):
        await world.follower.round()

    assert world.ledger.reads < 10
    assert world.follower.status().logs[0].lag_records <= 15


@pytest.mark.anyio
async def test_outage_is_counted_once_waited_out_longer_each_time_and_forgotten() -> None:
    world = World()
    world.follower.assign(world.ledger.head_of(1))
    world.follower.offer(world.ledger.append(1, 3))
    world.destination.outages_left = 6

    for _ in range(6):
        await world.follower.round()
    during = world.follower.status()
    await world.settle()

    assert world.notes.outages == ["watched"]
    assert (during.outages, during.unavailable) == (1, "watched")
    assert all(0.1 * 2**n <= wait <= 0.2 * 2**n for n, wait in enumerate(world.waits_s[:5]))
    assert max(world.waits_s) <= world.settings.retry_max_s
    assert world.follower.status().unavailable == ""
    assert world.in_store(1) == [0, 1, 2]


@pytest.mark.anyio
async def test_writes_from_memory_while_the_ledger_is_down() -> None:
    world = World()
    world.follower.assign(world.ledger.head_of(1))
    await world.settle()
    world.follower.offer(world.ledger.append(1, 3))
    world.ledger.outages_left = 1

    await world.follower.round()

    assert world.in_store(1) == [0, 1, 2]
    assert world.follower.status().logs[0].position == 0
    await world.settle()
    assert world.ledger.positions[1] == 3
    assert world.destination.writes == 1


@pytest.mark.anyio
async def test_contradiction_stops_its_log_and_no_other() -> None:
    world = World()
    for log_id in (1, 2):
        world.follower.assign(world.ledger.head_of(log_id))
    await world.settle()
    world.destination.broken = {1}
    for log_id in (1, 2):
        world.follower.offer(world.ledger.append(log_id, 4))

    await world.settle()
    world.follower.offer(world.ledger.append(1, 4))
    world.follower.offer(world.ledger.append(2, 4))
    await world.settle()

    stopped, running = world.follower.status().logs
    assert "another root" in stopped.alert
    assert (stopped.position, stopped.lag_records) == (0, 8)
    assert (running.alert, running.position) == ("", 8)
    assert world.notes.alerts == ["t/1/1"]


@pytest.mark.anyio
async def test_leaf_missing_in_the_ledger_stops_the_log_instead_of_asking_for_ever() -> None:
    world = World()
    world.follower.assign(LogHead(1, LogName("t", 1), 5, 5))

    await world.settle()

    assert "has no leaf 0" in world.follower.status().logs[0].alert


@pytest.mark.anyio
async def test_position_beyond_the_ledger_stops_the_log() -> None:
    world = World()
    world.ledger.positions[1] = 10
    world.follower.assign(world.ledger.head_of(1))

    await world.settle()

    assert "stored 10 leaves, the ledger holds 0" in world.follower.status().logs[0].alert


@pytest.mark.anyio
async def test_result_of_a_write_for_a_revoked_log_is_dropped() -> None:
    world = World()
    world.follower.assign(world.ledger.head_of(1))
    await world.settle()
    world.follower.offer(world.ledger.append(1, 3))
    world.destination.meanwhile = lambda: world.follower.revoke(1)

    await world.follower.round()

    assert world.ledger.positions[1] == 0
    assert world.follower.status().logs == ()


@pytest.mark.anyio
async def test_a_bug_in_the_destination_comes_out_of_run() -> None:
    world = World()
    world.follower.assign(world.ledger.head_of(1))
    await world.settle()
    world.destination.meanwhile = lambda: dict[str, None]()["no such key"]
    world.follower.offer(world.ledger.append(1, 1))

    with pytest.raises(KeyError):
        await world.follower.run()


@pytest.mark.anyio
async def test_lag_is_the_age_of_the_oldest_leaf_that_the_store_lacks() -> None:
    world = World()
    world.follower.assign(world.ledger.head_of(1))
    await world.settle()
    world.follower.offer(world.ledger.append(1, 3))
    world.follower._now = lambda: NOW_S + 60

    before = world.follower.status().logs[0]
    await world.settle()
    after = world.follower.status().logs[0]

    assert (before.lag_records, before.lag_s) == (3, 60.0)
    assert (after.lag_records, after.lag_s) == (0, 0.0)


@pytest.mark.anyio
async def test_few_leaves_are_let_gather_and_many_are_not() -> None:
    world, lingering = World(), asyncio.Event()
    enough = an_event(1, 0).held_bytes * 4
    world.settings = replace(world.settings, linger_s=3600, linger_bytes=enough)

    async def wait(_wait_s: float) -> None:
        await lingering.wait()

    world._sleep = wait  # type: ignore[method-assign]
    task = asyncio.ensure_future(world.restart().run())
    world.follower.assign(world.ledger.head_of(1))
    writes = []

    async def offer(leaves: int) -> None:
        world.follower.offer(world.ledger.append(1, leaves))
        for _ in range(20):
            await asyncio.sleep(0)
        writes.append(world.destination.writes)

    await offer(1)  # nothing was written lately: at once
    await offer(1)
    await offer(1)
    lingering.set()
    await offer(1)  # the time is over: three in one write
    lingering.clear()
    await offer(4)
    await offer(1)  # four in memory are enough
    await stop(task)

    assert writes == [1, 1, 1, 2, 2, 3]
    assert world.in_store(1) == list(range(9))
