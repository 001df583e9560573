"""The spool: events in append-only files until the broker has them, over crashes and outages.

A folder per process, in it segments of records: length and CRC-32 of the rest (4 bytes each, big
endian), then family, key and Avro body with their lengths before them. One ``write`` per record: what
was appended survives the process; a record that a crash cut is the last one and is not read. A
process holds a lock on its folder; a folder whose lock is free is of a process that is gone, and the
next one sends what is in it.
"""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

from audit_sdk.errors import AuditConfigurationError, NotAccepted

_HEAD: Final = Struct(">II")
_LENGTHS: Final = Struct(">BH")
_IN_USE_S: Final = 1.0
SEGMENT_BYTES: Final = 4 * 1024 * 1024


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
    size: int = 0
    records: int = 0
    delivered: int = 0
    sealed: bool = False
    recovered: bool = False  # of a process that is gone

    @property
    def done(self) -> bool:
        return self.sealed and self.delivered == self.records


class Spool:
    """One process's folder. Not thread-safe: the caller holds a lock."""

    def __init__(self, folder: Path, name: str, *, max_bytes: int) -> None:
        self._parent = folder
        self._folder = folder / name
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._number = 0
        self.damaged: list[Path] = []
        self._lock: int | None = self._own_folder()
        self._file = -1
        self._segment = self._next_segment()

    def append(self, family: str, key: bytes, body: bytes) -> Spooled:
        """Add a record; it survives this process on return.

        Raises:
            NotAccepted: The spool is full, or the disk is.
        """
        rest = _LENGTHS.pack(len(family), len(key)) + family.encode() + key + body
        record = _HEAD.pack(len(rest), zlib.crc32(rest)) + rest
        if self._held_bytes + len(record) > self._max_bytes:
            raise NotAccepted(f"the spool holds {self._max_bytes} bytes (spool_max_bytes)")
        if self._segment.size >= SEGMENT_BYTES:
            self._segment.sealed = True
            self._segment = self._next_segment()
        segment = self._segment
        try:
            written = os.write(self._file, record)
            if written < len(record):  # the disk is full: the cut record must not stay
                os.ftruncate(self._file, segment.size)
                raise NotAccepted("the spool's disk is full")
        except OSError as error:
            os.ftruncate(self._file, segment.size)
            raise NotAccepted(f"the spool cannot be written: {error.strerror}") from None
        segment.size += len(record)
        segment.records += 1
        self._held_bytes += len(record)
        return Spooled(family, key, body, segment, segment.size - len(record), segment.size)

    def delivered(self, spooled: Spooled) -> None:
        """The broker has a record; a segment of which it has all is removed."""
        segment = spooled.segment
        segment.delivered += 1
        if segment is self._segment and segment.delivered == segment.records:
            segment.sealed = True
            self._segment = self._next_segment()
        if segment.done:
            self._held_bytes -= segment.size
            segment.path.unlink(missing_ok=True)

    def read(self, segment: Segment, start: int, *, max_bytes: int) -> list[Spooled]:
        """Records of a segment of this process from an offset on, about ``max_bytes`` of them."""
        found, size = [], 0
        for record in _records(segment, start):
            found.append(record)
            size += len(record.body)
            if size >= max_bytes:
                break
        return found

    def recover(self) -> list[Segment]:
        """Take over the segments that processes which are gone have left, oldest first."""
        found: list[Segment] = []
        for folder in sorted(self._parent.iterdir(), key=lambda one: one.name):
            if folder == self._folder or not folder.is_dir():
                continue
            lock = _locked(folder)
            if lock is None:
                continue  # its process lives
            found += filter(None, map(self._take_over, sorted(folder.glob("*.seg"))))
            _leave(folder, lock)
        return found

    def close(self) -> None:
        """Give the folder up; it goes if it is empty, else the next process finds it."""
        os.close(self._file)
        if not self._segment.size:
            self._segment.path.unlink(missing_ok=True)
        if self._lock is not None:
            _leave(self._folder, self._lock)
            self._lock = None

    def abandon(self) -> None:
        """After a fork, in the child: the folder is the parent's."""
        os.close(self._file)
        if self._lock is not None:
            os.close(self._lock)

    def _own_folder(self) -> int:
        """Make the folder and hold its lock. A process that recovers may take it for one that is left
        behind, between the two, and remove it: then it is made again.
        """
        until = time.monotonic() + _IN_USE_S
        while True:
            try:
                self._folder.mkdir(parents=True, mode=0o700, exist_ok=True)
                lock = _locked(self._folder)
            except OSError as error:
                raise AuditConfigurationError(
                    f"spool_dir {self._parent} cannot be written: {error.strerror}"
                ) from None
            if lock is not None:
                return lock
            if time.monotonic() > until:
                raise AuditConfigurationError(f"spool folder {self._folder} is in use")
            time.sleep(0.01)

    def _take_over(self, path: Path) -> Segment | None:
        """Move a segment into this folder, so that its records are this process's to deliver. One
        that is damaged is kept beside the folders as well: a person may look at it.
        """
        self._number += 1
        mine = Segment(
            self._folder / f"{self._number:08}-recovered.seg", sealed=True, recovered=True
        )
        path.rename(mine.path)
        mine.size = mine.path.stat().st_size
        whole = 0
        for record in _records(mine, 0):
            mine.records, whole = mine.records + 1, record.end
        if whole < mine.size and not _is_cut(mine.path, whole):
            kept = self._parent / f"{self._folder.name}-{mine.path.stem}.damaged"
            kept.write_bytes(mine.path.read_bytes())
            self.damaged.append(kept)
        if not mine.records:
            mine.path.unlink()
            return None
        self._held_bytes += mine.size
        return mine

    def _next_segment(self) -> Segment:
        if self._file >= 0:
            os.close(self._file)
        self._number += 1
        path = self._folder / f"{self._number:08}.seg"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o600)
        return Segment(path)


def _records(segment: Segment, start: int) -> Iterator[Spooled]:
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


def _is_cut(path: Path, at: int) -> bool:
    """Whether what follows a segment's last whole record is one that a crash cut."""
    with path.open("rb") as file:
        file.seek(at)
        head = file.read(_HEAD.size)
        return len(head) < _HEAD.size or len(file.read()) < _HEAD.unpack(head)[0]


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock until it is closed; None: another process has it, or
    has removed the folder.
    """
    file = folder / "lock"
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), file.stat()):
            return lock
    except OSError:
        pass  # held, or gone between the two
    os.close(lock)
    return None


def _leave(folder: Path, lock: int) -> None:
    """Give a folder's lock up; what is empty goes."""
    (folder / "lock").unlink(missing_ok=True)
    os.close(lock)
    with suppress(OSError):  # not empty, or another process is quicker
        folder.rmdir()
