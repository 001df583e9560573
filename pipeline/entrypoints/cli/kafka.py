"""Kafka clients of the command line: configuration from settings, failures put into our words.

librdkafka's own lines on stderr are switched off; what it has to say comes as exceptions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.domain.errors import ConfigurationError, Unavailable

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


def client_config(settings: Settings) -> dict[str, Any]:
    """What every client needs to reach the brokers."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap,
        "security.protocol": settings.kafka_security_protocol,
        "client.id": "audit-trail-cli",
        "socket.timeout.ms": int(settings.request_timeout_s * 1000),
        "log_level": 0,
    }
    if settings.kafka_ca_file is not None:
        config["ssl.ca.location"] = str(settings.kafka_ca_file)
    if settings.kafka_security_protocol.startswith("SASL"):
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_username
        config["sasl.password"] = settings.kafka_password.get_secret_value()
    return config


def admin_client(settings: Settings) -> AdminClient:
    """An admin client; asks nothing yet."""
    return AdminClient(client_config(settings), logger=_SILENT)


def producer(settings: Settings, **extra: Any) -> Producer:
    """Idempotent, acknowledged by all in-sync replicas, partitioned as all three SDKs do."""
    config = {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "compression.type": "zstd",
        "linger.ms": 20,
        "message.max.bytes": settings.inflate_max_bytes * 3 // 2,
        "delivery.timeout.ms": 60_000,
    }
    return Producer({**client_config(settings), **config, **extra}, logger=_SILENT)


def reader(settings: Settings) -> Consumer:
    """A consumer for ``assign``: joins no group and commits nothing."""
    config = {
        "group.id": f"{settings.consumer_group}-cli",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }
    return Consumer({**client_config(settings), **config}, logger=_SILENT)


def watermarks(consumer: Consumer, topic: str, *, timeout_s: float) -> dict[int, tuple[int, int]]:
    """First and end offset of each partition of a topic.

    Raises:
        ConfigurationError: The topic does not exist.
        Unavailable: No answer.

    """
    with kafka_errors(f"topic {topic}"):
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


def read_topic(settings: Settings, topic: str) -> Iterator[Message]:
    """Every record that a topic holds now, partition by partition as it comes.

    Raises:
        Unavailable: The brokers do not answer.
        ConfigurationError: There is no such topic.

    """
    timeout_s = settings.request_timeout_s
    consumer = reader(settings)
    try:
        offsets = watermarks(consumer, topic, timeout_s=timeout_s)
        left = {partition: high for partition, (low, high) in offsets.items() if high > low}
        starts = [TopicPartition(topic, partition, offsets[partition][0]) for partition in left]
        consumer.assign(starts)
        waited_until = time.monotonic() + timeout_s
        while left:
            with kafka_errors(f"reading {topic}"):
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
def kafka_errors(about: str) -> Iterator[None]:
    """Turn the client's exceptions into ours; ``about`` says what was asked.

    Raises:
        ConfigurationError: The cluster refuses: a person must mend something.
        Unavailable: The brokers do not answer.

    """
    try:
        yield
    except KafkaException as error:
        raise translated(error.args[0], about) from error


def translated(error: KafkaError, about: str) -> ConfigurationError | Unavailable:
    """The failure that a Kafka error stands for."""
    if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):  # noqa: SLF001
        return ConfigurationError(f"{about}: does not exist; run: audit-trail topics create")
    if error.code() in _REFUSALS:
        return ConfigurationError(f"{about}: {error.name()}")
    return Unavailable("kafka", f"{about}: {error.name()}")
