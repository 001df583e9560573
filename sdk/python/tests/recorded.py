"""An audit client whose broker is a list."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
from audit_sdk import Audit, contract


class Producer:
    """Keeps what it is given, and says at once that the broker has it."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, bytes]] = []
        self._reports: list[Any] = []
        self.away = False

    def produce(self, topic: str, value: bytes, key: bytes, on_delivery: Any) -> None:
        self.records.append((topic, key, value))
        self._reports.append(on_delivery)

    def poll(self, _timeout: float) -> int:
        if self.away:
            return 0
        reports, self._reports = self._reports, []
        for report in reports:
            report(None, None)
        return len(reports)

    def purge(self, in_queue: bool = True, in_flight: bool = True) -> None:
        pass


class Ids:
    def ask(self, _family: str) -> int:
        return 7


class Recorded(Audit):
    def __init__(self, **options: Any) -> None:
        self.producer = Producer()
        super().__init__(**{"service": "records", "tenant": "acme", "heartbeat_s": 0.0, **options})

    def _make_producer(self, _on_error: Any) -> Any:
        return self.producer

    def _make_ids(self) -> Any:
        return Ids()

    def events(self) -> list[dict[str, Any]]:
        """What was sent, as any Avro library reads it."""
        assert self.flush(5.0) == 0
        found = []
        for topic, _key, value in self.producer.records:
            assert value[:5] == b"\x00\x00\x00\x00\x07"
            schema = next(one.schema for one in contract().families.values() if one.topic == topic)
            parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
            found.append(fastavro.schemaless_reader(io.BytesIO(value[5:]), parsed, None))
        return found
