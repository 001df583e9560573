"""Reading files of events for a check: JSON, JSON lines, or Avro object container files."""

from __future__ import annotations

import json
import lzma
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fastavro
from fastavro.schema import SchemaParseException

import avro_schemas
from pipeline.codec.types import without_logical_types
from pipeline.domain.errors import ConfigurationError

_AVRO_MAGIC: Final = b"Obj\x01"
_NO_JSON: Final = (ValueError, RecursionError)  # nested too deep
_ENVELOPE: Final = frozenset({"family", "event", "label"})
# What fastavro and its codecs raise of a file that is damaged.
_UNREADABLE: Final = (
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    SchemaParseException,
)


@dataclass(frozen=True, slots=True)
class FoundEvent:
    """One event of a file. ``place`` says where: a line, or a number from 1."""

    place: str
    family: str
    event: Mapping[str, Any]


def read_events(path: Path, family: str = "") -> Iterator[FoundEvent]:
    """Every event of a file, in order.

    A JSON event is either ``{"family": …, "event": {…}}``, with a ``label`` or not, or the event alone, of ``family``. An Avro
    file says its family by its schema's name, unless ``family`` does.

    Raises:
        ConfigurationError: The file is neither, or nothing says which family an event is of.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    if content.startswith(_AVRO_MAGIC):
        yield from _avro(path, family)
        return
    for place, found in _json(path, content):
        if isinstance(found, dict) and {"family", "event"} <= found.keys() <= _ENVELOPE:
            named, event = found["family"], found["event"]
        else:
            named, event = family, found
        if named not in avro_schemas.families():
            known = ", ".join(avro_schemas.families())
            raise ConfigurationError(
                f"{path}: {place}: of which family is it? Give --family, or"
                f' {{"family": …, "event": …}}; there are {known}'
            )
        yield FoundEvent(place, named, event)


def _json(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is neither Avro nor UTF-8 JSON") from None
    try:
        found = json.loads(text)
    except _NO_JSON:
        yield from _lines(path, text)
        return
    for number, event in enumerate(found if isinstance(found, list) else [found], 1):
        yield f"event {number}", event


def _lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    # Not splitlines(): a line separator (U+2028) may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except _NO_JSON as error:
                raise ConfigurationError(f"{path}: line {number} is no JSON: {error}") from None


def _avro(path: Path, family: str) -> Iterator[FoundEvent]:
    by_name = {avro_schemas.load(one)["name"]: one for one in avro_schemas.families()}
    with path.open("rb") as file:
        try:
            blocks = fastavro.block_reader(file)
            schema: Any = blocks.writer_schema
            name = str(schema.get("name", "") if isinstance(schema, dict) else "").rpartition(".")[
                2
            ]
            named = family or by_name.get(name, "")
            if not named:
                raise ConfigurationError(f"{path}: record {name} is no event family; give --family")
            for number, event in enumerate(_plain(blocks, schema), 1):
                yield FoundEvent(f"event {number}", named, event)
        except _UNREADABLE as error:
            raise ConfigurationError(f"{path} is no readable Avro file: {error}") from None


def _plain(blocks: Any, schema: Any) -> Iterator[Any]:
    """Values as the file has them: what is no UUID, or no date, is the validator's to judge."""
    parsed = fastavro.parse_schema(without_logical_types(schema))
    for block in blocks:
        stream = block.bytes_
        for _ in range(block.num_records):
            yield fastavro.schemaless_reader(stream, parsed, None)
