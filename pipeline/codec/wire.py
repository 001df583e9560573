"""The Confluent wire format: magic byte 0, a 4-byte big-endian schema id, the Avro body.

Source: Confluent documentation, "Wire format".
"""

from __future__ import annotations

from struct import Struct

from pipeline.domain.errors import InvalidRecord, Reason

HEADER = Struct(">bI")
HEADER_BYTES = HEADER.size
_MAGIC = 0


def schema_id(value: bytes | None, max_bytes: int) -> int:
    """The schema id that a record's value names.

    Raises:
        InvalidRecord: There is no value, no body, another magic byte, or too much of it.
    """
    if value is None:
        raise InvalidRecord(Reason.NULL_VALUE)
    if not value:
        raise InvalidRecord(Reason.EMPTY_VALUE)
    if value[0] != _MAGIC:
        raise InvalidRecord(Reason.WRONG_MAGIC, f"first byte {value[0]}")
    if len(value) < HEADER_BYTES:
        raise InvalidRecord(Reason.TRUNCATED, "shorter than the wire format's header")
    if len(value) > max_bytes + HEADER_BYTES:
        raise InvalidRecord(Reason.TOO_LARGE, f"more than {max_bytes} bytes")
    return int.from_bytes(value[1:5], "big")


def frame(schema: int, body: bytes) -> bytes:
    """A body with its header."""
    return HEADER.pack(_MAGIC, schema) + body
