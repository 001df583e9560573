"""From an event as a dict to its Avro body, judged on the way.

A schema is compiled once into nested functions. Each writes its value and notes what is wrong;
a body is returned only if nothing is. Maps are written in the order of their keys' UTF-8 bytes, so
that the same event has the same bytes from every SDK. Source: Avro 1.12 specification, "Binary
Encoding".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from audit_sdk.contract import Family, Limits, contract
from audit_sdk.errors import InvalidEvent, Problem
from audit_sdk.fast_codec import ODD, Fast, compile_fast
from audit_sdk.rules import broken_rules
from audit_sdk.values import (
    ABSENT,
    CONTROL,
    NIL_UUID,
    UUID,
    Problems,
    Write,
    boolean,
    enum,
    put_long,
    put_text,
    utf8,
    uuid,
    whole,
)


def encode(family: str, event: Mapping[str, Any]) -> bytes:
    """The Avro body of an event, without the wire format's header.

    Fields that the event lacks get their schema's default.

    Raises:
        InvalidEvent: With everything that is wrong, in the schema's order.
        LookupError: There is no such family.
    """
    body = bytearray()
    try:
        _fast(family)(event, body)
        known = contract()
        rules = known.families[family].rules
        if len(body) <= known.limits.event_bytes and not broken_rules(rules, event):
            return bytes(body)
    except ODD:
        pass  # what is not plainly right is judged below
    problems: Problems = []
    body = bytearray()
    encoder(family)(event, body, problems)
    if problems:
        raise InvalidEvent(family, problems)
    return bytes(body)


def validate(family: str, event: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with an event; nothing: it may be sent. Raises ``LookupError``."""
    problems: Problems = []
    encoder(family)(event, bytearray(), problems)
    return problems


@cache
def encoder(family: str) -> Write:
    """The compiled writer of a family, which judges the event as a whole, too."""
    known = contract()
    if family not in known.families:
        raise LookupError(
            f"no event family is named {family!r}; there are {', '.join(known.families)}"
        )
    return _Compiler(known.limits, known.families[family]).event()


@cache
def _fast(family: str) -> Fast:
    """The quick way, which gives up on what is not plain. Raises ``LookupError``."""
    encoder(family)
    known = contract()
    compiler = _Compiler(known.limits, known.families[family])
    return compile_fast(
        known.families[family],
        known,
        put_long=put_long,
        control=CONTROL,
        uuid=UUID,
        nil_uuid=NIL_UUID,
        default_of=compiler.plain_bytes,
    )


class _Compiler:
    """Makes the writers of one family."""

    def __init__(self, limits: Limits, family: Family) -> None:
        self._limits = limits
        self._family = family
        self._named: dict[str, Mapping[str, Any]] = {}

    def event(self) -> Write:
        record = self._record(self._family.schema, "")
        rules = self._family.rules
        limit = self._limits.event_bytes

        def write(event: Any, out: bytearray, problems: Problems) -> None:
            record(event, out, problems)
            if not isinstance(event, Mapping):
                return
            problems += broken_rules(rules, event)
            if len(out) > limit:
                problems.append(Problem("", "event_bytes", f"more than {limit} bytes as Avro"))

        return write

    def plain_bytes(self, schema: Any, value: Any) -> bytes:
        """A value of a type, in Avro; of defaults and enum codes, which are right."""
        out = bytearray()
        self._writer(schema, "")(value, out, [])
        return bytes(out)

    def _writer(self, schema: Any, path: str) -> Write:
        if isinstance(schema, list):
            return self._union(schema, path)
        if isinstance(schema, str):
            named = self._named.get(schema.rpartition(".")[2])
            return self._plain(schema, path) if named is None else self._writer(named, path)
        kind = schema["type"]
        if kind in ("record", "enum"):
            self._named[schema["name"]] = schema
        if kind == "record":
            return self._record(schema, path)
        if kind == "enum":
            return enum(schema["symbols"], path)
        if kind == "array":
            return self._array(schema, path)
        if kind == "map":
            return self._map(path)
        return self._plain(kind, path, schema.get("logicalType"))

    def _plain(self, kind: str, path: str, logical: str | None = None) -> Write:
        if kind == "string":
            if logical == "uuid":
                return uuid(path)
            return self._text(path)
        if kind == "boolean":
            return boolean(path)
        if kind in ("int", "long"):
            return whole(path, 32 if kind == "int" else 64, logical)
        raise TypeError(f"{path}: no event field has Avro type {kind}")

    def _text(self, path: str) -> Write:
        limit = self._limits.text_chars
        known = contract()
        pattern = known.patterns.get(path)
        wanted = None if pattern is None else re.compile(pattern)
        looks = known.pattern_docs.get(path, "")

        def write(value: Any, out: bytearray, problems: Problems) -> None:
            if type(value) is not str:
                problems.append(Problem(path, "type", "must be text"))
                return
            if not value:
                problems.append(Problem(path, "empty", "is empty; leave it out instead"))
            elif len(value) > limit:
                problems.append(Problem(path, "text_chars", f"longer than {limit} characters"))
            elif wanted is not None and not wanted.fullmatch(value):
                problems.append(Problem(path, "pattern", f"must be {looks}"))
            put_text(value, path, out, problems)

        return write

    def _union(self, branches: list[Any], path: str) -> Write:
        null_at = branches.index("null")
        ((value_at, inner_type),) = [
            (at, branch) for at, branch in enumerate(branches) if branch != "null"
        ]
        inner = self._writer(inner_type, path)
        null, present = 2 * null_at, 2 * value_at

        def write(value: Any, out: bytearray, problems: Problems) -> None:
            if value is None:
                out.append(null)
            else:
                out.append(present)
                inner(value, out, problems)

        return write

    def _array(self, schema: Mapping[str, Any], path: str) -> Write:
        inner = self._writer(schema["items"], f"{path}.*")
        rule = "changes" if path == "changes" else "items"
        limit = self._limits.changes if rule == "changes" else self._limits.items

        def write(value: Any, out: bytearray, problems: Problems) -> None:
            if not isinstance(value, (list, tuple)):
                problems.append(Problem(path, "type", "must be a list"))
                return
            if len(value) > limit:
                problems.append(Problem(path, rule, f"more than {limit} elements"))
                return
            if value:
                put_long(len(value), out)
                for part in value:
                    inner(part, out, problems)
            out.append(0)

        return write

    def _map(self, path: str) -> Write:
        limits = self._limits
        key_too_long = f"a key is longer than {limits.label_key_bytes} bytes"
        value_too_long = f"a value is longer than {limits.label_value_bytes} bytes"

        def write(value: Any, out: bytearray, problems: Problems) -> None:
            if not _is_text_map(value):
                problems.append(Problem(path, "type", "must be a map of texts"))
                return
            if len(value) > limits.items:
                problems.append(Problem(path, "items", f"more than {limits.items} elements"))
                return
            if value:
                put_long(len(value), out)
                for octets, name in sorted((utf8(name), name) for name in value):
                    if not name:
                        problems.append(Problem(path, "empty", "a key is empty"))
                    if len(octets) > limits.label_key_bytes:
                        problems.append(Problem(path, "label_key_bytes", key_too_long))
                    if len(utf8(value[name])) > limits.label_value_bytes:
                        problems.append(Problem(path, "label_value_bytes", value_too_long))
                    put_text(name, path, out, problems)
                    put_text(value[name], path, out, problems)
            out.append(0)

        return write

    def _record(self, schema: Mapping[str, Any], path: str) -> Write:
        fields = []
        for field in schema["fields"]:
            inner = f"{path}.{field['name']}" if path else field["name"]
            write_field = self._writer(field["type"], inner)
            default = None
            if "default" in field:
                default = bytearray()
                write_field(field["default"], default, [])
            fields.append((field["name"], write_field, default, inner))
        names = {field["name"] for field in schema["fields"]}

        def write(value: Any, out: bytearray, problems: Problems) -> None:
            if not isinstance(value, Mapping):
                problems.append(Problem(path, "type", "must be a record"))
                return
            present = 0
            get = value.get
            for name, write_field, default, inner in fields:
                part = get(name, ABSENT)
                if part is ABSENT:
                    if default is None:
                        problems.append(Problem(inner, "required", "is missing"))
                    else:
                        out += default
                    continue
                present += 1
                if part is None and default is None:
                    problems.append(Problem(inner, "required", "is missing"))
                else:
                    write_field(part, out, problems)
            if present != len(value):
                problems += _unknown_fields(value, names, path)

        return write


def _unknown_fields(value: Mapping[Any, Any], names: set[str], path: str) -> list[Problem]:
    """A problem per key that is no field, in the order of their UTF-8 bytes."""
    return [
        Problem(f"{path}.{name}" if path else name, "unknown_field", "is no field of this family")
        for name in sorted((str(key) for key in value if key not in names), key=utf8)
    ]


def _is_text_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        type(name) is str and type(text) is str for name, text in value.items()
    )
