"""Commands of ``audit.redactions`` as Avro single-object encoding (Avro 1.12, "Single-object encoding").

C3 01, the CRC-64-AVRO fingerprint of the writer's schema (little-endian), the datum; then a MAC of all
that under the key provider's secret: who may write the topic, and cannot ask the provider, orders nothing.
No registry is asked: the agent must read commands whatever is down, and only this project writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from hmac import compare_digest
from importlib.resources import files
from io import BytesIO
from typing import Any, Final
from uuid import UUID

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from pipeline.codec.types import without_logical_types
from pipeline.domain.erasure import OPERATION, LeafPlace, RedactionCommand

_MARKER: Final = b"\xc3\x01"
_HEADER_BYTES: Final = 10
_MAC_BYTES: Final = 32
_PURPOSE: Final = (
    b"audit.redactions command\x00"  # nothing else that the provider is asked begins so
)
COMMAND_MAX_BYTES: Final = 64 * 1024


Mac = Callable[[bytes], bytes]  # ``KeyProvider.mac``


def encode_command(command: RedactionCommand, mac: Mac) -> bytes:
    """The record's value; its key is the text of the request id."""
    header, schema = _format()
    out = BytesIO()
    out.write(header)
    fastavro.schemaless_writer(
        out,
        schema,
        {
            "request_id": str(command.request_id),
            "kind": OPERATION,
            "tenant": command.tenant,
            "id_types": list(command.id_types),
            "subject_hashes": list(command.subject_hashes),
            "ordered_at": command.ordered_at_us,
            "erased_at": command.erased_at_us,
            "log": command.leaf.log,
            "leaf_index": command.leaf.leaf_index,
            "deleted_below": dict(command.deleted_below),
            "subject_refs": [str(ref) for ref in command.subject_refs],
            "raw_key_hashes": list(command.raw_key_hashes),
        },
    )
    return out.getvalue() + mac(_PURPOSE + out.getvalue())


def decode_command(value: bytes | None, mac: Mac) -> RedactionCommand:
    """Read back what ``encode_command`` gave.

    Raises:
        ValueError: Not a command of this release, or of another key provider; the message holds no value.
    """
    header, schema = _format()
    if value is None or value[:_HEADER_BYTES] != header or len(value) > COMMAND_MAX_BYTES:
        raise ValueError("not a command of this release")
    body, said = value[:-_MAC_BYTES], value[-_MAC_BYTES:]
    if not compare_digest(mac(_PURPOSE + body), said):
        raise ValueError("not a command that was made with this trail's key provider")
    stream = BytesIO(body[_HEADER_BYTES:])
    try:
        found: Any = fastavro.schemaless_reader(stream, schema, None)
        command = RedactionCommand(
            request_id=UUID(str(found["request_id"])),
            tenant=found["tenant"],
            id_types=tuple(found["id_types"]),
            subject_hashes=tuple(found["subject_hashes"]),
            ordered_at_us=found["ordered_at"],
            erased_at_us=found["erased_at"],
            leaf=LeafPlace(found["log"], found["leaf_index"]),
            deleted_below=found["deleted_below"],
            subject_refs=tuple(UUID(ref) for ref in found["subject_refs"]),
            raw_key_hashes=tuple(found["raw_key_hashes"]),
        )
    except (EOFError, IndexError, ValueError, TypeError, OverflowError):
        raise ValueError("not a command of this release") from None
    if (
        stream.read(1)
        or found["kind"] != OPERATION
        or len(command.id_types) != len(command.subject_hashes)
    ):
        raise ValueError("not a command of this release")
    return command


@cache
def _format() -> tuple[bytes, Any]:
    text = files("avro_schemas").joinpath("commands/RedactionCommand.avsc").read_text("utf-8")
    # Times stay the integers that they are.
    plain = without_logical_types(json.loads(text))
    digest = fingerprint(to_parsing_canonical_form(json.loads(text)), "CRC-64-AVRO")
    return _MARKER + bytes.fromhex(digest), fastavro.parse_schema(plain)
