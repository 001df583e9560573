"""Avro schemas as a tree of nodes: parsed once, bounded, with what a compiler needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.codec.limits import Limits
from pipeline.domain.errors import InvalidRecord, Reason

_DEEPEST = 8  # CPython compiles 20 loops inside each other; an array or a map takes two
PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


@dataclass(frozen=True)
class Node:
    """One type. ``fields`` holds (name, type, the field's own ``pii`` mark) of a record; ``items``
    the branches of a union or the one type inside an array or map.
    """

    kind: str
    fields: tuple[tuple[str, Node, object], ...] = ()
    items: tuple[Node, ...] = ()
    symbols: tuple[str, ...] = ()
    size: int = 0

    @property
    def names(self) -> set[str]:
        """The names of a record's fields."""
        return {name for name, _child, _declared in self.fields}

    @cached_property
    def weight(self) -> int:
        """How many nodes the type has when every name in it is written out."""
        inner = sum(child.weight for _name, child, _declared in self.fields)
        return 1 + inner + sum(item.weight for item in self.items)

    @cached_property
    def depth(self) -> int:
        """How many arrays and maps stand inside each other."""
        inner = [child.depth for _name, child, _declared in self.fields]
        inner += [item.depth for item in self.items]
        return max(inner, default=0) + (self.kind in ("array", "map"))


def parse(schema: Any, limits: Limits) -> Node:
    """The tree of a schema (as ``json.loads`` gives it).

    Raises:
        InvalidRecord: ``schema_unusable``: not Avro, recursive, or too large when written out.
    """
    root = _Parser(limits.schema_leaves).node(schema, "")
    if root.depth > _DEEPEST:
        raise _unusable(f"more than {_DEEPEST} arrays and maps inside each other")
    return root


class _Parser:
    def __init__(self, leaves_left: int) -> None:
        self._named: dict[str, Node | None] = {}
        self._left = leaves_left

    def node(self, schema: Any, namespace: str) -> Node:
        self._left -= 1
        if self._left < 0:
            raise _unusable("too many fields when written out")
        if isinstance(schema, str):
            return self._by_name(schema, namespace)
        if isinstance(schema, list):
            return Node("union", items=tuple(self.node(branch, namespace) for branch in schema))
        if not isinstance(schema, dict) or "type" not in schema:
            raise _unusable("a type that is none")
        kind = schema["type"]
        if isinstance(kind, (dict, list)):
            return self.node(kind, namespace)
        if kind in ("record", "error", "enum", "fixed"):
            return self._define(schema, namespace)
        if kind == "array":
            return Node("array", items=(self.node(schema.get("items"), namespace),))
        if kind == "map":
            return Node("map", items=(self.node(schema.get("values"), namespace),))
        return self._by_name(kind, namespace)

    def _by_name(self, name: str, namespace: str) -> Node:
        if name in PRIMITIVES:
            return Node(name)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        for candidate in (full, name):
            if candidate in self._named:
                known = self._named[candidate]
                if known is None:
                    raise _unusable("a type that contains itself")
                self._left -= known.weight
                if self._left < 0:
                    raise _unusable("too many fields when written out")
                return known
        raise _unusable("a type name that is not defined")

    def _define(self, schema: dict[str, Any], namespace: str) -> Node:
        name = schema.get("name")
        if not isinstance(name, str):
            raise _unusable("a type without a name")
        space = name.rpartition(".")[0] or schema.get("namespace", namespace)
        full = name if "." in name else f"{space}.{name}" if space else name
        self._named[full] = None
        if schema["type"] == "enum":
            symbols = schema.get("symbols")
            if not isinstance(symbols, list) or not symbols:
                raise _unusable("an enum without symbols")
            node = Node("enum", symbols=tuple(map(str, symbols)))
        elif schema["type"] == "fixed":
            size = schema.get("size")
            if not isinstance(size, int) or not 0 <= size <= 1024:
                raise _unusable("a fixed of no usable size")
            node = Node("fixed", size=size)
        else:
            node = Node("record", fields=tuple(self._fields(schema, space)))
        self._named[full] = node
        return node

    def _fields(self, schema: dict[str, Any], namespace: str) -> list[tuple[str, Node, object]]:
        fields = schema.get("fields")
        if not isinstance(fields, list):
            raise _unusable("a record without fields")
        parsed = []
        for field in fields:
            if not isinstance(field, dict) or not str(field.get("name", "")).isidentifier():
                raise _unusable("a field without a name")
            child = self.node(field.get("type"), namespace)
            parsed.append((field["name"], child, field.get("pii")))
        return parsed


def _unusable(detail: str) -> InvalidRecord:
    return InvalidRecord(Reason.SCHEMA_UNUSABLE, detail)


def without_logical_types(schema: Any) -> Any:
    """The same schema, by which a reader gives the values as they are stored."""
    if isinstance(schema, Mapping):
        return {
            name: without_logical_types(part)
            for name, part in schema.items()
            if name != "logicalType"
        }
    if isinstance(schema, list):
        return [without_logical_types(part) for part in schema]
    return schema
