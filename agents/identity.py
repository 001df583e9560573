"""Which cluster and which topic this is, and from where to where a partition's records reach.

Names can be reused, ids cannot. Asked over connections of their own: on the consumer's each question
waits behind a fetch that the broker holds, 0.1 s for each of a worker's partitions [measured].
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterable
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.offset import OffsetRequest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from agents.app import tls_context
from agents.kafka_answers import kafka_answers
from agents.metadata_request import TopicMetadataRequest
from pipeline.domain.errors import ChainBroken, ConfigurationError, Unavailable
from pipeline.kafka_access import Complaints, client_configuration
from pipeline.settings import Settings

_FIRST: Final = -2  # Kafka's words for the ends of a partition, where a timestamp would stand
_END: Final = -1


class TopicFacts:
    """Asks the brokers, on the event loop.

    ``ids`` and ``bounds`` raise ``ChainBroken`` for a topic that is not there, ``Unavailable`` when
    no broker answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._timeout_s = settings.request_timeout_s
        self._client: AIOKafkaClient | None = None
        self._connecting = asyncio.Lock()

    async def reach(self) -> None:
        """Return once a broker has let this worker in.

        Raises:
            ConfigurationError: It refuses the credentials, or is not trusted.
            Unavailable: None answers.
        """
        await asyncio.to_thread(self._reach)

    async def require(self, topics: Iterable[str]) -> None:
        """Return once each is known to be there. Faust makes none, and without the changelog of a table
        its start never ends.

        Raises:
            ConfigurationError: One is not; names it.
            Unavailable: No broker answers.
        """
        for topic in topics:
            try:
                await self.ids(topic)
            except ChainBroken as missing:
                raise ConfigurationError(
                    f"topic {topic} is missing (AUDIT_CONSUMER_GROUP is a part of such names);"
                    " run: audit-trail topics create"
                ) from missing

    async def ids(self, topic: str) -> tuple[str, str]:
        """(cluster id, topic id)."""
        answer, found = await self._described(topic)
        # As confluent-kafka writes it, by which `audit-trail open-epoch` asks.
        topic_id = b64encode(found["topic_id"].bytes).rstrip(b"=").decode()
        return str(answer.cluster_id), topic_id

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """(offset of the first record that is there, offset after the last one)."""
        _answer, found = await self._described(topic)
        leaders = {one["partition"]: one["leader"] for one in found["partitions"]}
        if partition not in leaders:
            raise ChainBroken(topic, f"it has no partition {partition} any more")
        ends = []
        for place in (_FIRST, _END):
            request = OffsetRequest(-1, 0, [(topic, [(partition, place)])])
            answer = await self._ask(request, leaders[partition])
            ((_topic, ((_partition, error, _timestamp, offset),)),) = answer.topics
            self._check(topic, error)
            ends.append(offset)
        return ends[0], ends[1]

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _described(self, topic: str) -> tuple[Any, dict[str, Any]]:
        answer = await self._ask(TopicMetadataRequest(topic))
        (found,) = answer.to_object()["topics"]
        self._check(topic, found["error_code"])
        return answer, found

    async def _ask(self, request: Any, node: int | None = None) -> Any:
        try:
            with kafka_answers():
                async with asyncio.timeout(self._timeout_s):
                    async with self._connecting:
                        if self._client is None:
                            self._client = await self._connected()
                    client = self._client
                    return await client.send(
                        client.get_random_node() if node is None else node, request
                    )
        except Unavailable:
            await self.close()  # the next question begins with a fresh connection
            raise

    async def _connected(self) -> AIOKafkaClient:
        settings = self._settings
        client = AIOKafkaClient(
            bootstrap_servers=settings.kafka_bootstrap,
            security_protocol=settings.kafka_security_protocol,
            ssl_context=tls_context(settings),
            sasl_mechanism=settings.kafka_sasl_mechanism,
            sasl_plain_username=settings.kafka_username or None,
            sasl_plain_password=settings.kafka_password.get_secret_value() or None,
            request_timeout_ms=int(self._timeout_s * 1000),
        )
        try:
            await client.bootstrap()
        except BaseException:
            await client.close()
            raise
        return client

    @staticmethod
    def _check(topic: str, code: int) -> None:
        if not code:
            return
        error = for_code(code)
        if error is UnknownTopicOrPartitionError:
            raise ChainBroken(topic, "no such topic; run `audit-trail topics create`")
        raise Unavailable("kafka", error.__name__)

    def _reach(self) -> None:
        """By librdkafka, which alone says why it is not let in: no admin call, see
        ``agents.metadata_request``.
        """
        complaints = Complaints()
        client = AdminClient(client_configuration(self._settings, complaints))
        try:
            client.list_topics(timeout=self._timeout_s)
        except KafkaException as error:
            client.poll(0)  # hands over the complaints
            if complaints.refusal:
                raise ConfigurationError(f"kafka: {complaints.refusal}") from None
            raise Unavailable("kafka", error.args[0].name()) from None
