"""Faust's tables of this application: the tombstones, of which every worker holds all.

A cache: PostgreSQL is the authority, and what this table lacks, the database still answers. One
partition and ``recovery_buffer_size=1``, since a GlobalTable with more may recover for ever when several
workers run (Faust 0.15.3). Both topics must be there: Faust makes none here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import faust

from pipeline.domain.errors import Unavailable
from pipeline.domain.logs import TOMBSTONES

_ERASED_AT: Final = "erased_at"
_REQUEST: Final = "request_id"


class Tombstones:
    """subject hash → request and time of the erasure. ``on_change`` hears of each row that another
    worker wrote.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._table: Any = None

    def register(self, app: faust.App) -> None:
        """Make the table in an app that has not started; that of an earlier app is let go."""

        async def changed(_event: Any) -> None:
            self.on_change()

        self._table = app.GlobalTable(
            TOMBSTONES,
            partitions=1,
            recovery_buffer_size=1,
            key_type=str,
            on_changelog_event=changed,
            help="Keyed hash of a person who was erased: under which request, and when (µs).",
        )

    def note(self, subject_hash: bytes, request_id: str, erased_at_us: int) -> None:
        """Write a row; only the redaction agent may, while it handles a command."""
        before = self.erased_at_us(subject_hash)
        if before is None or before < erased_at_us:
            self._table[subject_hash.hex()] = {_REQUEST: request_id, _ERASED_AT: erased_at_us}

    def erased_at_us(self, subject_hash: bytes) -> int | None:
        """When the subject was erased, as far as this worker heard."""
        if self._table is None:
            return None
        row = self._table.data.get(subject_hash.hex())
        return None if row is None else int(row[_ERASED_AT])

    def __len__(self) -> int:
        return 0 if self._table is None else len(self._table.data)


async def watch_recovery(
    app: Any, limit_s: float, is_away: Callable[[], bool], *, look_every_s: float = 1.0
) -> None:
    """Runs until cancelled. A worker takes no record until its tables are recovered from their changelogs;
    one whose recovery stands still must end, for its partitions to be read by another. A broker that
    ``is_away`` is waited for.

    Raises:
        Unavailable: Nothing of a changelog was applied for ``limit_s`` while recovery lacked some.
    """
    recovery = app.tables.recovery
    lacking, since = 0, time.monotonic()
    while True:
        await asyncio.sleep(look_every_s)
        now = time.monotonic()
        remaining = recovery.active_remaining().values() if app.in_recovery else ()
        left = sum(each for each in remaining if each > 0)
        if not left or left != lacking or is_away():
            lacking, since = left, now
        elif now - since > limit_s:
            raise Unavailable(
                "kafka", f"recovery of the tables lacks {left} changelog records, and none came"
            )
