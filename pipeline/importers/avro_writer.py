"""Writing Avro bodies by functions made from a schema once: about twice as fast as fastavro's writer
(26 against 48 µs for the realistic bench event), and its errors tell the path, never the value.

Covers what this repository's schemas use: records, enums, arrays, maps, ``["null", type]``, string,
int, long, boolean. Source: Apache Avro 1.12 specification, "Binary encoding".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Write = Callable[[Any, bytearray], None]

_ABSENT = object()


def compile_writer(schema: dict[str, Any]) -> Write:
    """The writer of a schema that stands alone: appends a value's encoding to a buffer.

    A field that a record lacks gets its default; a key that is no field is an error. Whatever the
    error, the buffer may hold a part of the value.

    Raises (the writer):
        ValueError: The value does not follow the schema; the message names path and type.
    Raises (this function):
        ValueError: The schema uses something else.
    """
    return _writer(schema, "", {})


def _writer(schema: Any, path: str, named: dict[str, Write]) -> Write:
    if isinstance(schema, list):
        return _nullable(schema, path, named)
    if isinstance(schema, str) and schema not in _PRIMITIVES:
        return _known(schema, path, named)
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind in _PRIMITIVES:
        return _PRIMITIVES[kind](path)
    if kind == "array":
        return _array(_writer(schema["items"], f"{path}[]", named), path)
    if kind == "map":
        return _map(_writer(schema["values"], f"{path}{{}}", named), path)
    if kind not in ("enum", "record"):
        raise ValueError(f"{path or 'the schema'}: no writer for this type")
    write = _enum(schema, path) if kind == "enum" else _record(schema, path, named)
    named[schema["name"]] = write
    return write


def _known(name: str, path: str, named: dict[str, Write]) -> Write:
    """The writer of a named type; all are of one namespace."""
    short = name.rpartition(".")[2]
    if short not in named:
        raise ValueError(f"{path}: no writer for this type")
    return named[short]


def _mismatch(path: str, expected: str) -> ValueError:
    return ValueError(f"{path or 'the event'}: not {expected}")


def _put_long(number: int, out: bytearray) -> None:
    rest = (number << 1) ^ (number >> 63)
    while rest > 127:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)


def _put_text(text: str, out: bytearray) -> None:
    encoded = text.encode()
    size = len(encoded)
    if size < 64:
        out.append(size << 1)
    else:
        _put_long(size, out)
    out += encoded


def _string(path: str) -> Write:
    def write(value: Any, out: bytearray) -> None:
        if not isinstance(value, str):
            raise _mismatch(path, "a text")
        try:
            _put_text(value, out)
        except UnicodeEncodeError:
            raise _mismatch(path, "Unicode text") from None

    return write


def _integer(path: str, bits: int) -> Write:
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def write(value: Any, out: bytearray) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _mismatch(path, f"an integer of {bits} bits")
        _put_long(value, out)

    return write


def _boolean(path: str) -> Write:
    def write(value: Any, out: bytearray) -> None:
        if value is not True and value is not False:
            raise _mismatch(path, "a boolean")
        out.append(value)

    return write


_PRIMITIVES: dict[str, Callable[[str], Write]] = {
    "string": _string,
    "int": lambda path: _integer(path, 32),
    "long": lambda path: _integer(path, 64),
    "boolean": _boolean,
}


def _enum(schema: dict[str, Any], path: str) -> Write:
    places: dict[str, bytearray] = {}
    for place, symbol in enumerate(schema["symbols"]):
        places[symbol] = bytearray()
        _put_long(place, places[symbol])

    def write(value: Any, out: bytearray) -> None:
        if not isinstance(value, str) or value not in places:
            raise _mismatch(path, f"a symbol of {schema['name']}")
        out += places[value]

    return write


def _nullable(branches: list[Any], path: str, named: dict[str, Write]) -> Write:
    if len(branches) != 2 or branches[0] != "null":
        raise ValueError(f"{path}: no writer for this union")
    inner = _writer(branches[1], path, named)

    def write(value: Any, out: bytearray) -> None:
        if value is None:
            out.append(0)
        else:
            out.append(2)
            inner(value, out)

    return write


def _array(element: Write, path: str) -> Write:
    def write(value: Any, out: bytearray) -> None:
        if not isinstance(value, (list, tuple)):
            raise _mismatch(path, "an array")
        if value:
            _put_long(len(value), out)
            for part in value:
                element(part, out)
        out.append(0)

    return write


def _map(inner: Write, path: str) -> Write:
    key = _string(f"{path}{{}}")

    def write(value: Any, out: bytearray) -> None:
        if not isinstance(value, dict):
            raise _mismatch(path, "a map")
        if value:
            _put_long(len(value), out)
            for name, part in value.items():
                key(name, out)
                inner(part, out)
        out.append(0)

    return write


def _record(schema: dict[str, Any], path: str, named: dict[str, Write]) -> Write:
    fields = []
    for field in schema["fields"]:
        inner = f"{path}.{field['name']}" if path else field["name"]
        write_field = _writer(field["type"], inner, named)
        default = None
        if "default" in field:
            default = bytearray()
            write_field(field["default"], default)
        fields.append((field["name"], write_field, default, inner))

    def write(value: Any, out: bytearray) -> None:
        if not isinstance(value, dict):
            raise _mismatch(path, "a record")
        present = 0
        get = value.get
        for name, write_field, default, inner in fields:
            part = get(name, _ABSENT)
            if part is not _ABSENT:
                present += 1
                write_field(part, out)
            elif default is not None:
                out += default
            else:
                raise ValueError(f"{inner}: missing")
        if present != len(value):
            raise _mismatch(path, "without keys that are no fields")

    return write
