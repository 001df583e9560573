"""The files of a spool, segments of records: length and CRC-32 of the rest (4 bytes each, big endian),
then family, key and Avro body with their lengths before them. A record that a crash cut is the last one
and is not read.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

_HEAD: Final = Struct(">II")
_LENGTHS: Final = Struct(">BH")
SEGMENT_BYTES: Final = 4 * 1024 * 1024
RECOVERED: Final = "-recovered.seg"  # how the name of a segment ends that was taken over


@dataclass(frozen=True, slots=True)
class Spooled:
    """One record, and where it stands."""

    family: str
    key: bytes
    body: bytes
    segment: Segment
    start: int
    end: int


@dataclass(slots=True, eq=False)
class Segment:
    """One file: how many of its records are appended and how many the broker has."""

    path: Path
    size: int = 0  # of its whole records, in bytes
    records: int = 0
    delivered: int = 0
    sealed: bool = False  # nothing more is appended
    recovered: bool = False  # of a process that is gone

    @property
    def done(self) -> bool:
        return self.sealed and self.delivered == self.records


def packed(family: str, key: bytes, body: bytes) -> bytes:
    """A record as it is written."""
    rest = _LENGTHS.pack(len(family), len(key)) + family.encode() + key + body
    return _HEAD.pack(len(rest), zlib.crc32(rest)) + rest


def records(segment: Segment, start: int) -> Iterator[Spooled]:
    """Whole and undamaged records from an offset on; the first that is not ends it."""
    with segment.path.open("rb") as file:
        file.seek(start)
        at = start
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            size, crc = _HEAD.unpack(head)
            rest = file.read(size)
            if len(rest) < size or zlib.crc32(rest) != crc or size < _LENGTHS.size:
                return
            begin, at = at, at + _HEAD.size + size
            of_family, of_key = _LENGTHS.unpack_from(rest)
            key_at = _LENGTHS.size + of_family
            yield Spooled(
                rest[_LENGTHS.size : key_at].decode(),
                rest[key_at : key_at + of_key],
                rest[key_at + of_key :],
                segment,
                begin,
                at,
            )


def left_in(folder: Path) -> list[Path]:
    """The segments of a process that is gone, oldest first: what it took over is older than its own."""
    return sorted(
        folder.glob("*.seg"), key=lambda one: (not one.name.endswith(RECOVERED), one.name)
    )


def judge(path: Path) -> Segment:
    """A segment of a process that is gone: how many whole records it has, and where they end."""
    segment = Segment(path, sealed=True, recovered=True)
    for record in records(segment, 0):
        segment.records, segment.size = segment.records + 1, record.end
    return segment


def is_damaged(segment: Segment) -> bool:
    """Whether something follows its last whole record that is not one which a crash cut."""
    with segment.path.open("rb") as file:
        file.seek(segment.size)
        rest = file.read()
    if len(rest) < _HEAD.size:
        return False
    size: int = _HEAD.unpack_from(rest)[0]
    return len(rest) - _HEAD.size >= size


def set_aside(segment: Segment, copy: Path) -> None:
    """Keep a damaged segment for a person and cut it after its last whole record: the next process finds
    it whole, so that there is one copy.
    """
    file = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "wb") as out:
        out.write(segment.path.read_bytes())
    os.truncate(segment.path, segment.size)
