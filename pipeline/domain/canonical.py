r"""Canonical JSON: one byte sequence for one value, the form that is hashed and stored.

UTF-8, keys sorted by code point, no white space; strings escape only ``"``, ``\`` and
U+0000 to U+001F (short forms where JSON has them); times are integers in microseconds; bytes
are standard base64 (RFC 4648 §4). ``RFC.md`` has worked examples. The hot path writes the same
bytes with a compiled library; a property test holds the two together.
"""

from __future__ import annotations

import json
from base64 import b64encode

Scalar = str | int | float | bool | None
Value = Scalar | bytes | list["Value"] | dict[str, "Value"]


def canonical_json(value: Value) -> bytes:
    """The canonical bytes of a value.

    Raises:
        ValueError: A float that is not a number or is infinite.
    """
    text = json.dumps(
        value,
        sort_keys=True,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
        default=_encode_bytes,
    )
    return text.encode()


def _encode_bytes(value: object) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no canonical form")


def may_hold_control(encoded: bytes) -> bool:
    """Whether canonical JSON may hold a control character; a cheap test with false alarms.

    C0 is escaped with a backslash there; DEL stands as itself; C1 begins with 0xC2 in UTF-8.
    """
    return b"\\" in encoded or b"\x7f" in encoded or b"\xc2" in encoded
