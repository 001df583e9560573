"""What the records of a batch take in memory, before any of them is made.

A record costs some 200 bytes beside its own, a header 100: a header of two bytes on the wire takes
thirty times as much, and sixteen million of them fit into a batch that inflates within its bound
[measured: 100,000 empty headers, 306 bytes compressed, took 6.4 MB]. Source: KIP-98, KIP-82.
"""

from __future__ import annotations

from pipeline.domain.errors import AuditTrailError
from sinks.ocf import read_long

RECORD_BYTES = 200
HEADER_BYTES = 100
# Below, a batch cannot take more than some tens of megabytes: not looked at, since it costs 3 µs a
# record. Producers' batches are at most so large unless they say otherwise.
LIGHT_BYTES = 1 << 20


class BatchTooLarge(AuditTrailError):
    """A record batch would take more memory than its bound."""


_BATCH_LENGTH_AT, _MAGIC_AT, _ATTRIBUTES_AT, _RECORDS_AT = 8, 16, 21, 61
_LENGTH_ENDS = 12
_ATTRIBUTES_END = 23
_MAGIC = 2
_CODEC = 0x07
_RECORD_MIN_BYTES = 6  # one for each of its parts


def check_records(records: bytes | memoryview, limit: int) -> None:
    """``records``: those of one batch, format 2, not compressed. What is malformed is passed: the
    parser says so. A number of headers is taken at its word, since a parser looks for so many.

    Raises:
        BatchTooLarge: They would take more than ``limit`` bytes.
    """
    if len(records) <= LIGHT_BYTES:
        return
    at = total = 0
    try:
        while at < len(records):
            length, at = read_long(records, at)
            if length < _RECORD_MIN_BYTES:
                return
            end = at + length
            total += length + RECORD_BYTES + HEADER_BYTES * _headers(records, at)
            if total > limit:
                raise BatchTooLarge(f"would take more than {limit} bytes of memory")
            at = end
    except IndexError:
        return


def first_heavy(fetched: bytes, limit: int) -> int | None:
    """Which batch of a fetch, counted from 0, is uncompressed and would take more than ``limit``."""
    if len(fetched) <= LIGHT_BYTES:
        return None
    view, at, number = memoryview(fetched), 0, 0
    while at + _RECORDS_AT <= len(view) and view[at + _MAGIC_AT] == _MAGIC:
        length = int.from_bytes(view[at + _BATCH_LENGTH_AT : at + _LENGTH_ENDS], "big")
        end = at + _LENGTH_ENDS + length
        if not int.from_bytes(view[at + _ATTRIBUTES_AT : at + _ATTRIBUTES_END], "big") & _CODEC:
            try:
                check_records(view[at + _RECORDS_AT : end], limit)
            except BatchTooLarge:
                return number
        at, number = end, number + 1
    return None


def _headers(records: bytes | memoryview, at: int) -> int:
    """How many headers a record has, that begins (after its length) at ``at``."""
    at += 1  # attributes
    for _delta in ("timestamp", "offset"):
        _, at = read_long(records, at)
    for _part in ("key", "value"):
        length, at = read_long(records, at)
        at += max(length, 0)
    return max(read_long(records, at)[0], 0)
