"""Publishing raw records: acknowledged by all in-sync replicas, or the caller is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from confluent_kafka import KafkaError, KafkaException

from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.kafka import producer, translated

if TYPE_CHECKING:
    from confluent_kafka import Message

    from pipeline.domain.errors import AuditTrailError
    from pipeline.settings import Settings

Delivered = Callable[[str, int, int], None]
Header = tuple[str, str | bytes | None]
# Short waits, so that Ctrl-C is noticed at once.
_WAIT_S: Final = 0.2
_QUEUE_MAX: Final = 100_000
_POLL_EVERY: Final = 1_000


class Publisher:
    """A context manager: on a normal exit everything published is acknowledged.

    Raises (from ``publish`` and on exit):
        Unavailable: The brokers do not answer; some records may be there.
        ConfigurationError: They refuse.
    """

    def __init__(self, settings: Settings) -> None:
        self._producer = producer(settings, **{"queue.buffering.max.messages": _QUEUE_MAX})
        self._failure: AuditTrailError | None = None
        self._since_poll = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.flush()
        else:
            # Ctrl-C or a failure: what is queued is not waited for.
            self._producer.purge()

    def publish(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[Header] = (),
        delivered: Delivered | None = None,
    ) -> None:
        """Queue a record; ``delivered(topic, partition, offset)`` is called once it is durable."""

        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failure = self._failure or translated(error, f"topic {topic}")
            elif delivered is not None:
                delivered(topic, message.partition() or 0, message.offset() or 0)

        while True:
            try:
                self._producer.produce(
                    topic,
                    key=key,
                    value=value,
                    headers=list(headers),
                    on_delivery=report,
                )
                break
            except BufferError:
                self._producer.poll(_WAIT_S)
                self._check()
            except KafkaException as error:
                raise translated(error.args[0], f"topic {topic}") from error
        self._since_poll += 1
        if self._since_poll >= _POLL_EVERY:
            self._since_poll = 0
            self.poll()

    def poll(self) -> None:
        """Call what waits for delivery reports, without waiting."""
        self._producer.poll(0)
        self._check()

    def flush(self) -> None:
        """Wait until everything is acknowledged or has failed (delivery.timeout.ms at most)."""
        while self._producer.flush(_WAIT_S):
            self._check()
        self._check()

    def _check(self) -> None:
        refusal = self._producer.complaints.refusal
        if refusal:
            raise ConfigurationError(f"kafka: {refusal}")
        if self._failure is not None:
            raise self._failure
