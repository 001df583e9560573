"""The thread that hands accepted events to librdkafka, in order, and hears what became of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from audit_sdk.contract import contract
from audit_sdk.errors import AuditConfigurationError, AuditError
from audit_sdk.items import Item, Producer
from audit_sdk.logs import log_event
from audit_sdk.outbox import Outbox
from audit_sdk.progress import SYSTEM, Heartbeats
from audit_sdk.registry import RegistryUnavailable, SchemaIds
from audit_sdk.wire import frame

log = logging.getLogger("audit_sdk")

MakeProducer = Callable[[Callable[[KafkaError], None]], Producer]

_POLL_S: Final = 0.005
_IDLE_S: Final = 0.5
_RETRY_S: Final = 1.0
_BATCH: Final = 500
ENDING_S: Final = 1.0  # what ``end`` waits for the thread, beyond the time it is given
# What is over for this producer and not for the event: it is sent again by the next one.
_SEND_AGAIN: Final = frozenset(
    getattr(KafkaError, name) for name in ("_PURGE_QUEUE", "_PURGE_INFLIGHT", "_FATAL", "_STATE")
)


class Sender:
    """One thread, from ``start`` to ``end``; it alone takes from the outbox."""

    def __init__(
        self,
        outbox: Outbox,
        ids: SchemaIds,
        make_producer: MakeProducer,
        heartbeats: Heartbeats | None,
        *,
        each_round: Callable[[], None],
        monotonic: Callable[[], float],
    ) -> None:
        """``each_round`` is called under the outbox's lock."""
        self.producer: Producer | None = None
        self._refusal = ""  # why events wait
        self._unreached: set[str] = set()  # what the client said of brokers since the last delivery
        self._outbox = outbox
        self._ids = ids
        self._make_producer = make_producer
        self._heartbeats = heartbeats
        self._each_round = each_round
        self._monotonic = monotonic
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="audit-sdk", daemon=True)

    @property
    def refusal(self) -> str:
        """Why events wait; empty: they do not."""
        return self._refusal or ", ".join(sorted(self._unreached))

    @property
    def started(self) -> bool:
        """Whether it was ever started."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begin to send; once."""
        self._thread.start()

    def end(self, deadline: float) -> None:
        """Take nothing more; return when the thread has ended, or ``ENDING_S`` after the deadline: a
        request to the registry may hold it longer, and nothing is sent after that.
        """
        with self._outbox.changed:
            self._ending = True
            self._outbox.changed.notify()
        if self.started and self._thread is not threading.current_thread():
            self._thread.join(max(deadline - self._monotonic(), 0) + ENDING_S)

    # --- the thread ---

    def _run(self) -> None:
        while True:
            try:
                self._outbox.recover()
                return self._send_on()
            except Exception:  # a bug of ours: events are kept, and it is tried again
                log.exception("audit_sending_failed")
                time.sleep(_RETRY_S)

    def _send_on(self) -> None:
        outbox, retry_at = self._outbox, 0.0
        while True:
            with outbox.changed:
                if self._ending:  # whoever closes has waited before
                    break
                self._each_round()
                if outbox.idle:
                    outbox.changed.wait(_IDLE_S)
            if self._heartbeats is not None and outbox.progress.accepted:
                self._heartbeats.look(self._monotonic(), outbox.topics)
            if self.producer is not None:
                self.producer.poll(_POLL_S if outbox.in_flight else 0)
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
        if self.producer is None:
            self.producer = self._make_producer(self._unreachable)
        for _ in range(_BATCH):
            item = self._outbox.take()
            if item is None:
                return
            self._outbox.hand_over(item)
            try:
                value = frame(self._ids.ask(item.family), item.body)
                if self._ending:  # perhaps for long: a request takes its time
                    return
                self._produce(self.producer, item, value)
            except BufferError:
                self._outbox.put_back(item)
                self.producer.poll(_POLL_S)
                return
            except AuditConfigurationError:
                if item.family != SYSTEM:
                    self._outbox.put_back(item)
                    raise
                # A registry of an older release: heartbeats keep no event waiting.
                why = "its schema is not registered"
                self._outbox.report(item.order, why, again=False, reason="not_registered")
            except (RegistryUnavailable, KafkaException) as error:
                self._outbox.put_back(item)
                if isinstance(error, KafkaException):
                    self._end_producer()
                raise

    def _produce(self, producer: Producer, item: Item, value: bytes) -> None:
        order = item.order
        producer.produce(
            contract().families[item.family].topic,
            value,
            item.key,
            on_delivery=lambda error, _message: self._reported(order, error),
        )

    def _reported(self, order: int, error: KafkaError | None) -> None:
        """librdkafka says what became of an event; called within ``poll``."""
        if error is None:
            self._unreached.clear()
            self._outbox.report(order, "", again=False)
        else:
            self._outbox.report(order, error.str(), again=error.code() in _SEND_AGAIN)

    def _end_producer(self) -> None:
        """It gives back what it holds."""
        failed, self.producer = self.producer, None
        if failed is not None:
            failed.purge()
            if self._outbox.in_flight:
                failed.poll(ENDING_S / 2)
        self._outbox.call_back()

    def _say(self, error: Exception) -> None:
        """Once for each different trouble; the events wait."""
        said = str(error)
        if said != self._refusal:
            log_event(logging.WARNING, "audit_delivery_waits", why=said)
        self._refusal = said

    def _unreachable(self, error: KafkaError) -> None:
        """The client's word on its brokers, whom it goes on to try; called within ``poll``."""
        said = f"broker: {error.name()}"  # its text has addresses and times, which differ each time
        if said not in self._unreached:
            log_event(logging.WARNING, "audit_delivery_waits", why=said)
        self._unreached.add(said)
