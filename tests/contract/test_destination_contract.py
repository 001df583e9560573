"""What every destination promises to its follower, the shipped fake included.

To hold another destination to it, add a function to ``DESTINATIONS`` that opens its ``Store``.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from uuid import UUID

import pytest

from pipeline.domain.errors import Unavailable
from pipeline.domain.records import SealedEvent
from sinks.base import Destination
from sinks.memory_destination import MemoryDestination
from tests.archive_store import open_archive_store
from tests.index_support import IndexServer, a_range, open_index_server, sign_ins
from tests.proxy import Fault


class Store(Protocol):
    """One store, and the destinations that workers one after the other open on it."""

    async def destination(self) -> Destination:
        """What a worker that has just started would write to."""
        ...

    async def settle(self, destination: Destination) -> Mapping[int, int]:
        """Have a destination give up what it holds back; what ``write`` then returned."""
        ...

    async def stored(self, log_id: int) -> list[tuple[int, bytes]]:
        """(leaf, event id) of every leaf of a log that the store has, copies included, in order."""
        ...

    async def lose_server(self) -> None:
        """From now on the server cannot be reached."""
        ...

    async def restore_server(self) -> None:
        """It can again."""
        ...


OpenStore = Callable[[], AbstractAsyncContextManager[Store]]


class MemoryStore:
    """The fake, which is its own store; ``cut`` as ``MemoryDestination`` has it."""

    def __init__(self, cut: int) -> None:
        self._cut = cut
        self._leaves: dict[int, dict[int, SealedEvent]] = {}
        self._current = MemoryDestination()

    async def destination(self) -> Destination:
        self._current = MemoryDestination(cut=self._cut)
        self._current.leaves = self._leaves
        return self._current

    async def settle(self, destination: Destination) -> Mapping[int, int]:
        self._current.flush_held = True
        durable = await destination.write([])
        self._current.flush_held = False
        return durable

    async def stored(self, log_id: int) -> list[tuple[int, bytes]]:
        leaves = self._leaves.get(log_id, {})
        return [(leaf, event.event_id) for leaf, event in leaves.items()]

    async def lose_server(self) -> None:
        self._current.outages_left = 1_000

    async def restore_server(self) -> None:
        self._current.outages_left = 0


class IndexStore:
    """Elasticsearch, over a line that can be taken down."""

    def __init__(self, server: IndexServer) -> None:
        self._server = server
        self._opened: list[Destination] = []

    async def destination(self) -> Destination:
        destination = self._server.destination(bulk_max_bytes=8_000)
        await destination.open()
        self._opened.append(destination)
        return destination

    async def settle(self, destination: Destination) -> Mapping[int, int]:
        return await destination.write([])

    async def stored(self, log_id: int) -> list[tuple[int, bytes]]:
        found = [hit["_source"] for hit in await self._server.documents()]
        return [
            (document["audit.leaf_index"], UUID(document["event.id"]).bytes)
            for document in found
            if document["audit.log"] == f"audit.raw.authentication/{log_id}/1"
        ]

    async def lose_server(self) -> None:
        self._server.line.set(Fault.DOWN)

    async def restore_server(self) -> None:
        self._server.line.set(Fault.NONE)

    async def close(self) -> None:
        for destination in self._opened:
            await destination.close()


@asynccontextmanager
async def memory() -> AsyncIterator[Store]:
    yield MemoryStore(cut=1)


@asynccontextmanager
async def memory_that_holds_back() -> AsyncIterator[Store]:
    yield MemoryStore(cut=7)


@asynccontextmanager
async def index() -> AsyncIterator[Store]:
    async with open_index_server() as server:
        store = IndexStore(server)
        yield store
        await store.close()


@asynccontextmanager
async def archive() -> AsyncIterator[Store]:
    async with open_archive_store(max_events=1) as store:
        yield store


@asynccontextmanager
async def archive_that_holds_back() -> AsyncIterator[Store]:
    async with open_archive_store(max_events=7) as store:
        yield store


DESTINATIONS: list[Any] = [
    memory,
    memory_that_holds_back,
    pytest.param(index, marks=pytest.mark.integration),
    pytest.param(archive, marks=pytest.mark.integration),
    pytest.param(archive_that_holds_back, marks=pytest.mark.integration),
]

pytestmark = pytest.mark.anyio


@pytest.fixture(params=DESTINATIONS)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    open_store: OpenStore = request.param
    async with open_store() as opened:
        yield opened


def leaves_of(events: Sequence[SealedEvent]) -> list[tuple[int, bytes]]:
    return [(leaf, event.event_id) for leaf, event in enumerate(events)]


async def test_what_is_reported_is_stored_and_the_rest_follows(store: Store) -> None:
    destination = await store.destination()
    events = sign_ins(25)

    reported = (await destination.write([a_range(events)])).get(1, 0)
    stored = await store.stored(1)
    settled = await store.settle(destination)

    assert stored[:reported] == leaves_of(events)[:reported]
    assert settled.get(1, reported) == 25
    assert await store.stored(1) == leaves_of(events)


async def test_leaves_given_one_after_the_other_are_all_stored_in_order(store: Store) -> None:
    destination = await store.destination()
    events = sign_ins(30)

    for first in range(0, 30, 4):
        await destination.write([a_range(events[first : first + 4], first_leaf=first)])
    await store.settle(destination)

    assert await store.stored(1) == leaves_of(events)


async def test_several_logs_in_one_call_are_reported_each(store: Store) -> None:
    destination = await store.destination()
    ours, theirs = sign_ins(9), sign_ins(12)

    first = await destination.write(
        [a_range(ours[:5]), a_range(theirs, log_id=2), a_range(ours[5:], first_leaf=5)]
    )
    reported = {**first, **await store.settle(destination)}

    assert reported == {1: 9, 2: 12}
    assert await store.stored(1) == leaves_of(ours)
    assert await store.stored(2) == leaves_of(theirs)


@pytest.mark.parametrize("seed", range(4))
async def test_leaves_given_again_by_another_worker_in_another_cut_change_nothing(
    store: Store, seed: int
) -> None:
    randomly = random.Random(seed)
    events = sign_ins(40)

    position = 0
    for _worker in range(4):
        destination = await store.destination()
        first = position
        for _write in range(3):
            end = min(first + randomly.randint(1, 12), 40)
            reported = await destination.write([a_range(events[first:end], first_leaf=first)])
            position, first = reported.get(1, position), end
    destination = await store.destination()
    await destination.write([a_range(events[position:], first_leaf=position)])
    await store.settle(destination)

    assert await store.stored(1) == leaves_of(events)


async def test_the_same_worker_may_give_again_what_it_gave(store: Store) -> None:
    destination = await store.destination()
    events = sign_ins(20)

    await destination.write([a_range(events[:9])])
    destination.forget(1)
    await destination.write([a_range(events[:15])])
    destination.forget(2)
    await destination.write([a_range(events[15:], first_leaf=15)])
    await store.settle(destination)

    assert await store.stored(1) == leaves_of(events)


async def test_forgotten_leaves_are_not_stored_later(store: Store) -> None:
    destination = await store.destination()

    reported = (await destination.write([a_range(sign_ins(10))])).get(1, 0)
    destination.forget(1)
    settled = await store.settle(destination)

    assert settled == {}
    assert len(await store.stored(1)) == reported


async def test_server_that_is_gone_is_an_outage_and_the_same_leaves_arrive_later(
    store: Store,
) -> None:
    destination = await store.destination()
    events = sign_ins(20)
    await destination.write([a_range(events[:6])])
    rest = a_range(events[6:], first_leaf=6)

    await store.lose_server()
    with pytest.raises(Unavailable):  # noqa: PT012 - one that holds back meets it when it settles
        await destination.write([rest])
        await store.settle(destination)
    await store.restore_server()
    await destination.write([rest])
    await store.settle(destination)

    assert await store.stored(1) == leaves_of(events)


async def test_a_write_of_nothing_reports_nothing(store: Store) -> None:
    destination = await store.destination()

    assert await destination.write([]) == {}
