"""From accepted events to acknowledged ones, in the background.

One thread sends what callers hand over, in order: to librdkafka (idempotent, acks=all, murmur2), whose
own queue is bounded, from a queue in memory, which is bounded too, and from the spool. A caller never
waits for the broker unless its delivery class is ``fail_closed``.

What an event is promised, by delivery class:

``best_effort``  kept in memory until the broker has it; dropped, and counted, when the memory is full or
                 the process ends first.
``spool``        on disk before the call returns; sent again after a crash or an outage.
``fail_closed``  the call returns when the broker has it, or raises.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from audit_sdk import process
from audit_sdk.errors import AuditError, NotAccepted, NotDelivered
from audit_sdk.identity import LONGEST_SEQUENCE
from audit_sdk.items import DeliveryClass, Item, Metrics
from audit_sdk.logs import log_event
from audit_sdk.outbox import Make, Outbox
from audit_sdk.progress import Heartbeats, Progress
from audit_sdk.registry import SchemaIds
from audit_sdk.sender import MakeProducer, Sender
from audit_sdk.spool import Spool

_POLL_S: Final = 0.005
# After a fork: librdkafka has no threads here, and ending such a producer would wait for them.
_PARENTS: Final[list[Any]] = []


class Publisher:
    """Everything behind the call. Thread-safe; for one process, ``after_fork`` makes it another's."""

    def __init__(
        self,
        make_producer: MakeProducer,
        ids: SchemaIds,
        make_spool: Callable[[], Spool] | None,
        metrics: Metrics,
        *,
        buffer_bytes: int,
        heartbeats: Callable[[], Heartbeats] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_producer = make_producer
        self._ids = ids
        self._make_spool = make_spool
        self._metrics = metrics
        self._buffer_bytes = buffer_bytes
        self._make_heartbeats = heartbeats
        self._monotonic = monotonic
        self._begin()

    def _begin(self) -> None:
        self._outbox = Outbox(
            self._metrics, buffer_bytes=self._buffer_bytes, monotonic=self._monotonic
        )
        self._closing = False
        self._heartbeats = self._make_heartbeats() if self._make_heartbeats is not None else None
        self._sender = Sender(
            self._outbox,
            self._ids,
            self._make_producer,
            self._heartbeats,
            each_round=self._take_nested,
            monotonic=self._monotonic,
        )

    def after_fork(self) -> None:
        """In the child: nothing of the parent's is sent twice, and the child begins afresh."""
        _PARENTS.append(self._sender.producer)
        self._outbox.abandon()
        self._begin()

    # --- callers ---

    @property
    def progress(self) -> Progress:
        """How far each topic is."""
        return self._outbox.progress

    def accept(self, family: str, make: Make, delivery: DeliveryClass) -> Item | None:
        """Take an event; None if it was dropped. ``make`` judges it and gives key and body of a sequence
        number, which is used up only if the event is taken; it may be called twice.

        An event of a signal handler or a finalizer that interrupts this very thread within the lock is
        judged, and taken when what it interrupts is done; it has no sequence until then.

        Raises:
            NotAccepted: There is no room, or this is closed.
        """
        outbox = self._outbox
        item = Item(family, delivery, self._monotonic())
        if delivery is DeliveryClass.FAIL_CLOSED:
            item.settled = threading.Event()
        if outbox.within:
            if self._closing:
                raise NotAccepted("the audit client is closed")
            make(LONGEST_SEQUENCE)
            outbox.nested.append((item, make))
            return item
        with outbox.lock:
            if self._closing:
                raise NotAccepted("the audit client is closed")
            self._start()
            taken = self._take(item, make)
            if outbox.nested:
                self._take_nested()
            outbox.changed.notify()
        if not taken:
            return None
        outbox.tell("accepted", family)
        return item

    def wait(self, item: Item, event_id: str, timeout_s: float) -> None:
        """Return once the broker has a ``fail_closed`` event.

        Raises:
            NotDelivered: Not in time, or the broker refused it.
        """
        assert item.settled is not None
        within = self._outbox.within  # nothing is settled before this thread goes on
        if not item.settled.wait(0 if within else timeout_s):
            why = self._sender.refusal or f"no acknowledgement within {timeout_s:g} s"
            if within:
                why = "it came within another call of its thread and is not waited for"
            raise NotDelivered(event_id, why)
        if item.failure:
            raise NotDelivered(event_id, item.failure)

    def flush(self, timeout_s: float) -> int:
        """Wait until the broker has everything that was accepted before; how much it has not."""
        deadline = self._monotonic() + timeout_s
        while (left := self.pending()) and self._monotonic() < deadline:
            time.sleep(min(_POLL_S, max(deadline - self._monotonic(), 0)))
        return left

    def pending(self) -> int:
        """Events that were accepted and that the broker has not confirmed; those that stand in the
        spool alone count as one a segment.
        """
        return self._outbox.pending

    def close(self, timeout_s: float) -> int:
        """Flush, then take nothing more. What is left: spooled events are sent by the next process, the
        others are dropped and counted. How many the broker has not.

        It returns within ``timeout_s`` and ``sender.ENDING_S`` more, also while the registry does not answer.
        """
        deadline = self._monotonic() + timeout_s
        with self._outbox.lock:
            if self._outbox.nested:  # perhaps nobody has started yet
                self._start()
                self._take_nested()
        started = self._sender.started
        left = self.flush(timeout_s) if started else 0
        if started and self._heartbeats is not None and not self._closing:
            self._heartbeats.last(self._outbox.topics())
            left = self.flush(max(deadline - self._monotonic(), 0))
        self._closing = True
        self._sender.end(deadline)
        lost = self._outbox.end()
        if lost:
            log_event(logging.ERROR, "audit_events_lost", events=lost, why=self._sender.refusal)
        return left

    # --- under the lock ---

    def _take(self, item: Item, make: Make) -> bool:
        """Number an event and add it; False: dropped. Judged before there must be room, so that an
        invalid one is an error either way.
        """
        outbox = self._outbox
        item.sequence = outbox.progress.sequence(item.family)
        item.key, item.body = make(item.sequence)
        if outbox.full and item.delivery is DeliveryClass.BEST_EFFORT:
            outbox.drop(item.family, None, "buffer_full")
            return False
        if outbox.full and item.delivery is DeliveryClass.FAIL_CLOSED:
            raise NotAccepted(f"{self._buffer_bytes} bytes wait for the broker (buffer_bytes)")
        outbox.add(item)
        outbox.progress.accept(item.family)
        return True

    def _take_nested(self) -> None:
        """What came while something else was being done; its callers have gone on."""
        outbox = self._outbox
        while outbox.nested:
            item, make = outbox.nested.popleft()
            try:
                if self._take(item, make):
                    outbox.tell("accepted", item.family)
            except AuditError as error:
                log_event(logging.ERROR, "audit_event_not_accepted", why=str(error))
                outbox.refuse(item, str(error), "not_accepted")

    def _start(self) -> None:
        if self._sender.started:
            return
        if self._make_spool is not None:
            self._outbox.use(self._make_spool())
        self._sender.start()
        process.started()
