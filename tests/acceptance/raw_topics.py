"""What producers have left on raw topics."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from typing import Any

import fastavro
from confluent_kafka import Consumer, TopicPartition

import avro_schemas
from pipeline.kafka_access import Complaints, client_configuration
from pipeline.settings import Settings

PARTITIONS = 4


class RawTopics:
    """What comes to the raw topics of some families from now on."""

    def __init__(self, settings: Settings, *families: str) -> None:
        self._schemas = {
            f"audit.raw.{family}": fastavro.parse_schema(avro_schemas.load(family))
            for family in families
        }
        reached = client_configuration(settings, Complaints())
        self._consumer = Consumer({**reached, "group.id": "producers-test"})
        self._from = self._ends()

    def _ends(self) -> dict[tuple[str, int], int]:
        found = {}
        for topic in self._schemas:
            for partition in self._consumer.list_topics(topic, timeout=10).topics[topic].partitions:
                at = TopicPartition(topic, partition)
                found[topic, partition] = self._consumer.get_watermark_offsets(at)[1]
        return found

    def count(self) -> int:
        """Records that came, by the ends of the logs."""
        return sum(self._ends().values()) - sum(self._from.values())

    def records(self) -> list[tuple[int, bytes, dict[str, Any]]]:
        """(partition, key, event) of every record up to the ends as they are now, in their order."""
        found = []
        for (topic, partition), end in self._ends().items():
            at = self._from[topic, partition]
            self._consumer.assign([TopicPartition(topic, partition, at)])
            while at < end:
                message = self._consumer.poll(10.0)
                assert message is not None
                assert message.error() is None
                at = message.offset() + 1
                body = io.BytesIO(message.value()[5:])
                event = fastavro.schemaless_reader(body, self._schemas[topic], None)
                found.append((partition, message.key(), event))
        self._consumer.unassign()  # else the next question for the ends waits for its fetches
        return found

    def events(self) -> list[dict[str, Any]]:
        return [event for _partition, _key, event in self.records()]

    def ids(self) -> Counter[str]:
        return Counter(str(event["event_id"]) for event in self.events())

    def ids_of_killed(self, said: Iterable[str]) -> Counter[str]:
        """Ids of what came: all that was said, and at most one more. A process can be killed between
        the call that accepts an event and the line that says so.
        """
        arrived, wanted = self.ids(), set(said)
        assert wanted <= arrived.keys(), "accepted, and never came"
        assert len(arrived.keys() - wanted) <= 1, "nobody accepted these"
        return arrived

    def close(self) -> None:
        self._consumer.close()
