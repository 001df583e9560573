"""Rows for COPY (FORMAT BINARY), packed by hand: a whole batch as one bytes object per table.

Guarantees what the server's receive functions expect: network byte order, each value behind its
length, times as microseconds since 2000-01-01. The driver's own row writer costs about three
times as much CPU per event, text lines one and a half times (tests/bench/ledger_bench.py).
Source: PostgreSQL documentation, COPY, "Binary Format".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pipeline.domain.records import SealedEvent
from pipeline.native import native, runs

POSTGRES_EPOCH_US = 946_684_800_000_000  # 2000-01-01 00:00 UTC

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"

COPY_LEAVES = (
    "COPY leaves (leaf_index, occurred_at, log_id, event_id, leaf_hash) FROM STDIN (FORMAT BINARY)"
)
COPY_EVENTS = (
    "COPY audit_logs (leaf_index, source_offset, occurred_at, stored_at, broker_timestamp,"
    " event_id, log_id, schema_id, late, imported, actor_ref,"
    " family, tenant, action, outcome, severity, actor_type, event) FROM STDIN (FORMAT BINARY)"
)
COPY_BLOBS = (
    "COPY audit_blobs (leaf_index, occurred_at, subject_ref, log_id, nonce, ciphertext)"
    " FROM STDIN (FORMAT BINARY)"
)

_LEAF = struct.Struct("!h iq iq ii i16s i32s").pack
_EVENT = struct.Struct("!h iq iq iq iq iq i16s ii ii i? i?").pack
_BLOB = struct.Struct("!h iq iq i16s ii i12s i").pack
_LENGTH = struct.Struct("!i").pack
_NULL = _LENGTH(-1)
_UUID_LENGTH = _LENGTH(16)

# Few distinct combinations of family, tenant, action, ... make up a log: each is packed once.
_TEXTS_MAX = 4096


class RowPacker:
    """Packs events into rows; remembers the packed form of texts that return.

    ``late_after_s``: an event stored so long after it occurred is marked late.
    """

    def __init__(self, *, late_after_s: int) -> None:
        self._late_after_us = late_after_s * 1_000_000
        self._texts: dict[tuple[str, ...], bytes] = {}

    def events(
        self, log_id: int, first_leaf: int, events: Sequence[SealedEvent], stored_at_us: int | None
    ) -> list[bytes]:
        """Pieces of rows of ``audit_logs``; without a time, each event keeps its own."""
        pieces: list[bytes] = []
        for at, compiled, run in runs(events):
            first = first_leaf + at
            if compiled:
                late_us = self._late_after_us
                pieces.append(native.event_rows(run, log_id, first, stored_at_us, late_us))
            else:
                pieces += self._events(log_id, first, run, stored_at_us)
        return pieces

    def _events(
        self, log_id: int, first_leaf: int, events: Sequence[SealedEvent], stored_at_us: int | None
    ) -> list[bytes]:
        pieces: list[bytes] = []
        epoch, late_after_us, texts = POSTGRES_EPOCH_US, self._late_after_us, self._texts
        leaf = first_leaf
        for event in events:
            clear = event.clear
            occurred_us = event.occurred_at_us
            stored_us = event.stored_at_us if stored_at_us is None else stored_at_us
            key = (
                event.family,
                clear["tenant"],
                clear["action"],
                clear["outcome"],
                clear["severity"],
                clear["actor.type"],
            )
            packed = texts.get(key) or self._pack_texts(key)
            actor_ref = event.actor_ref
            canonical = event.canonical
            pieces += (
                _EVENT(
                    18,
                    8, leaf,
                    8, event.offset,
                    8, occurred_us - epoch,
                    8, stored_us - epoch,
                    8, event.broker_timestamp_ms * 1000 - epoch,
                    16, event.event_id,
                    4, log_id,
                    4, event.schema_id,
                    1, stored_us - occurred_us > late_after_us,
                    1, clear.get("imported", False),
                ),
                _NULL if actor_ref is None else _UUID_LENGTH + actor_ref,
                packed,
                _LENGTH(len(canonical)),
                canonical,
            )  # fmt: skip
            leaf += 1
        return pieces

    def _pack_texts(self, texts: tuple[str, ...]) -> bytes:
        packed = b"".join([_LENGTH(len(text)) + text for text in map(str.encode, texts)])
        if len(self._texts) >= _TEXTS_MAX:
            self._texts.clear()
        self._texts[texts] = packed
        return packed


def leaves(log_id: int, first_leaf: int, events: Sequence[SealedEvent]) -> list[bytes]:
    """Pieces of rows of ``leaves``."""
    pieces: list[bytes] = []
    for at, compiled, run in runs(events):
        if compiled:
            pieces.append(native.leaf_rows(run, log_id, first_leaf + at))
        else:
            pieces += _leaves(log_id, first_leaf + at, run)
    return pieces


def _leaves(log_id: int, first_leaf: int, events: Sequence[SealedEvent]) -> list[bytes]:
    epoch = POSTGRES_EPOCH_US
    return [
        _LEAF(
            5, 8, leaf, 8, event.occurred_at_us - epoch, 4, log_id, 16, event.event_id,
            32, event.leaf_hash,
        )
        for leaf, event in enumerate(events, first_leaf)
    ]  # fmt: skip


def blobs(log_id: int, first_leaf: int, events: Sequence[SealedEvent]) -> list[bytes]:
    """Pieces of rows of ``audit_blobs``."""
    pieces: list[bytes] = []
    for at, compiled, run in runs(events):
        if compiled:
            pieces.append(native.blob_rows(run, log_id, first_leaf + at))
        else:
            pieces += _blobs(log_id, first_leaf + at, run)
    return pieces


def _blobs(log_id: int, first_leaf: int, events: Sequence[SealedEvent]) -> list[bytes]:
    pieces: list[bytes] = []
    leaf = first_leaf
    for event in events:
        occurred = event.occurred_at_us - POSTGRES_EPOCH_US
        for subject_ref, nonce, ciphertext in event.blobs:
            pieces += (
                _BLOB(
                    6, 8, leaf, 8, occurred, 16, subject_ref, 4, log_id, 12, nonce, len(ciphertext)
                ),
                ciphertext,
            )
        leaf += 1
    return pieces


def stream(pieces: Sequence[bytes]) -> bytes:
    """A complete COPY stream over the pieces."""
    return b"".join((HEADER, *pieces, TRAILER))
