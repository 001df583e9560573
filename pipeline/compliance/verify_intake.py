"""Completeness from the topic on: the ranges of ``intake`` abut, and add up to leaves and dead letters.

What the ledger calls a hole is looked up in the topic while that still has the place: a record that was
dropped before the ledger stands there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from pipeline.compliance.findings import Finding, Findings, Kind, Store
from pipeline.compliance.trail_reader import IntakeRow, LogState, TrailReader
from pipeline.domain.logs import LogName

_PAGE: Final = 1_000
LETTER: Final = "letter"  # a part, as ``absence.Part`` has others

IsErasure = Callable[[UUID], bool]


class Letters(NamedTuple):
    """Source offsets of the dead letters of one log that their topic has, and since when it has all."""

    offsets: Sequence[int]  # ascending, each once
    complete_since: datetime | None  # None: from the beginning


class Topics(Protocol):
    """Kafka as a verification needs it."""

    async def counts(
        self, name: LogName, topic_id: str, ranges: Sequence[tuple[int, int]]
    ) -> list[int | None]:
        """How many records the topic has in each range of offsets (ascending, the end not included); None
        where its first ones are gone, or the topic is another one now.

        Raises:
            Unavailable: The brokers do not answer.
        """
        ...

    async def letters(self, name: LogName) -> Letters:
        """The dead letters of a log. Raises as ``counts``."""
        ...


async def check_intake(
    reader: TrailReader,
    log: LogState,
    findings: Findings,
    topics: Topics | None,
    is_erasure: IsErasure,
) -> None:
    """Check the rows of a log up to its position; ``topics`` is None where Kafka is left out, and
    ``is_erasure`` says which requests may have destroyed the keys of letters.

    Raises:
        Unavailable: Ask again later.
    """
    letters = await topics.letters(log.name) if topics is not None else None
    rows: list[IntakeRow] = []
    follows: IntakeRow | None = None
    async for row in reader.intake(log.log_id):
        if row.first_offset >= log.next_offset:
            break  # came since
        _follow(log, follows, row, findings)
        follows = row
        if row.dead_lettered or row.holes:
            rows.append(row)
        if len(rows) >= _PAGE:
            await _check_rows(reader, log, rows, findings, topics, letters, is_erasure)
            rows = []
    await _check_rows(reader, log, rows, findings, topics, letters, is_erasure)
    size, end = (follows.first_leaf + follows.accepted, follows.next_offset) if follows else (0, 0)
    if size != log.size:
        what = f"accounts for {size} leaves, the log has {log.size}"
        findings.add(_finding(Kind.INCONSISTENT, log, what))
    if follows is not None and end != log.next_offset:
        what = f"ends at offset {end}, the log's position is {log.next_offset}"
        findings.add(_finding(Kind.MISSING, log, what, f"{end}-{log.next_offset - 1}"))


def _follow(log: LogState, before: IntakeRow | None, row: IntakeRow, findings: Findings) -> None:
    if before is None:
        if row.first_leaf != 0:
            what = f"its first row begins with leaf {row.first_leaf}"
            findings.add(_finding(Kind.MISSING, log, what))
        return
    if row.first_offset > before.next_offset:
        what = (
            f"no row says what became of the offsets {before.next_offset} to {row.first_offset - 1}"
        )
        place = f"{before.next_offset}-{row.first_offset - 1}"
        findings.add(_finding(Kind.MISSING, log, what, place))
    elif row.first_offset < before.next_offset:
        what = f"two rows speak of the offsets {row.first_offset} to {before.next_offset - 1}"
        place = f"{row.first_offset}-{before.next_offset - 1}"
        findings.add(_finding(Kind.INCONSISTENT, log, what, place))
    elif row.first_leaf != before.first_leaf + before.accepted:
        what = (
            f"the row of offset {row.first_offset} begins with leaf {row.first_leaf},"
            f" the one before ends before leaf {before.first_leaf + before.accepted}"
        )
        findings.add(_finding(Kind.INCONSISTENT, log, what, str(row.first_offset)))


async def _check_rows(
    reader: TrailReader,
    log: LogState,
    rows: Sequence[IntakeRow],
    findings: Findings,
    topics: Topics | None,
    letters: Letters | None,
    is_erasure: IsErasure,
) -> None:
    dead = [row for row in rows if row.dead_lettered and not row.restored]
    ranges = [(row.first_offset, row.next_offset) for row in dead]
    keys = await reader.letter_keys(log.name, ranges) if ranges else {}
    for row in dead:
        known = keys.get(row.first_offset, {})
        _check_keys(log, row, known, is_erasure, findings)
        _check_letters(log, row, letters, findings)
    if topics is not None:
        await _check_holes(
            log, [row for row in rows if row.holes and not row.restored], findings, topics
        )


def _check_keys(
    log: LogState,
    row: IntakeRow,
    known: Mapping[UUID | None, int],
    is_erasure: IsErasure,
    findings: Findings,
) -> None:
    """Each letter has a key, or an erasure of the trail has destroyed it."""
    place = f"{row.first_offset}-{row.next_offset - 1}"
    keys = sum(known.values())
    if keys < row.dead_lettered:
        what = f"{row.dead_lettered} records became dead letters, {keys} of them have a key"
        findings.add(Finding(Kind.MISSING, Store.DEAD_LETTERS, str(log.name), what, place=place))
    for erasure, count in known.items():
        if erasure is None:
            continue
        if is_erasure(erasure):
            findings.granted["erased", str(erasure), LETTER] += count
        else:
            what = f"the keys of {count} dead letters are gone under {erasure}, which is no erasure"
            findings.add(
                Finding(Kind.MISSING, Store.DEAD_LETTERS, str(log.name), what, place=place)
            )


def _check_letters(
    log: LogState, row: IntakeRow, letters: Letters | None, findings: Findings
) -> None:
    """A letter may be there of a record that was accepted at its second reading; one may not lack."""
    place = f"{row.first_offset}-{row.next_offset - 1}"
    if letters is None or (
        letters.complete_since is not None and row.stored_at < letters.complete_since
    ):
        return
    offsets = letters.offsets
    there = bisect_left(offsets, row.next_offset) - bisect_left(offsets, row.first_offset)
    if there < row.dead_lettered:
        what = f"{row.dead_lettered} records became dead letters, the topic has {there}"
        findings.add(Finding(Kind.MISSING, Store.DEAD_LETTERS, str(log.name), what, place=place))


async def _check_holes(
    log: LogState, rows: Sequence[IntakeRow], findings: Findings, topics: Topics
) -> None:
    if not rows:
        return
    ranges = [(row.first_offset, row.next_offset) for row in rows]
    counts = await topics.counts(log.name, log.topic_id, ranges)
    for row, records in zip(rows, counts, strict=True):
        counted = row.accepted + row.duplicates + row.dead_lettered
        if records is not None and records > counted:
            what = (
                f"the topic has {records} records there, {counted} are accounted for: some were"
                " dropped before the ledger"
            )
            place = f"{row.first_offset}-{row.next_offset - 1}"
            findings.add(_finding(Kind.MISSING, log, what, place))


def _finding(kind: Kind, log: LogState, what: str, place: str | None = None) -> Finding:
    return Finding(kind, Store.INTAKE, str(log.name), what, place=place)
