"""The source of a decoder, value by value: the usual form of each in line, the rest by calls.

The usual form is the shortest encoding in one byte of length, number or branch; whatever else the
Avro specification allows goes through ``avro_reader``, with the same bounds and the same refusals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.codec.limits import Limits
from pipeline.codec.types import Node

_ONE_BYTE_LENGTH = 63  # the longest string, and the most items, that one byte declares


class Scope:
    """Where the code being written stands: its function's lines, indent, paths and owner."""

    __slots__ = ("indent", "lines", "party", "paths", "pattern", "prefix")

    def __init__(self, *, pattern: str, paths: list[str] | None, party: str | None) -> None:
        self.lines: list[str] = []
        self.indent = 1
        self.pattern = pattern  # of the record at hand, with * for an index
        self.prefix = ""  # of the record at hand, below the function's own prefix
        self.paths = paths  # of an array element's leaves; None where paths are static
        self.party = party  # the variable that holds the party's sealed values

    def put(self, line: str) -> None:
        self.lines.append("    " * self.indent + line)


class ValueSource:
    """Writes the code that reads one value to ``v``, a variable or an item of a map.

    In that code ``b`` is the bytes, ``p`` the position; ``n``, ``s`` and ``e`` hold nothing from
    one value to the next.
    """

    def __init__(self, limits: Limits) -> None:
        self.constants: dict[str, Any] = {}
        self._limits = limits
        self._count = 0

    def _value(self, scope: Scope, node: Node, v: str) -> None:
        writer = getattr(self, f"_value_{node.kind}", None)
        if writer is not None:
            writer(scope, node, v)
            return
        where, limits = repr(scope.pattern), self._limits
        call = {
            "bytes": f"read_bytes(b, p, {where}, {limits.text_chars})",
            "fixed": f"read_fixed(b, p, {node.size})",
            "float": f"read_real(b, p, {where}, '<f', 4)",
            "double": f"read_real(b, p, {where}, '<d', 8)",
        }[node.kind]
        scope.put(f"n, p = {call}")
        scope.put(f"{v} = b64(n)" if node.kind in ("bytes", "fixed") else f"{v} = n")

    def _value_null(self, scope: Scope, _node: Node, v: str) -> None:
        scope.put(f"{v} = None")

    def _value_boolean(self, scope: Scope, _node: Node, v: str) -> None:
        scope.put("n = b[p]; p += 1")
        scope.put("if n > 1: fail(MALFORMED, 'a boolean that is neither 0 nor 1')")
        scope.put(f"{v} = n == 1")

    def _value_int(self, scope: Scope, _node: Node, v: str) -> None:
        self._number(scope, "read_int", v)

    def _value_long(self, scope: Scope, _node: Node, v: str) -> None:
        self._number(scope, "read_long", v)

    @staticmethod
    def _number(scope: Scope, reader: str, v: str) -> None:
        scope.put("n = SMALL[b[p]]")
        scope.put(f"if n is None: n, p = {reader}(b, p)")
        scope.put("else: p += 1")
        scope.put(f"{v} = n")

    def _value_string(self, scope: Scope, _node: Node, v: str) -> None:
        """Running past the end gives a short slice in line, which is found by the next read, or by
        the check after the last.
        """
        most = self._limits.text_chars
        call = f"{v}, p = read_text(b, p, {scope.pattern!r}, {most})"
        if most < _ONE_BYTE_LENGTH:
            scope.put(call)
            return
        scope.put("s = SPANS[b[p]]")
        scope.put(f"if s: e = p + s; {v} = b[p + 1:e].decode(); p = e")
        scope.put(f"else: {call}")

    @staticmethod
    def _short_text(scope: Scope, most: int, v: str) -> None:
        """Of a map: its end is checked here, so that no key is cut short and then found twice."""
        call = f"{v}, p = read_short_text(b, p, {scope.pattern!r}, {most})"
        if most < _ONE_BYTE_LENGTH:
            scope.put(call)
            return
        scope.put("s = SPANS[b[p]]; e = p + s")
        scope.put(f"if s and e <= len(b): {v} = b[p + 1:e].decode(); p = e")
        scope.put(f"else: {call}")

    def _is_null_or_text(self, node: Node) -> bool:
        """``["null", "string"]``, what most fields are, under a limit that one byte reaches."""
        kinds = [item.kind for item in node.items]
        most = self._limits.text_chars
        return node.kind == "union" and kinds == ["null", "string"] and most >= _ONE_BYTE_LENGTH

    def _null_or_text(self, scope: Scope, text: Node, v: str) -> None:
        """Read such a value; null writes nothing."""
        most, where = self._limits.text_chars, repr(scope.pattern)
        scope.put("n = b[p]")
        scope.put("if not n: p += 1")
        scope.put("elif n == 2:")
        scope.put("    s = SPANS[b[p + 1]]")
        scope.put(f"    if s: e = p + 1 + s; {v} = b[p + 2:e].decode(); p = e")
        scope.put(f"    else: {v}, p = read_text(b, p + 1, {where}, {most})")
        scope.put("else:")
        scope.put("    n, p = raw_varint(b, p)")
        scope.put("    if n == 2:")
        scope.indent += 2
        self._value_string(scope, text, v)
        scope.indent -= 2
        scope.put(f"    elif n: fail(MALFORMED, {scope.pattern + ': no such branch'!r})")

    def _value_enum(self, scope: Scope, node: Node, v: str) -> None:
        symbols, by_byte = self._name("SYMBOLS"), self._name("BY_BYTE")
        self.constants[symbols] = node.symbols
        self.constants[by_byte] = tuple(
            None if n & 1 or n > 127 or n >= 2 * len(node.symbols) else node.symbols[n >> 1]
            for n in range(256)
        )
        scope.put(f"n = {by_byte}[b[p]]")
        scope.put(f"if n is None: n, p = read_enum(b, p, {scope.pattern!r}, {symbols})")
        scope.put("else: p += 1")
        scope.put(f"{v} = n")

    def _value_record(self, scope: Scope, node: Node, v: str) -> None:
        """A record inside a map or an unusual array: one value, so a plain map of its fields."""
        scope.put(f"{v} = {{}}")
        for name, child, _declared in node.fields:
            part = self._name("v")
            self._value(scope, child, part)
            scope.put(f"if {part} is not None: {v}[{name!r}] = {part}")

    def _value_union(self, scope: Scope, node: Node, v: str) -> None:
        scope.put(f"{v} = None")
        self._branches(scope, node, lambda branch: self._value(scope, branch, v))

    def _value_array(self, scope: Scope, node: Node, v: str) -> None:
        part = self._name("v")
        scope.put(f"{v} = []")

        def item() -> None:
            self._value(scope, node.items[0], part)
            scope.put(f"{v}.append({part})")

        self._blocks(scope, item)

    def _value_map(self, scope: Scope, node: Node, v: str) -> None:
        key, part = self._name("k"), self._name("v")
        limits = self._limits
        scope.put(f"{v} = {{}}")

        def item() -> None:
            self._short_text(scope, limits.label_key_bytes, key)
            scope.put(f"if {key} in {v}: fail(MALFORMED, {scope.pattern + ': a key twice'!r})")
            if node.items[0].kind == "string":
                self._short_text(scope, limits.label_value_bytes, part)
            else:
                self._value(scope, node.items[0], part)
            scope.put(f"{v}[{key}] = {part}")

        self._blocks(scope, item)

    # --- shapes shared by fields and values ---

    def _branches(self, scope: Scope, node: Node, write: Callable[[Node], None]) -> None:
        """A union: the branch index, then the branch; a null branch writes nothing."""
        refuse = f"fail(MALFORMED, {scope.pattern + ': no such branch'!r})"
        index = self._name("u")
        scope.put(f"{index} = b[p]; p += 1")
        others = [at for at, branch in enumerate(node.items) if branch.kind != "null"]
        outer = scope.indent
        if others and node.items[0].kind == "null":  # null is what most are: one test, then on
            scope.put(f"if {index}:")
            scope.indent += 1
        scope.put(f"if {index} > 127: {index}, p = raw_varint(b, p - 1)")
        word = "if"
        for at in others:
            scope.put(f"{word} {index} == {2 * at}:")
            scope.indent += 1
            before = len(scope.lines)
            write(node.items[at])
            if len(scope.lines) == before:
                scope.put("pass")
            scope.indent -= 1
            word = "elif"
        nulls = [2 * at for at, branch in enumerate(node.items) if branch.kind == "null"]
        test = " and ".join([f"{index} != {null}" for null in nulls])
        if word == "if":
            scope.put(f"if {test or 'True'}: {refuse}")
        else:
            scope.put(f"elif {test}: {refuse}" if test else f"else: {refuse}")
        scope.indent = outer

    def _blocks(self, scope: Scope, item: Callable[[], None], before: str = "") -> None:
        """The blocks of an array or map: none, or a first one of one byte and the end, in line."""
        left, seen, end = self._name("left"), self._name("seen"), self._name("end")
        most = self._limits.items_at(scope.pattern)
        following = f"{left}, {seen}, {end}, p = next_block(b, p, {scope.pattern!r}, {most}, "
        scope.put(f"{left} = b[p]")
        scope.put(f"if not {left}: p += 1")
        scope.put("else:")
        scope.indent += 1
        if before:
            scope.put(before)
        scope.put(f"if {left} & 1 or {left} > {2 * min(most, _ONE_BYTE_LENGTH)}:")
        scope.put(f"    {following}0, -1)")
        scope.put(f"else: {left} >>= 1; {seen} = {left}; {end} = -1; p += 1")
        scope.put(f"while {left}:")
        scope.indent += 1
        item()
        scope.put(f"{left} -= 1")
        scope.put(f"if not {left}:")
        scope.put(f"    if {end} != -1 or b[p]: {following}{seen}, {end})")
        scope.put("    else: p += 1")
        scope.indent -= 2

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"
