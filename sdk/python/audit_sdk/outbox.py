"""Accepted events until the broker has them: in memory, in the spool, in flight.

They leave in the order in which they came, also those that are sent again; what processes that are gone
have left in the spool leaves first. Memory is bounded by ``buffer_bytes``; what it has no room for waits
in the spool, or is refused.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush
from typing import Any, Final

from audit_sdk.errors import NotAccepted
from audit_sdk.items import DeliveryClass, Item, Metrics, from_spool
from audit_sdk.logs import log_event
from audit_sdk.progress import Progress
from audit_sdk.segments import Segment
from audit_sdk.spool import Spool

log = logging.getLogger("audit_sdk")

_READ_BYTES: Final = 1024 * 1024
_CLOSED: Final = "the audit client was closed"

Make = Callable[[int], tuple[bytes, bytes]]  # an event's key and body, by its sequence


class Outbox:
    """Thread-safe: callers add, one thread takes and reports. ``lock`` also guards its users' state.

    A signal handler or a finalizer may record an event on a thread that is within the lock, in the middle
    of any change: what comes then (``within``) only goes to ``nested``, and is added afterwards.
    """

    def __init__(
        self, metrics: Metrics, *, buffer_bytes: int, monotonic: Callable[[], float]
    ) -> None:
        self.lock = threading.RLock()
        self._is_owned: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001
        self.changed = threading.Condition(self.lock)
        self.progress = Progress()
        self._metrics = metrics
        self._buffer_bytes = buffer_bytes
        self._monotonic = monotonic
        self._queue: deque[Item] = deque()
        self._again: list[tuple[int, Item]] = []  # a heap, by the order in which they were accepted
        self._backlog: deque[tuple[Segment, int]] = deque()  # on disk alone, from an offset on
        self._in_flight: dict[int, Item] = {}
        self._held = 0  # events in memory that are not settled, wherever they are just now
        self._held_bytes = 0
        self._order = 0
        self._spool: Spool | None = None
        self._recovering = False  # what others have left is not found yet
        self.nested: deque[tuple[Item, Make]] = deque()

    # --- callers ---

    @property
    def full(self) -> bool:
        """No room in memory."""
        return self._held_bytes >= self._buffer_bytes

    @property
    def within(self) -> bool:
        """Whether this thread has the lock already."""
        return self._is_owned()

    @property
    def pending(self) -> int:
        """Events that the broker has not confirmed; those on disk alone count as one a segment, and as
        one while they are looked for.
        """
        with self.lock:
            return self._held + len(self._backlog) + len(self.nested) + self._recovering

    @property
    def idle(self) -> bool:
        """Nothing to send, and nothing to hear of."""
        return not (self._queue or self._again or self._backlog or self._in_flight or self.nested)

    @property
    def in_flight(self) -> bool:
        """The broker's word on something is awaited."""
        return bool(self._in_flight)

    def use(self, spool: Spool) -> None:
        """Append there from now on; nothing of it is sent before ``recover``."""
        with self.lock:
            self._spool = spool
            self._recovering = True

    def add(self, item: Item) -> None:
        """Take an event; one of the class ``spool`` is on disk on return.

        Raises:
            NotAccepted: There is no spool, or it is full.
        """
        if item.delivery is not DeliveryClass.SPOOL:
            self._enqueue(item)
            return
        if self._spool is None:
            raise NotAccepted("delivery class spool needs spool_dir")
        item.spooled = self._spool.append(item.family, item.key, item.body)
        if not self.full and not self._backlog and not self._recovering:
            self._enqueue(item)
        elif not self._backlog or self._backlog[-1][0] is not item.spooled.segment:
            self._backlog.append((item.spooled.segment, item.spooled.start))

    def refuse(self, item: Item, why: str, reason: str) -> None:
        """Not taken after all: one of ``nested``, whose caller has gone on."""
        self.drop(item.family, None, reason)
        item.failure = why
        if item.settled is not None:
            item.settled.set()

    def drop(self, family: str, sequence: int | None, reason: str) -> None:
        """Count an event that will not arrive; None: it has no sequence."""
        with self.lock:
            self.progress.drop(family, sequence)
        self.tell("dropped", family, 1, reason)

    def tell(self, what: str, *facts: object) -> None:
        """Call a hook; the application's own must not stop the events."""
        try:
            getattr(self._metrics, what)(*facts)
        except Exception:
            log.exception("audit_metrics_hook_failed", extra={"hook": what})

    # --- the thread that sends ---

    def recover(self) -> None:
        """Find what processes that are gone have left: it goes before what was spooled meanwhile."""
        spool, found = self._spool, []
        if spool is None or not self._recovering:
            return
        try:
            found = spool.recover()  # it reads all of it, while callers go on
        finally:
            with self.lock:
                self._backlog.extendleft((segment, 0) for segment in reversed(found))
                self._recovering = False
        if found:
            log_event(logging.INFO, "audit_spool_found", events=sum(one.records for one in found))
        for path in spool.damaged:
            log_event(logging.ERROR, "audit_spool_damaged", kept=str(path))
        for why in spool.skipped:
            log_event(logging.ERROR, "audit_spool_skipped", why=why)

    def take(self) -> Item | None:
        """The next event: one that is to be sent again first, then from memory, then from disk."""
        if self._again:  # of this thread alone, but at the end
            with self.lock:
                return heappop(self._again)[1] if self._again else None
        with suppress(IndexError):  # without the lock, which callers want
            return self._queue.popleft()
        with self.lock:
            return self._read_back()

    def put_back(self, item: Item) -> None:
        """It could not be handed over: it is the next one again, unless this has ended meanwhile."""
        with self.lock:
            if self._in_flight.pop(item.order, None) is not None:
                heappush(self._again, (item.order, item))

    def hand_over(self, item: Item) -> None:
        """It is being sent: from now on word on it is awaited."""
        with self.lock:
            self._in_flight[item.order] = item

    def call_back(self) -> None:
        """Whoever held what is in flight is gone: it is sent again."""
        with self.lock:
            for order_and_item in self._in_flight.items():
                heappush(self._again, order_and_item)
            self._in_flight.clear()

    def report(self, order: int, failure: str, *, again: bool, reason: str = "refused") -> None:
        """What became of an event in flight; empty: the broker has it. ``again``: it may be sent again,
        as one that is on disk always is.
        """
        with self.lock:
            item = self._in_flight.pop(order, None)
            if item is None:
                return
            if failure and (again or item.spooled is not None):
                heappush(self._again, (order, item))
                return
            resent = 0
            if not failure and item.spooled is not None and self._spool is not None:
                segment = item.spooled.segment
                self._spool.delivered(item.spooled)
                resent = segment.records if segment.recovered and segment.done else 0
            if not failure and item.own:
                self.progress.deliver(item.family)
            self.settle(item, failure, reason)
        if not failure:
            self.tell("delivered", item.family, self._monotonic() - item.accepted_at)
        if resent:
            self.tell("resent", resent)

    def settle(self, item: Item, failure: str, reason: str) -> None:
        """It leaves the memory. One that failed is dropped, unless its caller waits for it."""
        with self.lock:
            self._held -= 1
            self._held_bytes -= item.weight
            item.failure = failure
            if failure and item.delivery is DeliveryClass.BEST_EFFORT:
                self.drop(item.family, item.sequence, reason)
            if item.settled is not None:
                item.settled.set()

    def end(self) -> int:
        """Take nothing more. What is on disk stays for the next process; how many others are lost."""
        with self.lock:
            self.call_back()
            left = [*(item for _order, item in sorted(self._again)), *self._queue]
            lost = [item for item in left if item.spooled is None]
            self._again = []
            self._queue.clear()
            for item in lost:
                self.settle(item, _CLOSED, "closed")
                if item.delivery is not DeliveryClass.BEST_EFFORT:
                    self.drop(item.family, item.sequence, "closed")
            for item, _make in self.nested:
                self.refuse(item, _CLOSED, "closed")
            lost += [item for item, _make in self.nested]
            self.nested.clear()
            if self._spool is not None:
                self._spool.close()
                self._spool = None
        return len(lost)

    def abandon(self) -> None:
        """After a fork, in the child: the spool is the parent's."""
        if self._spool is not None:
            self._spool.abandon()

    def topics(self) -> list[dict[str, Any]]:
        """As a heartbeat has them."""
        with self.lock:
            return self.progress.topics()

    # --- under the lock ---

    def _enqueue(self, item: Item) -> None:
        self._order += 1
        item.order = self._order
        self._queue.append(item)
        self._held += 1
        self._held_bytes += item.weight

    def _read_back(self) -> Item | None:
        while self._backlog and self._spool is not None:
            segment, start = self._backlog[0]
            records = self._spool.read(segment, start, max_bytes=_READ_BYTES)
            self._backlog.popleft()
            if records and records[-1].end < segment.size:
                self._backlog.appendleft((segment, records[-1].end))
            for spooled in records:
                self._enqueue(from_spool(spooled, self._monotonic()))
            if self._queue:
                return self._queue.popleft()
        return None
