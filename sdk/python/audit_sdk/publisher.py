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
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from audit_sdk.contract import contract
from audit_sdk.errors import AuditConfigurationError, AuditError, NotAccepted, NotDelivered
from audit_sdk.items import DeliveryClass, Item, Metrics, Producer, from_spool
from audit_sdk.progress import SYSTEM, Heartbeats, Progress
from audit_sdk.registry import RegistryUnavailable, SchemaIds
from audit_sdk.spool import Segment, Spool
from audit_sdk.wire import frame

log = logging.getLogger("audit_sdk")

_POLL_S: Final = 0.005
_IDLE_S: Final = 0.5
_RETRY_S: Final = 1.0
_READ_BYTES: Final = 1024 * 1024
_BATCH: Final = 500
# What is over for this producer and not for the event: it is sent again by the next one.
_SEND_AGAIN: Final = frozenset(
    getattr(KafkaError, name) for name in ("_PURGE_QUEUE", "_PURGE_INFLIGHT", "_FATAL", "_STATE")
)

# After a fork: librdkafka has no threads here, and ending such a producer would wait for them.
_PARENTS: Final[list[Any]] = []


class Publisher:
    """Everything behind the call. Thread-safe; for one process, ``after_fork`` makes it another's."""

    def __init__(
        self,
        make_producer: Callable[[], Producer],
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
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._queue: deque[Item] = deque()
        self._again: list[Item] = []
        self._backlog: deque[tuple[Segment, int]] = deque()
        self._in_flight: dict[int, Item] = {}
        self._held = 0  # events in memory that are not settled, wherever they are just now
        self._held_bytes = 0
        self._sent = 0
        self._producer: Producer | None = None
        self._spool: Spool | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._refusal = ""
        self._heartbeats = self._make_heartbeats() if self._make_heartbeats is not None else None
        self.progress = Progress()

    def after_fork(self) -> None:
        """In the child: nothing of the parent's is sent twice, and the child begins afresh."""
        _PARENTS.append(self._producer)
        if self._spool is not None:
            self._spool.abandon()
        self._begin()

    # --- callers ---

    def accept(
        self, family: str, make: Callable[[int], tuple[bytes, bytes]], delivery: DeliveryClass
    ) -> Item | None:
        """Take an event; None if it was dropped. ``make`` gives key and body of a sequence number; the
        number is used up only if the event is taken.

        Raises:
            NotAccepted: The spool is full, or this is closed.
        """
        with self._wake:
            if self._closing:
                raise NotAccepted("the audit client is closed")
            self._start()
            full = self._held_bytes >= self._buffer_bytes
            if full and delivery is DeliveryClass.BEST_EFFORT:
                self._drop(family, None, "buffer_full")
                return None
            if full and delivery is DeliveryClass.FAIL_CLOSED:
                raise NotAccepted(f"{self._buffer_bytes} bytes wait for the broker (buffer_bytes)")
            sequence = self.progress.sequence(family)
            key, body = make(sequence)
            item = Item(family, key, body, delivery, sequence, self._monotonic())
            if delivery is DeliveryClass.FAIL_CLOSED:
                item.settled = threading.Event()
            if delivery is DeliveryClass.SPOOL:
                self._append(item, full=full)
            else:
                self._enqueue(item)
            self.progress.accept(family)
            self._wake.notify()
        self._tell("accepted", family)
        return item

    def wait(self, item: Item, event_id: str, timeout_s: float) -> None:
        """Return once the broker has a ``fail_closed`` event.

        Raises:
            NotDelivered: Not in time, or the broker refused it.
        """
        assert item.settled is not None
        if not item.settled.wait(timeout_s):
            why = self._refusal or f"no acknowledgement within {timeout_s:g} s"
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
        with self._lock:
            return self._held + len(self._backlog)

    def close(self, timeout_s: float) -> int:
        """Flush, then take nothing more. What is left: spooled events are sent by the next process, the
        others are dropped and counted. How many the broker has not.
        """
        deadline = self._monotonic() + timeout_s
        left = self.flush(timeout_s) if self._thread is not None else 0
        if self._thread is not None and self._heartbeats is not None and not self._closing:
            self._heartbeats.last(self._topics())
            left = self.flush(max(deadline - self._monotonic(), 0))
        with self._wake:
            self._closing = True
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(timeout_s, 1.0))
        with self._lock:
            lost = [
                item
                for item in (*self._again, *self._in_flight.values(), *self._queue)
                if item.spooled is None
            ]
            self._again, self._in_flight = [], {}
            self._queue.clear()
            for item in lost:
                self._drop(item.family, item.sequence, "closed")
                if item.settled is not None:
                    item.failure = "the audit client was closed"
                    item.settled.set()
            if lost:
                log.error("audit_events_lost", extra={"events": len(lost), "why": self._refusal})
            if self._spool is not None:
                self._spool.close()
                self._spool = None
        return left

    # --- under the lock ---

    def _start(self) -> None:
        if self._thread is not None:
            return
        if self._make_spool is not None:
            self._spool = self._make_spool()
            recovered = self._spool.recover()
            self._backlog.extend((segment, 0) for segment in recovered)
            count = sum(segment.records for segment in recovered)
            if count:
                log.info("audit_spool_found", extra={"events": count})
                self._tell("resent", count)
            for path in self._spool.damaged:
                log.error("audit_spool_damaged", extra={"kept": str(path)})
        self._thread = threading.Thread(target=self._run, name="audit-sdk", daemon=True)
        self._thread.start()

    def _append(self, item: Item, *, full: bool) -> None:
        if self._spool is None:
            raise NotAccepted("delivery class spool needs spool_dir")
        item.spooled = self._spool.append(item.family, item.key, item.body)
        if not full and not self._backlog:
            self._enqueue(item)
        elif not self._backlog or self._backlog[-1][0] is not item.spooled.segment:
            self._backlog.append((item.spooled.segment, item.spooled.start))

    def _enqueue(self, item: Item) -> None:
        self._queue.append(item)
        self._held += 1
        self._held_bytes += item.weight

    def _topics(self) -> list[dict[str, Any]]:
        with self._lock:
            return self.progress.topics()

    def _drop(self, family: str, sequence: int | None, reason: str) -> None:
        self.progress.drop(family, sequence)
        self._tell("dropped", family, 1, reason)

    def _tell(self, what: str, *facts: object) -> None:
        """A hook of the application's own must not stop the events."""
        try:
            getattr(self._metrics, what)(*facts)
        except Exception:
            log.exception("audit_metrics_hook_failed", extra={"hook": what})

    # --- the sending thread ---

    def _run(self) -> None:
        while True:
            try:
                return self._send_on()
            except Exception:  # a bug of ours: events are kept, and it is tried again
                log.exception("audit_sending_failed")
                time.sleep(_RETRY_S)

    def _send_on(self) -> None:
        retry_at = 0.0
        while True:
            with self._wake:
                if self._closing:  # whoever closes has waited before
                    break
                if not (self._queue or self._again or self._backlog or self._in_flight):
                    self._wake.wait(_IDLE_S)
            if self._heartbeats is not None and self.progress.accepted:
                self._heartbeats.look(self._monotonic(), self._topics)
            if self._producer is not None:
                self._producer.poll(_POLL_S if self._in_flight else 0)
            if self._monotonic() < retry_at:
                time.sleep(_POLL_S)
                continue
            try:
                self._send()
                self._refusal = ""
            except (AuditError, KafkaException) as error:
                self._say(error)
                retry_at = self._monotonic() + _RETRY_S
        self._end_producer()

    def _send(self) -> None:
        """Hand what is next to librdkafka: what is to be sent again first, then in order."""
        if self._producer is None:
            self._producer = self._make_producer()
        for _ in range(_BATCH):
            with self._lock:
                item = self._next()
            if item is None:
                return
            try:
                value = frame(self._ids.ask(item.family), item.body)
                self._produce(item, value)
            except BufferError:
                self._put_back(item)
                self._producer.poll(_POLL_S)
                return
            except (RegistryUnavailable, AuditConfigurationError) as error:
                if item.family == SYSTEM and isinstance(error, AuditConfigurationError):
                    self._settle_dropped(item, "not_registered")  # it keeps no event waiting
                    continue
                self._put_back(item)
                raise
            except KafkaException:
                self._put_back(item)
                self._end_producer()
                raise

    def _produce(self, item: Item, value: bytes) -> None:
        assert self._producer is not None
        self._sent += 1
        number = self._sent
        with self._lock:
            self._in_flight[number] = item
        try:
            self._producer.produce(
                contract().families[item.family].topic,
                value,
                item.key,
                on_delivery=lambda error, _message: self._reported(number, error),
            )
        except BaseException:
            with self._lock:
                self._in_flight.pop(number, None)
            raise

    def _next(self) -> Item | None:
        if self._again:
            return self._again.pop(0)
        if self._queue:
            return self._queue.popleft()
        while self._backlog and self._spool is not None:
            segment, start = self._backlog.popleft()
            records = self._spool.read(segment, start, max_bytes=_READ_BYTES)
            if records and records[-1].end < segment.size:
                self._backlog.appendleft((segment, records[-1].end))
            for spooled in records:
                self._enqueue(from_spool(spooled, self._monotonic()))
            if self._queue:
                return self._queue.popleft()
        return None

    def _settle_dropped(self, item: Item, reason: str) -> None:
        with self._lock:
            self._held -= 1
            self._held_bytes -= item.weight
            self._drop(item.family, item.sequence, reason)

    def _put_back(self, item: Item) -> None:
        with self._lock:
            self._again.insert(0, item)

    def _reported(self, number: int, error: KafkaError | None) -> None:
        """librdkafka says what became of an event; called within ``poll``."""
        with self._lock:
            item = self._in_flight.pop(number, None)
            if item is None:
                return
            if error is not None and (error.code() in _SEND_AGAIN or item.spooled is not None):
                self._again.append(item)
                return
            self._held -= 1
            self._held_bytes -= item.weight
            if error is not None:
                item.failure = error.str()
                if item.delivery is DeliveryClass.BEST_EFFORT and item.sequence is not None:
                    self._drop(item.family, item.sequence, "refused")
            elif item.spooled is not None and self._spool is not None:
                self._spool.delivered(item.spooled)
            if error is None and item.own:
                self.progress.deliver(item.family)
            if item.settled is not None:
                item.settled.set()
        if error is None:
            self._tell("delivered", item.family, self._monotonic() - item.accepted_at)

    def _end_producer(self) -> None:
        """It gives back what it holds, in the order in which that was accepted."""
        failed, self._producer = self._producer, None
        if failed is not None:
            failed.purge()
            failed.poll(1.0)
        with self._lock:
            self._again += [self._in_flight.pop(number) for number in sorted(self._in_flight)]

    def _say(self, error: Exception) -> None:
        """Once for each different trouble; the events wait."""
        said = str(error)
        if said != self._refusal:
            log.warning("audit_delivery_waits", extra={"why": said})
        self._refusal = said
