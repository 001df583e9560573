"""Records that the pipeline refused, read as far as their bytes go: whom they name, and nothing else.

A letter may be cut off, beyond every limit, or made to exhaust its reader (a body of six bytes can declare
200 million items of no width). Time and memory are bounded by the body's length and ``ITEMS_MAX``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from pipeline.codec.avro_reader import raw_varint, read_fixed, read_length, read_long
from pipeline.codec.types import Node
from pipeline.domain.errors import InvalidRecord

ITEMS_MAX: Final = 100_000  # that a body declares, of any width
_WIDTHS: Final = {"null": 0, "boolean": 1, "float": 4, "double": 8}


class _End(Exception):
    """Beyond here nothing can be told."""


def texts_of_records(body: bytes, root: Node) -> list[dict[str, str]]:
    """The text fields of every record in a body, by name, inner records first; of one that is cut off,
    what came before. Bytes that are no UTF-8 become U+FFFD.
    """
    reader = _Reader(body)
    with suppress(_End, IndexError, InvalidRecord):  # whatever was read until there stands
        reader.read(root)
    return reader.records


class _Reader:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._items = 0
        self.records: list[dict[str, str]] = []

    def read(self, node: Node) -> str | None:
        """Go past a value; it, if it is text."""
        kind = node.kind
        if kind == "record":
            self._record(node)
        elif kind in ("array", "map"):
            self._blocks(node)
        elif kind == "union":
            return self.read(node.items[self._number_of(len(node.items))])
        elif kind == "string":
            return self._octets().decode(errors="replace")
        elif kind == "enum":
            return node.symbols[self._number_of(len(node.symbols))]
        elif kind == "bytes":
            self._octets()
        elif kind in ("int", "long"):
            _number, self._at = raw_varint(self._body, self._at)
        else:
            width = node.size if kind == "fixed" else _WIDTHS[kind]
            _value, self._at = read_fixed(self._body, self._at, width)
        return None

    def _record(self, node: Node) -> None:
        texts: dict[str, str] = {}
        try:
            for name, child, _mark in node.fields:
                text = self.read(child)
                if text is not None:
                    texts[name] = text
        finally:
            self.records.append(texts)

    def _blocks(self, node: Node) -> None:
        [child] = node.items
        while True:
            count, self._at = read_long(self._body, self._at)
            if count < 0:  # the block's size in bytes follows
                _size, self._at = read_long(self._body, self._at)
            if count == 0:
                return
            for _ in range(abs(count)):
                self._items += 1
                if self._items > ITEMS_MAX:
                    raise _End
                if node.kind == "map":
                    self._octets()
                self.read(child)

    def _number_of(self, choices: int) -> int:
        number, self._at = read_long(self._body, self._at)
        if not 0 <= number < choices:
            raise _End
        return number

    def _octets(self) -> bytes:
        length, at = read_length(self._body, self._at)
        self._at = at + length
        return self._body[at : self._at]
