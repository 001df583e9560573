"""Which cluster and which topic this is, and from where to where a partition's records reach.

Names can be reused, ids cannot; aiokafka does not know topic ids, confluent-kafka's admin client does
(KIP-516). Offsets are asked here too: on aiokafka's own connection each question waits behind a fetch
that the broker holds, 0.1 s for each of a worker's partitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.settings import Settings

_Answer = TypeVar("_Answer")


class TopicFacts:
    """Asks the broker, off the event loop.

    Its methods raise ``ChainBroken`` for a topic that is not there, ``Unavailable`` when the broker
    does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._timeout_s = settings.request_timeout_s
        self._admin = AdminClient(confluent_configuration(settings))

    async def ids(self, topic: str) -> tuple[str, str]:
        """(cluster id, topic id)."""
        return await asyncio.to_thread(self._ask, topic, self._ids)

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(offset of the first record that is there, offset after the last one)."""
        return await asyncio.to_thread(self._ask, topic, lambda name: self._bounds(name, partition))

    def _ids(self, topic: str) -> tuple[str, str]:
        cluster = self._admin.describe_cluster(request_timeout=self._timeout_s)
        topics = self._admin.describe_topics(
            TopicCollection([topic]), request_timeout=self._timeout_s
        )
        found = topics[topic].result(self._timeout_s)
        return str(cluster.result(self._timeout_s).cluster_id), str(found.topic_id)

    def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        place = TopicPartition(topic, partition)
        first, end = (
            self._admin.list_offsets({place: spec}, request_timeout=self._timeout_s)[place]
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
        )
        return first.result(self._timeout_s).offset, end.result(self._timeout_s).offset

    @staticmethod
    def _ask(topic: str, question: Callable[[str], _Answer]) -> _Answer:
        try:
            return question(topic)
        except KafkaException as error:
            if error.args[0].name() == "UNKNOWN_TOPIC_OR_PART":
                raise ChainBroken(topic, "no such topic; run `audit-trail topics create`") from None
            raise Unavailable("kafka", error.args[0].name()) from None
        except TimeoutError:
            raise Unavailable("kafka", "no answer") from None


def confluent_configuration(settings: Settings) -> dict[str, str | int | float]:
    """How confluent-kafka's clients reach the broker."""
    configuration: dict[str, str | int | float] = {
        "bootstrap.servers": settings.kafka_bootstrap,
        "security.protocol": settings.kafka_security_protocol,
        "log_level": 0,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        configuration |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_username,
            "sasl.password": settings.kafka_password.get_secret_value(),
        }
    if settings.kafka_ca_file is not None:
        configuration["ssl.ca.location"] = str(settings.kafka_ca_file)
    return configuration
