"""A follower brings one destination after the ledger, and is the only place that retries.

Guarantees that the destination gets every leaf of every assigned log in order, at least once, and
that the durable position names no leaf that the destination has not made durable. In health it is
fed from memory; whatever it missed it reads from the ledger. A destination that is down delays
itself alone: ``offer`` never blocks, never fails, and memory is bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.records import LeafRange, LogHead
from sinks.backoff import Backoff, first_of
from sinks.base import Destination, Ledger
from sinks.feed import Feed, Gathered
from sinks.progress import FollowerObserver, FollowerStatus

_PRESSED = 0.5  # of the memory bound
_PACE_S = 2.0

OpenValues = Callable[[LeafRange], Awaitable[LeafRange]]


@runtime_checkable
class HoldsBack(Protocol):
    """What a destination adds that keeps leaves until they are worth an object."""

    def due_in_s(self) -> float | None:
        """Seconds until ``write`` must be called again, with nothing new if need be; None: never."""
        ...


@dataclass(frozen=True, slots=True)
class FollowerSettings:
    """The bounds of one follower; see ``pipeline/settings.py`` for their meaning."""

    max_bytes: int = 48 * 1024 * 1024
    write_max_bytes: int = 16 * 1024 * 1024  # gathered over all logs for one write
    catch_up_events: int = 5_000
    linger_s: float = 0.0  # what comes within so long is written together, unless it is
    linger_bytes: int = 2 * 1024 * 1024  # so much in memory
    retry_first_s: float = 0.2
    retry_max_s: float = 5.0


class Follower:
    """One destination's way after the ledger. ``run`` is its only task.

    ``assign``, ``revoke``, ``note_head`` and ``offer`` are called on the same event loop at any
    time, also while a write is in flight; the result of a write for a log that was revoked
    meanwhile is dropped. ``open_values`` fills ``opened`` of a range that the ledger gave.
    Memory: ``max_bytes`` over all logs, and on top of it one catch-up read.
    """

    def __init__(
        self,
        destination: Destination,
        ledger: Ledger,
        open_values: OpenValues,
        observer: FollowerObserver,
        *,
        settings: FollowerSettings,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._destination = destination
        self._ledger = ledger
        self._open_values = open_values
        self._observer = observer
        self._settings = settings
        self._sleep = sleep
        self._now = now
        self._backoff = Backoff(settings.retry_first_s, settings.retry_max_s)
        self._due_in_s = destination.due_in_s if isinstance(destination, HoldsBack) else None
        self._feeds: dict[int, Feed] = {}
        self._in_flight: list[Gathered] = []
        self._abandoned: set[str] = set()  # logs revoked since the last write began
        self._wake = asyncio.Event()
        self._plenty = asyncio.Event()  # no reason to wait for more
        self._turn = 0
        self._read_limit = min(settings.catch_up_events, 500)
        self._outages = 0
        self._stored_at = time.monotonic()
        self._unavailable = ""

    def assign(self, head: LogHead) -> None:
        """Follow a log from the ledger's position on; a log assigned twice starts afresh."""
        self.revoke(head.log_id)
        self._feeds[head.log_id] = Feed(
            head, now_us=int(self._now() * 1e6), reach=self._settings.catch_up_events
        )
        self._plenty.set()
        self._wake.set()

    def revoke(self, log_id: int) -> None:
        """Abandon a log: what is held for it, and what a write in flight will say about it."""
        feed = self._feeds.pop(log_id, None)
        if feed is not None:
            self._abandoned.add(str(feed.name))
            self._destination.forget(log_id)
            self._wake.set()

    def start_afresh(self) -> None:
        """Drop what is in memory, opened values with it, and go on from the ledger."""
        for feed in list(self._feeds.values()):
            if feed.alert is None:
                self.assign(LogHead(feed.log_id, feed.name, feed.head_size, next_offset=0))

    def wake(self) -> None:
        """Look again what is due."""
        self._wake.set()

    def offer(self, fresh: LeafRange) -> None:
        """The ledger has these leaves. Kept if they fit; read from the ledger later if not."""
        feed = self._feeds.get(fresh.log_id)
        if feed is None:
            return
        held_bytes = self._held_bytes()
        feed.offer(fresh, self._settings.max_bytes - held_bytes)
        if held_bytes >= self._settings.linger_bytes:
            self._plenty.set()
        self._wake.set()

    def note_head(self, head: LogHead) -> None:
        """The ledger's log is so long: leaves that nobody offered (a COMMIT whose answer was lost,
        leaves restored from the archive) are read. Call it with every ``WriteOutcome.head``.
        """
        feed = self._feeds.get(head.log_id)
        if feed is not None and head.size > feed.head_size:
            feed.head_size = head.size
            self._wake.set()

    def is_pressed(self) -> bool:
        """Healthy, writing, and nearly full: intake had better wait a moment than outrun it.

        What a follower cannot keep in memory it reads from the ledger again, at three times the
        cost. One that is down, or has stored nothing for ``_PACE_S``, presses nobody.
        """
        return (
            not self._unavailable
            and time.monotonic() - self._stored_at < _PACE_S
            and self._held_bytes() > _PRESSED * self._settings.max_bytes
        )

    def status(self) -> FollowerStatus:
        """Position, lag and alerts of every assigned log, now."""
        now_us = int(self._now() * 1e6)
        feeds = list(self._feeds.values())
        return FollowerStatus(
            sink=self._destination.name,
            held_bytes=self._held_bytes(),
            outages=self._outages,
            unavailable=self._unavailable,
            logs=tuple(feed.status(now_us) for feed in feeds),
        )

    async def run(self) -> None:
        """Follow until cancelled. Only a bug lets an exception out."""
        while True:
            began = time.monotonic()
            self._plenty.clear()
            await self.round()
            await self._linger(self._settings.linger_s - (time.monotonic() - began))

    async def _linger(self, rest_s: float) -> None:
        """Let leaves gather: a write of few costs the stores nearly as much as one of many."""
        if rest_s > 0 and not any(feed.gap() for feed in self._feeds.values()):
            await first_of(self._plenty, rest_s, sleep=self._sleep)

    async def round(self) -> None:
        """Gather, write, advance, once; then wait if there is nothing to do or a server is down.

        The destination is kept off while it is down, and so is the ledger, but neither keeps the
        other waiting: leaves in memory are written while the ledger cannot be read.
        """
        self._wake.clear()
        unavailable = await self._gather()
        due = self._due_in_s() if self._due_in_s else None
        worked = bool(self._in_flight) or (due is not None and due <= 0)
        if worked:
            unavailable = await self._write() or unavailable
        unavailable = await self._advance() or unavailable
        if unavailable is not None:
            await self._back_off(unavailable)
            return
        self._backoff.reset()
        self._unavailable = ""
        if not worked:
            await first_of(self._wake, due, sleep=self._sleep)

    async def _gather(self) -> Unavailable | None:
        """Collect leaves for one write; says whether the ledger could not be read."""
        self._forget_abandoned()
        if self._in_flight:
            return None  # the last write failed: the same leaves again
        unavailable = None
        room_bytes = self._settings.write_max_bytes
        feeds = [feed for feed in self._feeds.values() if feed.alert is None]
        self._turn += 1  # each log comes first in its turn, so that none starves
        start = self._turn % len(feeds) if feeds else 0
        for feed in feeds[start:] + feeds[:start]:
            full = room_bytes <= 0 or self._held_bytes() >= self._settings.max_bytes
            if full and self._in_flight:
                break
            try:
                gathered = await self._next_ranges(feed, room_bytes)
            except Unavailable as error:
                unavailable = error
                continue
            except ChainBroken as alert:
                self._stop(feed, alert)
                continue
            self._in_flight.extend(gathered)
            room_bytes -= sum(part.size_bytes for part in gathered)
        self._forget_abandoned()
        return unavailable

    async def _next_ranges(self, feed: Feed, max_bytes: int) -> list[Gathered]:
        if not feed.located:
            await self._locate(feed)
        gap = feed.gap()
        if gap is None:
            return feed.take(max_bytes)
        first, missing = gap
        leaves = await self._ledger.read(feed.log_id, first, limit=min(missing, self._read_limit))
        if not leaves.events:
            raise ChainBroken(
                str(feed.name),
                f"the ledger said it holds {feed.head_size} leaves and has no leaf {first}; "
                "run `audit-trail doctor`",
            )
        gathered = feed.fill(await self._open_values(leaves))
        # Leaves differ in size by a factor of a hundred: aim at a quarter of the memory bound.
        per_leaf = gathered.size_bytes // len(leaves.events)
        aim = max(self._settings.max_bytes // (4 * per_leaf), 1)
        self._read_limit = min(self._settings.catch_up_events, aim, self._read_limit * 4)
        return [gathered]

    async def _locate(self, feed: Feed) -> None:
        """Ask the ledger where this follower is; nothing is in flight for the log yet."""
        position = await self._ledger.position(self._destination.name, feed.log_id)
        if position > feed.head_size:
            feed.head_size = (await self._ledger.head(feed.log_id)).size
        if position > feed.head_size:
            raise ChainBroken(
                str(feed.name),
                f"follower {self._destination.name} stored {position} leaves, the ledger holds "
                f"{feed.head_size}; see docs/runbooks/stopped-partition.md",
            )
        # A write that was in flight for the same log's earlier assignment may have left something.
        self._destination.forget(feed.log_id)
        feed.locate(position)

    async def _write(self) -> Unavailable | None:
        """Give the gathered leaves; on an outage they stay gathered."""
        self._abandoned.clear()
        started = time.perf_counter()
        try:
            stored = await self._destination.write([part.leaves for part in self._in_flight])
        except Unavailable as error:
            return error
        except ChainBroken as alert:
            self._stop_named(alert)
            return None
        self._stored_at = time.monotonic()
        self._observer.wrote(self._destination.name, seconds=time.perf_counter() - started)
        self._in_flight = []
        for log_id, next_leaf in stored.items():
            feed = self._feeds.get(log_id)
            # Revoked meanwhile; or assigned again meanwhile, then it is not located yet.
            if feed is None or not feed.located or feed.alert is not None:
                continue
            news = feed.settle(next_leaf)
            if news is not None:
                self._observer.stored(self._destination.name, str(feed.name), news)
        return None

    async def _advance(self) -> Unavailable | None:
        """Tell the ledger what the destination has; later, if the ledger is down."""
        moved = {
            log_id: (feed, feed.stored)
            for log_id, feed in self._feeds.items()
            if feed.stored > feed.position
        }
        if not moved:
            return None
        try:
            positions = {log_id: stored for log_id, (_, stored) in moved.items()}
            await self._ledger.advance(self._destination.name, positions)
        except Unavailable as error:
            return error
        for feed, stored in moved.values():
            feed.position = stored
        return None

    def _forget_abandoned(self) -> None:
        """Leave out of the next write what was revoked, assigned again, or stopped."""
        self._in_flight = [
            part
            for part in self._in_flight
            if self._feeds.get(part.feed.log_id) is part.feed and part.feed.alert is None
        ]

    def _stop_named(self, alert: ChainBroken) -> None:
        """Stop the log that the destination names; the leaves of the others are given again.

        Raises:
            ChainBroken: The destination names a log that it was not given: a bug.
        """
        for feed in self._feeds.values():
            if str(feed.name) == alert.log and feed.alert is None:
                self._stop(feed, alert)
                return
        if alert.log not in self._abandoned:
            raise alert

    def _held_bytes(self) -> int:
        held = sum([feed.held_bytes for feed in self._feeds.values()])
        return held + sum([part.size_bytes for part in self._in_flight])

    def _stop(self, feed: Feed, alert: ChainBroken) -> None:
        if self._feeds.get(feed.log_id) is feed:
            feed.stop(alert)
            self._destination.forget(feed.log_id)
            self._observer.stopped(self._destination.name, str(feed.name), str(alert))

    async def _back_off(self, error: Unavailable) -> None:
        if self._unavailable != error.what:
            self._unavailable = error.what
            self._outages += 1
            self._observer.outage(self._destination.name, what=error.what)
        await self._sleep(self._backoff.next_s())
