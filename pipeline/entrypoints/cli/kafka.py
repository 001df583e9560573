"""Kafka clients of the command line: configuration from settings, failures put into our words.

librdkafka's own lines on stderr are switched off; what it has to say comes as exceptions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.kafka_access import Complaints, client_configuration

if TYPE_CHECKING:
    from confluent_kafka import Message

    from pipeline.settings import Settings

_READ_AT_ONCE: Final = 500
_READ_WAIT_S: Final = 0.1
_SILENT = logging.getLogger("confluent_kafka.silent")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False

# What a person must mend; anything else is a broker that is not there or not well.
_REFUSALS: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - librdkafka's local codes have no other name
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.POLICY_VIOLATION,
        KafkaError.MSG_SIZE_TOO_LARGE,
    }
)


class Admin(AdminClient):
    """An admin client that remembers why the brokers did not let it in."""

    def __init__(self, settings: Settings) -> None:
        self.complaints = Complaints()
        super().__init__(_configuration(settings, self.complaints), logger=_SILENT)


class IdempotentProducer(Producer):
    """The same for producing."""

    def __init__(self, settings: Settings, **extra: Any) -> None:
        self.complaints = Complaints()
        super().__init__({**_configuration(settings, self.complaints), **extra}, logger=_SILENT)


class Reader(Consumer):
    """The same for reading."""

    def __init__(self, settings: Settings, **extra: Any) -> None:
        self.complaints = Complaints()
        super().__init__({**_configuration(settings, self.complaints), **extra}, logger=_SILENT)


def _configuration(settings: Settings, complaints: Complaints) -> dict[str, Any]:
    return {**client_configuration(settings, complaints), "client.id": "audit-trail-cli"}


def admin_client(settings: Settings) -> Admin:
    """An admin client; asks nothing yet."""
    return Admin(settings)


def producer(settings: Settings, **extra: Any) -> IdempotentProducer:
    """Idempotent, acknowledged by all in-sync replicas, partitioned as all three SDKs do."""
    config = {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "compression.type": "zstd",
        "linger.ms": 20,
        "message.max.bytes": settings.inflate_max_bytes * 3 // 2,
        "delivery.timeout.ms": 120_000,
    }
    return IdempotentProducer(settings, **{**config, **extra})


def reader(settings: Settings) -> Reader:
    """A consumer for ``assign``: joins no group and commits nothing."""
    config = {
        "group.id": f"{settings.consumer_group}-cli",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }
    return Reader(settings, **config)


def watermarks(consumer: Reader, topic: str, *, timeout_s: float) -> dict[int, tuple[int, int]]:
    """First and end offset of each partition of a topic.

    Raises:
        ConfigurationError: The topic does not exist.
        Unavailable: No answer.

    """
    with kafka_errors(f"topic {topic}", consumer):
        found = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        offsets = {}
        for partition in sorted(found.partitions):
            place = TopicPartition(topic, partition)
            answer = consumer.get_watermark_offsets(place, timeout=timeout_s)
            if answer is None:
                raise Unavailable("kafka", f"no answer within {timeout_s:g} s")
            offsets[partition] = answer
        return offsets


def topic_marks(settings: Settings, topic: str) -> dict[int, tuple[int, int]]:
    """``watermarks``, over a connection of its own."""
    consumer = reader(settings)
    try:
        return watermarks(consumer, topic, timeout_s=settings.request_timeout_s)
    finally:
        consumer.close()


def read_topic(
    settings: Settings, topic: str, ranges: Mapping[int, tuple[int, int]] | None = None
) -> Iterator[Message]:
    """Every record that a topic holds now, partition by partition as it comes; with ``ranges`` those of
    its partitions alone, from the first offset to before the second.

    Raises:
        Unavailable: The brokers do not answer.
        ConfigurationError: There is no such topic.

    """
    timeout_s = settings.request_timeout_s
    consumer = reader(settings)
    try:
        offsets = watermarks(consumer, topic, timeout_s=timeout_s)
        if ranges is not None:
            offsets = {
                partition: (max(low, ranges[partition][0]), min(high, ranges[partition][1]))
                for partition, (low, high) in offsets.items()
                if partition in ranges
            }
        left = {partition: high for partition, (low, high) in offsets.items() if high > low}
        starts = [TopicPartition(topic, partition, offsets[partition][0]) for partition in left]
        consumer.assign(starts)
        waited_until = time.monotonic() + timeout_s
        while left:
            with kafka_errors(f"reading {topic}", consumer):
                # ``consume`` waits for as many as it is asked for, so never for long.
                messages = consumer.consume(_READ_AT_ONCE, timeout=_READ_WAIT_S)
            if messages:
                waited_until = time.monotonic() + timeout_s
            elif time.monotonic() > waited_until:
                raise Unavailable("kafka", f"no record of {topic} within {timeout_s:g} s")
            yield from _below_ends(messages, left, topic)
    finally:
        consumer.close()


def _below_ends(messages: list[Message], left: dict[int, int], topic: str) -> Iterator[Message]:
    """The records among messages; ``left`` loses each partition whose end was reached."""
    for message in messages:
        error = message.error()
        partition, offset = message.partition() or 0, message.offset() or 0
        if error is not None and error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            left.pop(partition, None)
        elif error is not None:
            raise translated(error, f"reading {topic}") from KafkaException(error)
        elif partition in left:
            if offset >= left[partition] - 1:
                left.pop(partition)
            yield message


@contextmanager
def kafka_errors(
    about: str, client: Admin | IdempotentProducer | Reader | None = None
) -> Iterator[None]:
    """Turn the exceptions of ``client`` into ours; ``about`` says what was asked.

    Raises:
        ConfigurationError: The cluster refuses: a person must mend something.
        Unavailable: The brokers do not answer.

    """
    try:
        yield
    except KafkaException as error:
        if client is not None:
            raise_refusal(client, about)
        raise translated(error.args[0], about) from error


def raise_refusal(client: Admin | IdempotentProducer | Reader, about: str) -> None:
    """Return if no broker has refused ``client``; only for clients that got no answer.

    Raises:
        ConfigurationError: The credentials or the certificates of one side are wrong.

    """
    client.poll(0)  # hands over the complaints
    if client.complaints.refusal:
        raise ConfigurationError(f"{about}: {client.complaints.refusal}")


def translated(error: KafkaError, about: str) -> ConfigurationError | Unavailable:
    """The failure that a Kafka error stands for."""
    if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):  # noqa: SLF001
        return ConfigurationError(f"{about}: does not exist; run: audit-trail topics create")
    if error.code() in _REFUSALS:
        return ConfigurationError(f"{about}: {error.name()}")
    return Unavailable("kafka", f"{about}: {error.name()}")
