"""Which cluster and which topic this is: names can be reused, ids cannot.

aiokafka does not know topic ids; confluent-kafka's admin client does (KIP-516).
"""

from __future__ import annotations

import asyncio

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.settings import Settings


class TopicIdentity:
    """Asks the broker for cluster and topic ids, off the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._timeout_s = settings.request_timeout_s
        self._admin = AdminClient(confluent_configuration(settings))

    async def __call__(self, topic: str) -> tuple[str, str]:
        """(cluster id, topic id).

        Raises:
            ChainBroken: There is no such topic.
            Unavailable: The broker does not answer; ask again later.
        """
        return await asyncio.to_thread(self._ask, topic)

    def _ask(self, topic: str) -> tuple[str, str]:
        try:
            cluster = self._admin.describe_cluster(request_timeout=self._timeout_s).result(
                self._timeout_s
            )
            futures = self._admin.describe_topics(
                TopicCollection([topic]), request_timeout=self._timeout_s
            )
            found = futures[topic].result(self._timeout_s)
        except KafkaException as error:
            if error.args[0].name() == "UNKNOWN_TOPIC_OR_PART":
                raise ChainBroken(topic, "no such topic; run `audit-trail topics create`") from None
            raise Unavailable("kafka", error.args[0].name()) from None
        except TimeoutError:
            raise Unavailable("kafka", "no answer") from None
        return str(cluster.cluster_id), str(found.topic_id)


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
