"""A follower against a ledger and a destination that fail in every way the contracts allow."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.logs import LogName
from pipeline.domain.records import LogHead
from tests.sizes import examples
from tests.unit.follower_support import (
    NOW_S,
    STEPS,
    Step,
    World,
    an_event,
    stop,
    take_step,
)


@settings(max_examples=examples(300), deadline=None)
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


@settings(max_examples=examples(200), deadline=None)
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
