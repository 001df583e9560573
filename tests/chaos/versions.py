"""Events of schema versions that no worker has seen: each makes it ask the registry once more."""

from __future__ import annotations

import json
import time
from pathlib import Path
from uuid import uuid4

import avro_schemas
from pipeline.codec.wire import frame
from pipeline.domain.logs import RAW_PREFIX, subject_of
from pipeline.entrypoints.cli.published import ids_file
from pipeline.entrypoints.cli.publishing import Publisher
from pipeline.entrypoints.cli.registry import RegistryClient
from pipeline.importers.avro_writer import compile_writer
from pipeline.importers.encode import raw_key
from pipeline.settings import Settings
from pipeline.testing import an_actor, an_event

FAMILY = "admin-action"
TENANT = "tenant-1"


class NewVersions:
    """Registers and publishes past any proxy; ``file`` gets the id and the position of each event."""

    def __init__(self, settings: Settings, file: Path) -> None:
        self._settings = settings
        self._file = file
        self._made = 0

    def publish(self, events: int) -> None:
        """Register one version more, and publish so many of its events."""
        self._made += 1
        added = f"line_{int(time.time())}_{self._made}"
        schema = avro_schemas.load(FAMILY)
        schema["fields"].append(
            {"name": added, "type": ["null", "string"], "default": None, "pii": "none", "doc": "x"}
        )
        topic = f"{RAW_PREFIX}{FAMILY}"
        with RegistryClient(self._settings) as registry:
            schema_id = registry.register(subject_of(topic), json.dumps(schema))
        write = compile_writer(schema)
        with ids_file(self._file) as ids, Publisher(self._settings) as publisher:
            for _ in range(events):
                event = {**self._event(), added: "new"}
                body = bytearray()
                write(event, body)
                publisher.publish(
                    topic,
                    key=raw_key(event),
                    value=frame(schema_id, bytes(body)),
                    delivered=ids.noting(event["event_id"]),
                )

    def published(self) -> bytes:
        """The lines of the ids file."""
        return self._file.read_bytes()

    def _event(self) -> dict[str, object]:
        return an_event(
            FAMILY,
            event_id=str(uuid4()),
            occurred_at=time.time_ns() // 1000,
            tenant=TENANT,
            actor=an_actor(f"u-{self._made}", tenant=TENANT),
        )
