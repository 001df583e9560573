"""The quick way of ``codec``: one function per family, generated from its schema.

It writes events that are plainly right and gives up on all others, which the careful way then judges;
so it decides nothing by itself, and both write the same bytes [measured: half the time]. Source of the
code: schemas of this package only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from audit_sdk.contract import Contract, Family

# Writes an event's body; raises ``Unusual`` (or what an odd type raises) and leaves rubbish behind.
Fast = Callable[[Any, bytearray], None]

_RUN: Final = 6  # fields that are looked for at once
_LAST_US: Final = 9_214_646_400_000_000  # the stores' times end before the year 2262


class Unusual(Exception):
    """Not plainly right: the careful way decides."""


# What an event that is not plain may raise, or its types.
ODD: Final = (Unusual, TypeError, AttributeError, UnicodeError)


def whole_bounds(bits: int, logical: str | None) -> tuple[int, int]:
    """The least and the largest whole number of a type; times end where the stores' do."""
    if logical == "timestamp-micros":
        return 0, _LAST_US
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def compile_fast(
    family: Family,
    known: Contract,
    *,
    put_long: Callable[[int, bytearray], None],
    control: re.Pattern[str],
    uuid: re.Pattern[str],
    nil_uuid: str,
    default_of: Callable[[Any, Any], bytes],
) -> Fast:
    """The function for a family; ``default_of`` encodes a value of a type, as the careful way does."""
    constants: dict[str, Any] = {
        "A": object(), "U": Unusual, "P": put_long, "C": control.search, "I": uuid.fullmatch,
        "NIL": nil_uuid,
    }  # fmt: skip
    source = _Source(family, known, constants, default_of)
    source.event()
    namespace: dict[str, Any] = constants
    exec(compile("\n".join(source.lines), f"<audit_sdk {family.name}>", "exec"), namespace)  # noqa: S102
    made: Fast = namespace["fast"]
    return made


def _runs(fields: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Fields in order; those with a default together, up to ``_RUN``; the others each alone."""
    run: list[Mapping[str, Any]] = []
    for field in fields:
        if "default" not in field or len(run) == _RUN:
            if run:
                yield run
            run = []
        if "default" in field:
            run.append(field)
        else:
            yield [field]
    if run:
        yield run


class _Source:
    """Lines of the function. ``e`` is the event, ``o`` the buffer; each record has names of its own."""

    def __init__(
        self,
        family: Family,
        known: Contract,
        constants: dict[str, Any],
        default_of: Callable[[Any, Any], bytes],
    ) -> None:
        self._family = family
        self._limits = known.limits
        self._patterns = known.patterns
        self._constants = constants
        self._default_of = default_of
        self._named: dict[str, Mapping[str, Any]] = {}
        self._count = 0
        self.lines = ["def fast(e, o):"]

    def event(self) -> None:
        """The whole body of the function."""
        self._record(self._family.schema, "", "e", 1)

    def _say(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def _constant(self, stem: str, value: Any) -> str:
        name = self._name(stem)
        self._constants[name] = value
        return name

    def _record(self, schema: Mapping[str, Any], path: str, name: str, depth: int) -> None:
        say, get, count = self._say, self._name("g"), self._name("n")
        say(depth, f"if {name}.__class__ is not dict: raise U")
        say(depth, f"{get} = {name}.get; {count} = 0")
        for run in _runs(schema["fields"]):
            self._fields(run, path, name, depth, (get, count))
        say(depth, f"if {count} != len({name}): raise U")

    def _fields(
        self,
        fields: Sequence[Mapping[str, Any]],
        path: str,
        name: str,
        depth: int,
        counted: tuple[str, str],
    ) -> None:
        """Fields that follow each other; where all have a default, most events have none of them."""
        say, (get, count) = self._say, counted
        if len(fields) > 1:
            names = self._constant("F", frozenset(field["name"] for field in fields))
            defaults = [self._default_of(field["type"], field["default"]) for field in fields]
            joined = self._constant("D", b"".join(defaults))
            say(depth, f"if {names}.isdisjoint({name}): o += {joined}")
            say(depth, "else:")
            depth += 1
        for field in fields:
            where = f"{path}.{field['name']}" if path else field["name"]
            value = self._name("v")
            say(depth, f"{value} = {get}({field['name']!r}, A)")
            say(depth, f"if {value} is A:")
            if "default" in field:
                default = self._constant("D", self._default_of(field["type"], field["default"]))
                say(depth + 1, f"o += {default}")
            else:
                say(depth + 1, "raise U")
            say(depth, "else:")
            say(depth + 1, f"{count} += 1")
            self._value(field["type"], where, value, depth + 1)

    def _value(self, schema: Any, path: str, name: str, depth: int) -> None:
        if isinstance(schema, list):
            null_at = schema.index("null")
            ((at, inner),) = [(at, one) for at, one in enumerate(schema) if one != "null"]
            self._say(depth, f"if {name} is None: o.append({2 * null_at})")
            self._say(depth, "else:")
            self._say(depth + 1, f"o.append({2 * at})")
            self._value(inner, path, name, depth + 1)
            return
        if isinstance(schema, str):
            schema = self._named.get(schema.rpartition(".")[2], {"type": schema})
        kind = schema["type"]
        if "name" in schema:
            self._named[schema["name"]] = schema
        write = {
            "record": self._record, "array": self._array, "map": self._map, "enum": self._enum,
            "string": self._string, "boolean": self._boolean, "int": self._whole, "long": self._whole,
        }[kind]  # fmt: skip
        write(schema, path, name, depth)

    def _array(self, schema: Mapping[str, Any], path: str, name: str, depth: int) -> None:
        limit = self._limits.changes if path == "changes" else self._limits.items
        item = self._name("i")
        self._say(depth, f"if {name}.__class__ is not list or len({name}) > {limit}: raise U")
        self._say(depth, f"if {name}:")
        self._say(depth + 1, f"P(len({name}), o)")
        self._say(depth + 1, f"for {item} in {name}:")
        self._value(schema["items"], f"{path}.*", item, depth + 2)
        self._say(depth, "o.append(0)")

    def _map(self, _schema: Mapping[str, Any], _path: str, name: str, depth: int) -> None:
        # Python orders text by code points, which is the order of UTF-8 bytes.
        limits, key, value = self._limits, self._name("k"), self._name("x")
        say = self._say
        say(depth, f"if {name}.__class__ is not dict or len({name}) > {limits.items}: raise U")
        say(depth, f"if {name}:")
        say(depth + 1, f"P(len({name}), o)")
        say(depth + 1, f"for {key} in sorted({name}):")
        say(depth + 2, f"{value} = {name}[{key}]")
        for text, least, most in (
            (key, 1, limits.label_key_bytes),
            (value, 0, limits.label_value_bytes),
        ):
            say(depth + 2, f"if {text}.__class__ is not str or not {text}.isprintable(): raise U")
            say(depth + 2, f"b = {text}.encode(); l = len(b)")
            say(depth + 2, f"if not {least} <= l <= {most}: raise U")
            say(depth + 2, "if l < 64: o.append(l + l)")
            say(depth + 2, "else: P(l, o)")
            say(depth + 2, "o += b")
        say(depth, "o.append(0)")

    def _enum(self, schema: Mapping[str, Any], _path: str, name: str, depth: int) -> None:
        codes = {}
        for number, symbol in enumerate(schema["symbols"]):
            codes[symbol] = self._default_of("int", number)
        code = self._constant("E", codes)
        self._say(depth, f"if {name}.__class__ is not str or {name} not in {code}: raise U")
        self._say(depth, f"o += {code}[{name}]")

    def _string(self, schema: Mapping[str, Any], path: str, name: str, depth: int) -> None:
        say = self._say
        if schema.get("logicalType") == "uuid":
            say(depth, f"if {name}.__class__ is not str or not I({name}) or {name} == NIL: raise U")
            say(depth, f"o.append(72); o += {name}.encode()")
            return
        most = self._limits.text_chars
        say(depth, f"if {name}.__class__ is not str or not 0 < len({name}) <= {most}: raise U")
        if path in self._patterns:
            pattern = self._constant("M", re.compile(self._patterns[path]).fullmatch)
            say(depth, f"if not {pattern}({name}): raise U")
        else:
            say(depth, f"if not {name}.isprintable() and C({name}): raise U")
        say(depth, f"b = {name}.encode(); l = len(b)")
        say(depth, "if l < 64: o.append(l + l)")
        say(depth, "else: P(l, o)")
        say(depth, "o += b")

    def _boolean(self, _schema: Mapping[str, Any], _path: str, name: str, depth: int) -> None:
        self._say(depth, f"if {name} is True: o.append(1)")
        self._say(depth, f"elif {name} is False: o.append(0)")
        self._say(depth, "else: raise U")

    def _whole(self, schema: Mapping[str, Any], _path: str, name: str, depth: int) -> None:
        least, most = whole_bounds(32 if schema["type"] == "int" else 64, schema.get("logicalType"))
        self._say(
            depth, f"if {name}.__class__ is not int or not {least} <= {name} <= {most}: raise U"
        )
        self._say(depth, f"P({name}, o)")
