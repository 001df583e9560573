"""An event as the Kafka record that a producer sends: the way from a dict to the raw topics.

What it writes is what the SDKs write: the same wire format, key and headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import avro_schemas
from pipeline.codec import wire
from pipeline.codec.judge import IMPORT_HEADER, import_token
from pipeline.domain.logs import RAW_PREFIX
from pipeline.importers.avro_writer import compile_writer

ANONYMOUS_KEY: Final = b"-"


@dataclass(frozen=True, slots=True)
class RawRecord:
    """What to produce; the partitioner is murmur2 over the key."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class EventEncoder:
    """Encodes events under the schema ids that the registry gave to this release's schemas.

    ``schema_ids`` maps families to ids. Without ``import_key`` (32 bytes) an event that is marked
    imported gets no token, and the worker refuses it.
    """

    def __init__(self, schema_ids: Mapping[str, int], *, import_key: bytes | None = None) -> None:
        self._schema_ids = dict(schema_ids)
        self._writers = {family: compile_writer(avro_schemas.load(family)) for family in schema_ids}
        self._import_key = import_key

    def encode(self, family: str, event: dict[str, Any]) -> RawRecord:
        """The record of one event; fields that the event lacks get their schema's default.

        Raises:
            ValueError: The event does not follow its family's schema; the message holds no value.
        """
        value = wire.frame(self._schema_ids[family], self.body(family, event))
        headers: tuple[tuple[str, bytes], ...] = ()
        if event.get("imported") and self._import_key is not None:
            headers = ((IMPORT_HEADER, import_token(self._import_key, value)),)
        return RawRecord(f"{RAW_PREFIX}{family}", raw_key(event), value, headers)

    def body(self, family: str, event: dict[str, Any]) -> bytes:
        """The Avro body alone."""
        buffer = bytearray()
        self._writers[family](event, buffer)
        return bytes(buffer)


def raw_key(event: Mapping[str, Any]) -> bytes:
    """``tenant/actor id`` with the actor's home tenant; ``-`` for an anonymous actor."""
    acting = event["actor"]
    if acting.get("id") is None:
        return ANONYMOUS_KEY
    return f"{acting['tenant']}/{acting['id']}".encode()
