"""What a Kafka record of an event is: its key, the wire format of its value, and its partition."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any, Final

_HEADER: Final = Struct(">bI")
_MASK: Final = 0xFFFFFFFF
_MIX: Final = 0x5BD1E995


def frame(schema_id: int, body: bytes) -> bytes:
    """Confluent's wire format: magic byte 0, the schema id in four bytes, the Avro body."""
    return _HEADER.pack(0, schema_id) + body


def raw_key(event: Mapping[str, Any]) -> bytes:
    """``tenant/actor id`` of the actor's home tenant; ``-`` for an anonymous actor."""
    actor = event["actor"]
    if actor.get("id") is None:
        return b"-"
    return f"{actor['tenant']}/{actor['id']}".encode()


def murmur2(key: bytes) -> int:
    """Kafka's default partitioner's hash of a key, made positive.

    Source: Apache Kafka, ``Utils.murmur2``. The producer's own one does the same; this says which
    partition that is.
    """
    digest = (0x9747B28C ^ len(key)) & _MASK
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        part = int.from_bytes(key[at : at + 4], "little") * _MIX & _MASK
        part = (part ^ part >> 24) * _MIX & _MASK
        digest = (digest * _MIX & _MASK) ^ part
    if rest := key[whole:]:
        digest = (digest ^ int.from_bytes(rest, "little")) * _MIX & _MASK
    digest = (digest ^ digest >> 13) * _MIX & _MASK
    return (digest ^ digest >> 15) & 0x7FFFFFFF
