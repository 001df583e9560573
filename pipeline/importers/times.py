"""Times as vendors write them, in microseconds since 1970-01-01 UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# A space or T; a fraction of up to nine digits; no zone means UTC. Some records lack the point
# before a fraction of zeros ("00:00:00000000").
_CALENDAR = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9})|0*) ?(Z|[+-]\d\d:?\d\d)?"
)
_LAST_MS = 9_214_646_400_000  # 2261-12-31: what every store can hold


def to_micros(value: Any) -> int | None:
    """The time that ``value`` means; None if it means none (absent, ``redacted``, out of range).

    Integers, also as text, are milliseconds since 1970; nanoseconds are cut to microseconds.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 14:
        value = int(value)
    if isinstance(value, int):
        return value * 1000 if 0 <= value <= _LAST_MS else None
    return _from_calendar(value) if isinstance(value, str) else None


def _from_calendar(text: str) -> int | None:
    match = _CALENDAR.fullmatch(text.strip())
    if match is None:
        return None
    *parts, fraction, zone = match.groups()
    try:
        moment = datetime(*(int(part) for part in parts), tzinfo=_zone(zone))  # type: ignore[misc, arg-type]
    except ValueError:
        return None
    micros = (moment - _EPOCH) // _MICROSECOND + int((fraction or "")[:6].ljust(6, "0"))
    return micros if 0 <= micros <= _LAST_MS * 1000 else None


def _zone(text: str | None) -> timezone:
    if text is None or text == "Z":
        return UTC
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
