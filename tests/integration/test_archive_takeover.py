"""One archive, several workers: crashes, takeovers and contradictions end with one range each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.records import LeafRange
from tests.archive_support import (
    Gateway,
    LedgerLog,
    an_event,
    facts,
    new_log,
    open_gateway,
)
from tests.sizes import examples

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def shared_gateway(anyio_backend: str) -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Iterator[Gateway]:
    yield shared_gateway
    shared_gateway.s3.lose = lambda: ""
    shared_gateway.s3.delay_s = lambda: 0.0


@pytest.fixture
def ledger() -> LedgerLog:
    return LedgerLog(new_log(), 20)


@pytest.mark.parametrize("first_cut", [5, 12, 20])
async def test_a_range_that_is_there_is_taken_over(
    gateway: Gateway, ledger: LedgerLog, first_cut: int
) -> None:
    await gateway.destination(ledger).write([ledger.range(0, first_cut)])
    later = gateway.destination(ledger)

    durable = await later.write([ledger.range(0, 12)])
    durable = {**durable, **await later.write([ledger.range(12)])}

    assert durable == {1: 20}
    stored = await gateway.stored(ledger.name)
    assert stored[0].next_leaf == first_cut
    assert [event.leaf_hash for found in stored for event in found.events] == [
        event.leaf_hash for event in ledger.events
    ]


async def test_other_leaves_under_the_same_key_stop_this_log_alone(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    await gateway.destination(ledger).write([ledger.range(0, 5)])
    ledger.events[4] = an_event(4, seed="other")
    healthy = LedgerLog(new_log(), 5, log_id=2)
    destination = gateway.destination(ledger)

    with pytest.raises(ChainBroken, match="leaves 0 to 4 differ") as broken:
        await destination.write([ledger.range(0), healthy.range(0)])

    assert broken.value.log == str(ledger.name)
    assert await destination.write([]) == {2: 5}


async def test_an_archive_that_is_ahead_of_the_ledger_stops_the_log(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    await gateway.destination(ledger).write([ledger.range(0)])
    del ledger.events[15:]

    with pytest.raises(ChainBroken, match="audit-trail restore"):
        await gateway.destination(ledger).write([ledger.range(0)])


@pytest.mark.parametrize("vaulted", [5, 12, 20])
async def test_a_crash_between_the_two_puts_leaves_one_range(
    gateway: Gateway, ledger: LedgerLog, vaulted: int
) -> None:
    puts = iter(["", "before"])
    gateway.s3.lose = lambda: next(puts, "")
    with pytest.raises(Unavailable):
        await gateway.destination(ledger).write([ledger.range(0, vaulted)])

    later = gateway.destination(ledger)
    await later.write([ledger.range(0, 12)])
    durable = await later.write([ledger.range(12)])

    assert durable == {1: 20}
    assert (await gateway.cuts(ledger.name))[0] == (0, vaulted)


async def test_a_log_that_is_forgotten_while_a_write_is_under_way_leaves_no_object(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    other = LedgerLog(new_log(), 20, log_id=2)
    destination = gateway.destination(None, max_age_s=3600, max_events=12)
    await destination.write([ledger.range(0, 5), other.range(0, 5)])
    gateway.s3.delay_s = lambda: 0.2

    # The object of the first log is being put when the second one is revoked.
    write = asyncio.ensure_future(destination.write([ledger.range(5), other.range(5)]))
    await asyncio.sleep(0.05)
    destination.forget(2)
    durable = await write

    assert durable == {1: 12}
    assert await gateway.cuts(other.name) == []
    await destination.write([other.range(0)])  # assigned again, from the position on
    assert await gateway.cuts(other.name) == [(0, 12)]


async def test_blobs_of_leaves_that_were_rolled_back_are_replaced(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    lost = LedgerLog(ledger.name)
    lost.events = [an_event(leaf, seed="lost") for leaf in range(8)]
    puts = iter(["", "before"])
    gateway.s3.lose = lambda: next(puts, "")
    with pytest.raises(Unavailable):
        await gateway.destination(lost).write([lost.range(0)])

    durable = await gateway.destination(ledger).write([ledger.range(0, 6)])

    assert durable == {1: 6}
    (stored,) = await gateway.stored(ledger.name)
    assert [event.blobs for event in stored.events] == [e.blobs for e in ledger.events[:6]]


async def test_two_workers_end_with_one_range(gateway: Gateway) -> None:
    for attempt in range(12):
        random = Random(attempt)
        gateway.s3.delay_s = partial(random.uniform, 0, 0.02)
        ledger = LedgerLog(new_log(), 20)
        ends = (20, 12) if attempt % 2 else (7, 20)
        workers = [gateway.destination(ledger), gateway.destination(ledger)]

        await asyncio.gather(
            *(
                worker.write([ledger.range(0, end)])
                for worker, end in zip(workers, ends, strict=True)
            )
        )
        durable = await asyncio.gather(*(worker.write([ledger.range(0)]) for worker in workers))

        assert durable == [{1: 20}, {1: 20}]
        assert _leaves(await gateway.stored(ledger.name)) == _leaves([ledger.range(0)])


@given(seed=st.integers(0, 2**32))
@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_every_leaf_is_stored_once_whatever_fails(gateway: Gateway, seed: int) -> None:
    random = Random(seed)
    gateway.s3.lose = lambda: random.choice(["before", "after", "", "", ""])
    ledger = LedgerLog(new_log(), 60)
    positions = [0, 0]
    workers = [gateway.destination(ledger), gateway.destination(ledger)]

    for _ in range(200):
        at = random.randrange(2)
        if random.random() < 0.1:  # a crash: the worker starts from the ledger's position
            workers[at], positions[at] = gateway.destination(ledger), max(positions)
        if random.random() < 0.1:
            workers[at].forget(1)
            positions[at] = max(positions)
        leaves = ledger.range(positions[at], positions[at] + random.randrange(1, 25))
        try:
            durable = await workers[at].write([leaves] if leaves.events else [])
        except Unavailable:
            continue
        positions[at] = durable.get(1, positions[at])
        if min(positions) == 60:
            break
    gateway.s3.lose = lambda: ""

    stored = await gateway.stored(ledger.name)
    assert _leaves(stored) == _leaves([ledger.range(0, max(positions))])


def _leaves(ranges: list[LeafRange]) -> list[tuple[int, dict[str, object]]]:
    return [
        (leaf, facts(event))
        for found in ranges
        for leaf, event in enumerate(found.events, found.first_leaf)
    ]
