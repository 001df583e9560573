"""The spool: events in append-only files until the broker has them, over crashes and outages.

A folder per process (``folders``), in it segments of records (``segments``). One ``write`` per record:
what was appended survives the process. What a process that is gone has left, the next one sends.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from pathlib import Path

from audit_sdk import folders
from audit_sdk.errors import AuditError, NotAccepted
from audit_sdk.segments import (
    RECOVERED,
    SEGMENT_BYTES,
    Segment,
    Spooled,
    is_damaged,
    judge,
    left_in,
    packed,
    records,
    set_aside,
)


class Spool:
    """One process's folder. Not thread-safe: the caller holds a lock, but for ``recover``."""

    def __init__(self, folder: Path, name: str, *, max_bytes: int) -> None:
        """Raises ``AuditConfigurationError``: the folder cannot be written."""
        self._parent = folder
        self._folder = folder / name
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._recovered_bytes = 0  # apart: while ``recover`` counts them nobody else does
        self._numbers = itertools.count(1)
        self._left: list[tuple[Path, int]] = []  # folders that are being recovered, and their locks
        self.damaged: list[Path] = []  # copies of damaged segments, for a person
        self.skipped: list[str] = []  # why something was left for the next process
        self._file = -1
        self._lock: int | None = folders.make(self._folder)
        try:
            self._segment = self._next_segment()
        except OSError as error:
            folders.leave(self._folder, self._lock)
            raise folders.cannot_be_written(self._folder, error) from None

    def append(self, family: str, key: bytes, body: bytes) -> Spooled:
        """Add a record; it survives this process on return.

        Raises:
            NotAccepted: The spool is full, or the disk is; nothing of the record is left then.
        """
        record = packed(family, key, body)
        if self._held_bytes + self._recovered_bytes + len(record) > self._max_bytes:
            raise NotAccepted(f"the spool holds {self._max_bytes} bytes (spool_max_bytes)")
        try:
            if self._segment.sealed or self._segment.size >= SEGMENT_BYTES:
                self._begin_another()
            written = os.write(self._file, record)
        except OSError as error:
            self._cut()
            raise NotAccepted(f"the spool cannot be written: {error.strerror}") from None
        if written < len(record):
            self._cut()
            raise NotAccepted("the spool's disk is full")
        segment = self._segment
        segment.size += len(record)
        segment.records += 1
        self._held_bytes += len(record)
        return Spooled(family, key, body, segment, segment.size - len(record), segment.size)

    def delivered(self, spooled: Spooled) -> None:
        """The broker has a record; a segment of which it has all is removed, the last one emptied."""
        segment = spooled.segment
        segment.delivered += 1
        if segment.delivered < segment.records:
            return
        if segment is self._segment:
            self._empty()
        elif segment.done:
            self._remove(segment)

    def read(self, segment: Segment, start: int, *, max_bytes: int) -> list[Spooled]:
        """Records of a segment of this process from an offset on, about ``max_bytes`` of them.

        Raises:
            AuditError: It cannot be read now.
        """
        found, size = [], 0
        try:
            for record in records(segment, start):
                found.append(record)
                size += len(record.body)
                if size >= max_bytes:
                    break
        except OSError as error:
            raise AuditError(f"the spool cannot be read: {error.strerror}") from None
        return found

    def recover(self) -> list[Segment]:
        """Take over the segments that processes which are gone have left, oldest first. It reads all of
        them, and may run beside the other methods.

        What cannot be taken over stays for the next process (``skipped``). They move into this folder
        newest first, under numbers in the order of their age: should this end half way, then what is
        left is older, as the names of the folders say.
        """
        self._find_left()
        paths = [path for folder, _lock in self._left for path in left_in(folder)]
        numbered = [(path, next(self._numbers)) for path in paths]
        found: list[Segment] = []
        for path, number in reversed(numbered):
            if self._lock is None:
                break  # closed meanwhile
            try:
                segment = self._take_over(path, number)
            except OSError as error:
                self.skipped.append(f"{path}: {error.strerror}")
                continue
            if segment.records:
                found.append(segment)
        while self._left:
            folders.leave(*self._left.pop())
        return found[::-1]

    def close(self) -> None:
        """Give the folder up; it goes if it is empty, else the next process finds it."""
        if self._lock is None:
            return
        os.close(self._file)
        self._file = -1
        if not self._segment.size:
            self._segment.path.unlink(missing_ok=True)
        lock, self._lock = self._lock, None
        folders.leave(self._folder, lock)

    def abandon(self) -> None:
        """After a fork, in the child: the folders are the parent's."""
        os.close(self._file)
        for lock in (self._lock, *(lock for _folder, lock in self._left)):
            if lock is not None:
                os.close(lock)

    # --- this process's segments ---

    def _begin_another(self) -> None:
        full = self._segment
        self._segment = self._next_segment()
        full.sealed = True
        if full.done:
            self._remove(full)

    def _next_segment(self) -> Segment:
        """The one before stays as it is if there cannot be another (``OSError``)."""
        path = self._folder / f"{next(self._numbers):08}.seg"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o600)
        before, self._file = self._file, file
        if before >= 0:
            os.close(before)
        return Segment(path)

    def _cut(self) -> None:
        """Nothing may stay of a record that could not be written whole; if that fails too, nothing may
        come behind it.
        """
        try:
            os.ftruncate(self._file, self._segment.size)
        except OSError:
            self._segment.sealed = True

    def _empty(self) -> None:
        with suppress(OSError):  # sent again after a crash, which doubles nothing
            os.ftruncate(self._file, 0)
            one = self._segment
            self._held_bytes -= one.size
            one.size = one.records = one.delivered = 0
            one.sealed = False

    def _remove(self, segment: Segment) -> None:
        if segment.recovered:
            self._recovered_bytes -= segment.size
        else:
            self._held_bytes -= segment.size
        with suppress(OSError):  # sent again by the next process, which doubles nothing
            segment.path.unlink(missing_ok=True)

    # --- what others have left ---

    def _find_left(self) -> None:
        try:
            for folder in sorted(self._parent.iterdir(), key=lambda one: one.name):
                if folder != self._folder and folder.is_dir():
                    self._hold(folder)
        except OSError as error:
            self.skipped.append(f"{self._parent}: {error.strerror}")

    def _hold(self, folder: Path) -> None:
        try:
            lock = folders.hold(folder)
        except OSError as error:
            self.skipped.append(f"{folder}: {error.strerror}")
            return
        if lock is None:
            return  # its process lives
        if left_in(folder):
            self._left.append((folder, lock))
        else:
            folders.leave(folder, lock)  # at once: it may be of a process that is just starting

    def _take_over(self, path: Path, number: int) -> Segment:
        """Move a segment into this folder, so that its records are this process's to deliver. One that is
        damaged is kept beside the folders as well, under a name that stays: a person may look at it.
        """
        segment = judge(path)
        if is_damaged(segment):
            copy = self._parent / f"{path.parent.name}-{path.name}.damaged"
            set_aside(segment, copy)
            self.damaged.append(copy)
        if not segment.records:
            path.unlink()
            return segment
        segment.path = self._folder / f"{number:08}{RECOVERED}"
        path.rename(segment.path)
        self._recovered_bytes += segment.size
        return segment
