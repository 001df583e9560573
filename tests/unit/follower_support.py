"""A follower with a ledger and a store that do as they are told, and steps of what may happen to it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from hypothesis import strategies as st

from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, LogHead, SealedEvent
from sinks.follower import Follower, FollowerSettings
from sinks.memory_destination import MemoryDestination
from sinks.progress import Stored

NOW_S = 1_700_000_000.0
Hook = Callable[[], None]


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
    """Runs a hook while a write is under way; takes nothing of a log that is forgotten meanwhile."""

    def __init__(self, *, cut: int = 1) -> None:
        super().__init__("watched", cut=cut)
        self.meanwhile: Hook = lambda: None
        self.broken: set[int] = set()
        self.writes = 0
        self._forgotten: set[int] = set()

    def forget(self, log_id: int) -> None:
        super().forget(log_id)
        self._forgotten.add(log_id)

    async def write(self, ranges: Any) -> Mapping[int, int]:
        self.writes += 1
        self._forgotten.clear()
        await asyncio.sleep(0)
        self.meanwhile()
        ranges = [leaves for leaves in ranges if leaves.log_id not in self._forgotten]
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
