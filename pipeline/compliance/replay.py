"""Stored events as the Kafka records that their producers sent, for sending them again.

A record is built from the leaf's clear values and the opened ones, under the writer's schema that the
ledger recorded. Where a value is gone (erased, redacted, expired) the record is incomplete and says so;
where the schema cannot do without it there is none.
"""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fastavro
import orjson

from pipeline.codec import wire
from pipeline.codec.judge import IMPORT_HEADER, import_token
from pipeline.codec.types import without_logical_types
from pipeline.domain.records import SealedEvent
from pipeline.importers.encode import RawRecord, raw_key

REPLAY_HEADER = "audit-replay"  # id of the run: a consumer can tell these from first ones
INCOMPLETE_HEADER = "audit-replay-incomplete"


class ValueGone(Exception):
    """The schema cannot do without a value that is gone: the event cannot be sent again."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A record to send. ``complete``: it seals to the very leaf that it came from."""

    record: RawRecord
    complete: bool


class Replayer:
    """Rebuilds records. ``schemas``: the text of each writer's schema by id, as the ledger has them."""

    def __init__(
        self, schemas: Mapping[int, str], *, run_id: str, import_key: bytes | None = None
    ) -> None:
        self._texts = schemas
        self._run_id = run_id
        self._import_key = import_key
        self._parsed: dict[int, tuple[dict[str, Any], Any]] = {}

    def record(self, event: SealedEvent, topic: str) -> Replayed:
        """The record of an event whose ``opened`` is filled.

        Raises:
            ValueGone: A required value is gone, or the event's schema is not recorded.
        """
        plain, parsed = self._schema(event.schema_id)
        flat = {**event.clear, **event.opened}
        nested = _record(plain, flat, "", {})
        body = io.BytesIO()
        try:
            fastavro.schemaless_writer(body, parsed, nested)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueGone("a value that its schema cannot do without is gone") from None
        value = wire.frame(event.schema_id, body.getvalue())
        complete = _sealed_paths(event) <= event.opened.keys()
        headers: list[tuple[str, bytes]] = [(REPLAY_HEADER, self._run_id.encode())]
        if not complete:
            headers.append((INCOMPLETE_HEADER, b"1"))
        if event.clear.get("imported") and self._import_key is not None:
            headers.append((IMPORT_HEADER, import_token(self._import_key, value)))
        return Replayed(RawRecord(topic, raw_key(nested), value, tuple(headers)), complete)

    def _schema(self, schema_id: int) -> tuple[dict[str, Any], Any]:
        if schema_id not in self._parsed:
            if schema_id not in self._texts:
                raise ValueGone(f"schema {schema_id} is not recorded")
            plain = without_logical_types(json.loads(self._texts[schema_id]))
            self._parsed[schema_id] = plain, fastavro.parse_schema(plain)
        return self._parsed[schema_id]


def _sealed_paths(event: SealedEvent) -> set[str]:
    sealed: Mapping[str, Mapping[str, str]] = orjson.loads(event.canonical)["sealed"]
    return {path for paths in sealed.values() for path in paths}


def _record(
    schema: Mapping[str, Any], flat: Mapping[str, Any], prefix: str, named: dict[str, Any]
) -> dict[str, Any]:
    """A record's fields from flat paths; what is not there is null or empty, as it was."""
    _remember(schema, named)
    return {
        field["name"]: _value(field["type"], flat, prefix + field["name"], named)
        for field in schema["fields"]
    }


def _value(schema: Any, flat: Mapping[str, Any], path: str, named: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        inner = next(branch for branch in schema if branch != "null")
        if "null" in schema and not _there(flat, path):
            _walk(inner, named)
            return None
        return _value(inner, flat, path, named)
    if isinstance(schema, str):
        resolved = named.get(schema.rpartition(".")[2])
        return (
            _primitive(schema, flat.get(path))
            if resolved is None
            else _value(resolved, flat, path, named)
        )
    _remember(schema, named)
    kind = schema["type"]
    if kind == "record":
        return _record(schema, flat, f"{path}.", named)
    if kind == "array":
        return _array(schema["items"], flat, path, named)
    if kind == "map":
        return flat.get(path, {})
    if kind == "fixed":
        return b64decode(flat[path]) if path in flat else None
    return flat.get(path) if kind == "enum" else _value(kind, flat, path, named)


def _array(items: Any, flat: Mapping[str, Any], path: str, named: dict[str, Any]) -> list[Any]:
    """Scalars are one value; records have a path for each element."""
    resolved = named.get(items.rpartition(".")[2], items) if isinstance(items, str) else items
    if not isinstance(resolved, dict) or resolved["type"] != "record":
        return list(flat.get(path, []))
    element = re.compile(re.escape(path) + r"\.(\d+)\.")
    count = max((int(m[1]) + 1 for p in flat if (m := element.match(p))), default=0)
    _walk(resolved, named)
    return [_record(resolved, flat, f"{path}.{index}.", named) for index in range(count)]


def _there(flat: Mapping[str, Any], path: str) -> bool:
    return path in flat or any(one.startswith(f"{path}.") for one in flat)


def _primitive(kind: str, value: Any) -> Any:
    """As Avro has it: bytes are stored as base64, floats as their shortest text."""
    if kind == "bytes" and value is not None:
        return b64decode(value)
    return float(value) if kind in ("float", "double") and value is not None else value


def _remember(schema: Any, named: dict[str, Any]) -> None:
    if isinstance(schema, dict) and "name" in schema:
        named[schema["name"].rpartition(".")[2]] = schema


def _walk(schema: Any, named: dict[str, Any]) -> None:
    """Note the types that are written out inside what has no value here: others refer to them."""
    if isinstance(schema, list):
        for branch in schema:
            _walk(branch, named)
    elif isinstance(schema, dict):
        _remember(schema, named)
        for part in ("type", "items", "values"):
            _walk(schema.get(part), named)
        for field in schema.get("fields", ()):
            _walk(field["type"], named)
