"""Writers of single values: each writes its Avro bytes, or notes what is wrong.

Source: Avro 1.12 specification, "Binary Encoding".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from audit_sdk.errors import Problem
from audit_sdk.fast_codec import whole_bounds

Problems = list[Problem]
# (value, where it is, buffer, problems)
Write = Callable[[Any, bytearray, Problems], None]

ABSENT: Final = object()
# C0 except tab, line feed and carriage return; DEL; C1 with U+0085.
CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
UUID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
NIL_UUID: Final = "00000000-0000-0000-0000-000000000000"


def enum(symbols: list[str], path: str) -> Write:
    codes = {}
    for number, symbol in enumerate(symbols):
        code = bytearray()
        put_long(number, code)
        codes[symbol] = bytes(code)
    known = ", ".join(symbols)

    def write(value: Any, out: bytearray, problems: Problems) -> None:
        code = codes.get(value) if isinstance(value, str) else None
        if code is None:
            problems.append(Problem(path, "symbol", f"must be one of {known}"))
        else:
            out += code

    return write


def boolean(path: str) -> Write:
    def write(value: Any, out: bytearray, problems: Problems) -> None:
        if value is True or value is False:
            out.append(1 if value else 0)
        else:
            problems.append(Problem(path, "type", "must be true or false"))

    return write


def whole(path: str, bits: int, logical: str | None) -> Write:
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
            put_long(value, out)

    return write


def uuid(path: str) -> Write:
    def write(value: Any, out: bytearray, problems: Problems) -> None:
        if type(value) is not str:
            problems.append(Problem(path, "type", "must be text"))
        elif not UUID.fullmatch(value) or value == NIL_UUID:
            problems.append(Problem(path, "uuid", "must be a UUID, and not the nil one"))
        else:
            out.append(72)
            out += value.encode()

    return write


def put_text(text: str, path: str, out: bytearray, problems: Problems) -> None:
    """The length in bytes, then UTF-8; what no store takes is a problem."""
    if not text.isprintable():
        if CONTROL.search(text):
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
        put_long(length, out)
    out += octets


def put_long(value: int, out: bytearray) -> None:
    """Zigzag, then seven bits at a time, the lowest first."""
    rest = (value << 1) ^ (value >> 63)
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
