"""What Avro cannot state: ids, tenants, times, characters, and who may import.

Time is compared with the record's broker timestamp, never with the wall clock, so that a record
that is read again is judged alike.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pipeline.domain.errors import InvalidRecord, Reason
from pipeline.domain.records import Record

IMPORT_HEADER = "audit-import-token"
_NIL = bytes(16)
# C0 except tab, line feed and carriage return; DEL; C1 with U+0085, which some viewers take for a
# line's end (OWASP ASVS 16.4.1).
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SECOND_US = 1_000_000
_DAY_US = 86_400 * _SECOND_US
# PostgreSQL and date_nanos both end before the year 2262; nothing older than 1970 is imported.
_LAST_US = 9_214_646_400 * _SECOND_US


@dataclass(frozen=True, slots=True)
class Horizon:
    """How far ``occurred_at`` may lie from the broker's time."""

    future_us: int
    retention_us: int
    import_retention_us: int

    @classmethod
    def of(cls, *, future_s: int, retention_days: int, import_retention_days: int) -> Horizon:
        """From settings in seconds and days."""
        return cls(future_s * _SECOND_US, retention_days * _DAY_US, import_retention_days * _DAY_US)


def event_id(text: str) -> bytes:
    """The 16 bytes of a UUID in its usual form.

    Raises:
        InvalidRecord: It is not one, or it is the nil UUID.
    """
    if len(text) != 36 or text[8:24:5] != "----":
        raise InvalidRecord(Reason.EVENT_ID_INVALID, "event_id: not a UUID")
    try:
        octets = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        octets = b""
    if len(octets) != 16:  # another dash, or white space, which ``fromhex`` passes over
        raise InvalidRecord(Reason.EVENT_ID_INVALID, "event_id: not a UUID")
    if octets == _NIL:
        raise InvalidRecord(Reason.EVENT_ID_INVALID, "event_id: the nil UUID")
    return octets


def check_time(occurred_at_us: int, broker_us: int, horizon: Horizon, *, imported: bool) -> None:
    """Not ahead of the broker's time past the tolerance, not behind it past the retention."""
    if occurred_at_us > broker_us + horizon.future_us or occurred_at_us > _LAST_US:
        raise InvalidRecord(Reason.IN_FUTURE, "occurred_at: ahead of the broker's time")
    floor_us = horizon.import_retention_us if imported else horizon.retention_us
    if occurred_at_us < broker_us - floor_us or occurred_at_us < 0:
        raise InvalidRecord(Reason.EXPIRED, "occurred_at: before the retention floor")


def import_token(key: bytes, value: bytes) -> bytes:
    """What an importing principal puts into the header ``audit-import-token``: HMAC-SHA-256, hex."""
    return hmac.new(key, value, sha256).hexdigest().encode()


def check_import(record: Record, key: bytes | None) -> None:
    """``imported`` is set: only a holder of the import key may do that (Kafka hides principals)."""
    given = next((value for name, value in record.headers if name == IMPORT_HEADER), b"")
    if key is None or record.value is None:
        raise InvalidRecord(Reason.IMPORT_NOT_AUTHORISED, "imported: no import key is set")
    if not hmac.compare_digest(given, import_token(key, record.value)):
        raise InvalidRecord(Reason.IMPORT_NOT_AUTHORISED, "imported: no valid token")


def check_characters(*maps: Mapping[str, Any]) -> None:
    """No control characters in any text, key or value."""
    for flat in maps:
        for path, value in flat.items():
            for text in _texts(value):
                if _CONTROL.search(text):
                    raise InvalidRecord(Reason.CONTROL_CHARACTER, path)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(key)
            yield from _texts(part)
