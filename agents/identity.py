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

from pipeline.domain.errors import ChainBroken, ConfigurationError, Unavailable
from pipeline.kafka_access import Complaints, client_configuration
from pipeline.settings import Settings

_Answer = TypeVar("_Answer")


class TopicFacts:
    """Asks the broker, off the event loop.

    Its methods raise ``ChainBroken`` for a topic that is not there, ``Unavailable`` when the broker
    does not answer, ``ConfigurationError`` when it refuses the credentials or is not trusted.
    """

    def __init__(self, settings: Settings) -> None:
        self._timeout_s = settings.request_timeout_s
        self._complaints = Complaints()
        self._admin = AdminClient(client_configuration(settings, self._complaints))

    async def reach(self) -> None:
        """Return once a broker has let this client in."""
        await asyncio.to_thread(self._ask, "", self._cluster_id)

    async def ids(self, topic: str) -> tuple[str, str]:
        """(cluster id, topic id)."""
        return await asyncio.to_thread(self._ask, topic, self._ids)

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(offset of the first record that is there, offset after the last one)."""
        return await asyncio.to_thread(self._ask, topic, lambda name: self._bounds(name, partition))

    def _cluster_id(self, _topic: str) -> str:
        cluster = self._admin.describe_cluster(request_timeout=self._timeout_s)
        return str(cluster.result(self._timeout_s).cluster_id)

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

    def _ask(self, topic: str, question: Callable[[str], _Answer]) -> _Answer:
        self._complaints.refusal = ""
        try:
            return question(topic)
        except KafkaException as error:
            if error.args[0].name() == "UNKNOWN_TOPIC_OR_PART":
                raise ChainBroken(topic, "no such topic; run `audit-trail topics create`") from None
            self._raise_refusal()
            raise Unavailable("kafka", error.args[0].name()) from None
        except TimeoutError:
            self._raise_refusal()
            raise Unavailable("kafka", "no answer") from None

    def _raise_refusal(self) -> None:
        self._admin.poll(0)  # hands over the complaints
        if self._complaints.refusal:
            raise ConfigurationError(f"kafka: {self._complaints.refusal}") from None
