"""Walking over Avro schemas as JSON has them: fields by path, named types, marks of personal data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pipeline.codec.limits import Limits
from pipeline.codec.types import Node, parse
from pipeline.domain.errors import InvalidRecord

_LIMITS: Final = Limits()
_NAMED: Final = ("record", "enum", "fixed")


def fields_of(schema: Any, prefix: str = "") -> dict[str, Mapping[str, Any]]:
    """Every field that is written out in a schema, by path (``targets.*.id``)."""
    if isinstance(schema, list):
        return {path: one for part in schema for path, one in fields_of(part, prefix).items()}
    if not isinstance(schema, dict):
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    for field in schema.get("fields", ()):
        found[prefix + field["name"]] = field
        found |= fields_of(field["type"], f"{prefix}{field['name']}.")
    for part, inner in (("type", prefix), ("items", f"{prefix}*."), ("values", f"{prefix}*.")):
        found |= fields_of(schema.get(part), inner)
    return found


def named_types(schema: Any) -> dict[str, Mapping[str, Any]]:
    """Every named type of a schema, by its short name."""
    if isinstance(schema, list):
        return {name: one for part in schema for name, one in named_types(part).items()}
    if not isinstance(schema, dict):
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    if schema.get("type") in _NAMED:
        found[str(schema.get("name"))] = schema
    for field in schema.get("fields", ()):
        found |= named_types(field["type"])
    for part in ("type", "items", "values"):
        found |= named_types(schema.get(part))
    return found


def marks(schema: Mapping[str, Any]) -> dict[str, object]:
    """The ``pii`` mark of every field, by path; nothing of a schema that the worker cannot decode."""
    try:
        return dict(_marks(parse(schema, _LIMITS), ""))
    except InvalidRecord:
        return {}


def _marks(node: Node, prefix: str) -> Iterator[tuple[str, object]]:
    for name, inner, declared in node.fields:
        yield prefix + name, declared
        yield from _marks_into(inner, prefix + name)


def _marks_into(node: Node, path: str) -> Iterator[tuple[str, object]]:
    if node.kind == "record":
        yield from _marks(node, f"{path}.")
    elif node.kind == "array":
        yield from _marks_into(node.items[0], f"{path}.*")
    elif node.kind == "union":
        for branch in node.items:
            yield from _marks_into(branch, path)
