"""The Confluent wire format: magic byte 0, a 4-byte big-endian schema id, the Avro body.

Source: Confluent documentation, "Wire format".
"""

from __future__ import annotations

from struct import Struct

from pipeline.domain.errors import InvalidRecord, Reason

HEADER = Struct(">bI")
HEADER_BYTES = HEADER.size
_MAGIC = 0
_unpack = HEADER.unpack_from


def schema_id(value: bytes | None, max_bytes: int) -> int:
    """The schema id that a record's value names.

    Raises:
        InvalidRecord: There is no value, no body, another magic byte, or too much of it.
    """
    if value and HEADER_BYTES <= len(value) <= max_bytes + HEADER_BYTES:
        magic, schema = _unpack(value)
        if magic == _MAGIC:
            return schema  # type: ignore[no-any-return]
    raise _refusal(value, max_bytes)


def _refusal(value: bytes | None, max_bytes: int) -> InvalidRecord:
    """Why a value has no header, or too much after it."""
    if value is None:
        return InvalidRecord(Reason.NULL_VALUE)
    if not value:
        return InvalidRecord(Reason.EMPTY_VALUE)
    if value[0] != _MAGIC:
        return InvalidRecord(Reason.WRONG_MAGIC, f"first byte {value[0]}")
    if len(value) < HEADER_BYTES:
        return InvalidRecord(Reason.TRUNCATED, "shorter than the wire format's header")
    return InvalidRecord(Reason.TOO_LARGE, f"more than {max_bytes} bytes")


def frame(schema: int, body: bytes) -> bytes:
    """A body with its header."""
    return HEADER.pack(_MAGIC, schema) + body
