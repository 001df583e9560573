"""From an event as a dict to its Avro body, judged on the way.

A schema is compiled once into nested functions. Each writes its value and notes what is wrong;
a body is returned only if nothing is. Maps are written in the order of their keys' UTF-8 bytes, so
that the same event has the same bytes from every SDK. Source: Avro 1.12 specification, "Binary
Encoding".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from audit_sdk.contract import Family, Limits, contract
from audit_sdk.errors import InvalidEvent, Problem
from audit_sdk.fast_codec import ODD, Fast, compile_fast, whole_bounds

Problems = list[Problem]
# (value, where it is, buffer, problems)
Write = Callable[[Any, bytearray, Problems], None]

_ABSENT: Final = object()
# C0 except tab, line feed and carriage return; DEL; C1 with U+0085.
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_UUID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NIL: Final = "00000000-0000-0000-0000-000000000000"


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
        if len(body) <= known.limits.event_bytes and not _broken_rules(rules, event):
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
        put_long=_put_long,
        control=_CONTROL,
        uuid=_UUID,
        nil_uuid=_NIL,
        default_of=compiler.plain_bytes,
    )


def _broken_rules(rules: Sequence[Mapping[str, Any]], event: Mapping[str, Any]) -> Problems:
    problems: Problems = []
    for rule in rules:
        _RULES[rule["rule"]](rule, event, problems)
    return problems


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
            problems += _broken_rules(rules, event)
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
            return _enum(schema["symbols"], path)
        if kind == "array":
            return self._array(schema, path)
        if kind == "map":
            return self._map(path)
        return self._plain(kind, path, schema.get("logicalType"))

    def _plain(self, kind: str, path: str, logical: str | None = None) -> Write:
        if kind == "string":
            if logical == "uuid":
                return _uuid(path)
            return self._text(path)
        if kind == "boolean":
            return _boolean(path)
        if kind in ("int", "long"):
            return _whole(path, 32 if kind == "int" else 64, logical)
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
            _put_text(value, path, out, problems)

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
                _put_long(len(value), out)
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
                _put_long(len(value), out)
                for octets, name in sorted((_utf8(name), name) for name in value):
                    if not name:
                        problems.append(Problem(path, "empty", "a key is empty"))
                    if len(octets) > limits.label_key_bytes:
                        problems.append(Problem(path, "label_key_bytes", key_too_long))
                    if len(_utf8(value[name])) > limits.label_value_bytes:
                        problems.append(Problem(path, "label_value_bytes", value_too_long))
                    _put_text(name, path, out, problems)
                    _put_text(value[name], path, out, problems)
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
                part = get(name, _ABSENT)
                if part is _ABSENT:
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
        for name in sorted((str(key) for key in value if key not in names), key=_utf8)
    ]


def _is_text_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        type(name) is str and type(text) is str for name, text in value.items()
    )


def _enum(symbols: list[str], path: str) -> Write:
    codes = {}
    for number, symbol in enumerate(symbols):
        code = bytearray()
        _put_long(number, code)
        codes[symbol] = bytes(code)
    known = ", ".join(symbols)

    def write(value: Any, out: bytearray, problems: Problems) -> None:
        code = codes.get(value) if isinstance(value, str) else None
        if code is None:
            problems.append(Problem(path, "symbol", f"must be one of {known}"))
        else:
            out += code

    return write


def _boolean(path: str) -> Write:
    def write(value: Any, out: bytearray, problems: Problems) -> None:
        if value is True or value is False:
            out.append(1 if value else 0)
        else:
            problems.append(Problem(path, "type", "must be true or false"))

    return write


def _whole(path: str, bits: int, logical: str | None) -> Write:
    least, most = whole_bounds(bits, logical)
    if logical == "timestamp-micros":
        wanted = "must be microseconds since 1970, before the year 2262"
    else:
        wanted = f"must fit into {bits} bits"

    def write(value: Any, out: bytearray, problems: Problems) -> None:
        if type(value) is not int:
            problems.append(Problem(path, "type", "must be a whole number"))
        elif not least <= value <= most:
            problems.append(Problem(path, "range", wanted))
        else:
            _put_long(value, out)

    return write


def _uuid(path: str) -> Write:
    def write(value: Any, out: bytearray, problems: Problems) -> None:
        if type(value) is not str:
            problems.append(Problem(path, "type", "must be text"))
        elif not _UUID.fullmatch(value) or value == _NIL:
            problems.append(Problem(path, "uuid", "must be a UUID, and not the nil one"))
        else:
            out.append(72)
            out += value.encode()

    return write


def _put_text(text: str, path: str, out: bytearray, problems: Problems) -> None:
    """The length in bytes, then UTF-8; what no store takes is a problem."""
    if not text.isprintable():
        if _CONTROL.search(text):
            problems.append(Problem(path, "control_character", "has a control character"))
            return
        if any("\ud800" <= char <= "\udfff" for char in text):
            problems.append(Problem(path, "unicode", "has half of a surrogate pair"))
            return
    octets = text.encode()
    length = len(octets)
    if length < 64:
        out.append(2 * length)
    else:
        _put_long(length, out)
    out += octets


def _put_long(value: int, out: bytearray) -> None:
    """Zigzag, then seven bits at a time, the lowest first."""
    rest = (value << 1) ^ (value >> 63)
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _required_if(rule: Mapping[str, Any], event: Mapping[str, Any], problems: Problems) -> None:
    if event.get(rule["when"], _ABSENT) == rule["is"] and not event.get(rule["path"]):
        because = f"is required when {rule['when']} is {str(rule['is']).lower()}"
        problems.append(Problem(rule["path"], "required_if", because))


def _at_least_one(rule: Mapping[str, Any], event: Mapping[str, Any], problems: Problems) -> None:
    if not any(event.get(path) for path in rule["paths"]):
        detail = f"at least one of {' and '.join(rule['paths'])} is required"
        problems.append(Problem(rule["paths"][0], "at_least_one", detail))


_RULES: Final = {"required_if": _required_if, "at_least_one": _at_least_one}
