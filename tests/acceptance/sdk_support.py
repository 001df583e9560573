"""What the tests of every SDK share: a topic that is read, and the quick start."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from typing import Any

import fastavro
from confluent_kafka import Consumer, TopicPartition

import avro_schemas
from pipeline.settings import Settings
from tests.acceptance.records import wait_until

TOPIC = "audit.raw.authentication"
PARTITIONS = 4


class Topic:
    """What comes to a topic from now on."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": settings.kafka_bootstrap, "group.id": "sdk-test"}
        )
        self._from = [self._end(partition) for partition in range(PARTITIONS)]
        self._schema = fastavro.parse_schema(avro_schemas.load("authentication"))

    def _end(self, partition: int) -> TopicPartition:
        _first, end = self._consumer.get_watermark_offsets(TopicPartition(TOPIC, partition))
        return TopicPartition(TOPIC, partition, end)

    def events(self) -> list[tuple[int, bytes, dict[str, Any]]]:
        """(partition, key, event) of every record up to the end as it is now, by partition and offset."""
        ends = [self._end(partition) for partition in range(PARTITIONS)]
        found = []
        for begin, end in zip(self._from, ends, strict=True):
            self._consumer.assign([begin])
            at = begin.offset
            while at < end.offset:
                message = self._consumer.poll(10.0)
                assert message is not None
                assert message.error() is None
                at = message.offset() + 1
                body = io.BytesIO(message.value()[5:])
                event = fastavro.schemaless_reader(body, self._schema, None)
                found.append((begin.partition, message.key(), event))
        return found

    def ids(self) -> Counter[str]:
        return Counter(str(event["event_id"]) for _partition, _key, event in self.events())

    def close(self) -> None:
        self._consumer.close()


def here(readme_block: str, settings: Settings) -> str:
    """A README's program, with the servers of the test."""
    return readme_block.replace("127.0.0.1:19092", settings.kafka_bootstrap).replace(
        "http://127.0.0.1:18080/apis/ccompat/v7", settings.registry_url
    )


def wait_until_indexed(settings: Settings, event_id: str) -> None:
    """The worker has brought the quick start's event to the index, and its producer's last heartbeat."""

    def found(query: str) -> list[dict[str, Any]]:
        words = urllib.parse.quote(query)
        url = f"{settings.elasticsearch_url}/{settings.index_prefix}-*/_search?q={words}"
        try:
            with urllib.request.urlopen(url) as answer:
                return [hit["_source"] for hit in json.load(answer)["hits"]["hits"]]
        except urllib.error.HTTPError:  # the month's index is being made
            return []

    (event,) = wait_until(lambda: found(f"event.id:{event_id}"))
    assert event["event.action"] == "invoice.read"
    told = (
        f"audit.producer.epoch:{event['audit.producer.epoch']} AND event.action:producer.heartbeat"
    )
    beats = wait_until(lambda: [one for one in found(told) if one["audit.heartbeat.final"]])
    (progress,) = beats[0]["audit.progress"]
    assert progress["topic"] == "audit.raw.data-access"
    assert (progress["accepted"], progress["delivered"]) == (1, 1)
