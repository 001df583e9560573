"""Everything held on a person (GDPR Art. 15): the facts first, then their events, one by one.

Only the person's own values are opened: those of others in the same event are theirs. Nothing is held
in memory but a page of events.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import avro_schemas
from pipeline.compliance.candidates import Candidates, LogSize
from pipeline.domain.logs import LogName
from pipeline.domain.records import SealedEvent
from pipeline.keys.seal import open_blob
from pipeline.keys.subjects import Subject, SubjectKey, SubjectKeys
from sinks.documents import time_text, uuid_text
from sinks.subject_events import Named, SubjectEvents

_INDEX = re.compile(r"\.[0-9]+(?=\.|$)")


@dataclass(frozen=True, slots=True)
class Facts:
    """What stands at the head of a report. ``lives``: since when and until when the person is known."""

    subject: Subject
    made_at: datetime
    lives: Sequence[tuple[datetime, datetime | None]]
    dead_letters: int
    holds: int
    kept: Sequence[tuple[str, str]]  # where, and for how long


@dataclass(frozen=True, slots=True)
class ReportedValue:
    """One value of the person. ``meaning``: what the schema says of the field."""

    path: str
    value: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class ReportedEvent:
    """One event that names the person. ``source``: the service that reported it; ``purpose``: if it says
    one; ``redacted``: paths that were cut, whosever they were.
    """

    event_id: str
    occurred_at: str
    tenant: str
    action: str
    outcome: str
    family: str
    meaning: str
    source: str
    purpose: str | None
    ticket: str | None
    values: Sequence[ReportedValue]
    redacted: Sequence[str]
    log: str
    leaf_index: int


class SubjectReport:
    """Reads what the ledger holds on one person."""

    def __init__(self, subjects: SubjectEvents, candidates: Candidates, keys: SubjectKeys) -> None:
        self._subjects = subjects
        self._candidates = candidates
        self._keys = keys

    async def facts(
        self,
        subject: Subject,
        *,
        subject_hash: bytes,
        raw_key_hash: bytes,
        made_at: datetime,
        kept: Sequence[tuple[str, str]],
    ) -> tuple[Facts, list[UUID]]:
        """The head of the report, and the references whose events follow; may be none."""
        generations = await self._subjects.generations([subject_hash])
        facts = Facts(
            subject,
            made_at,
            [(one.first_occurred_at, one.erased_at) for one in generations],
            await self._subjects.dead_letters([raw_key_hash]),
            await self._subjects.holds([subject_hash]),
            kept,
        )
        return facts, [one.subject_ref for one in generations]

    async def events(self, refs: Sequence[UUID]) -> AsyncIterator[ReportedEvent]:
        """The person's events by time.

        Raises:
            ChainBroken: A row is not what was hashed, or a blob does not open.
            Unavailable: Begin again later.
        """
        if not refs:
            return
        keys = {ref.bytes: key for ref, key in (await self._keys.by_ref(refs)).items()}
        async for page in self._subjects.pages(refs):
            redacted = await self._subjects.redacted(page)
            events = await self._read(page)
            for named in page:
                place = named.log_id, named.leaf_index
                if place in events:
                    cut = sorted(redacted.get(place, ()))
                    yield _reported(events[place], named, keys, cut)

    async def _read(self, page: Sequence[Named]) -> dict[tuple[int, int], SealedEvent]:
        found = {}
        for log_id, name in {(named.log_id, named.log) for named in page}:
            indexes = sorted(named.leaf_index for named in page if named.log_id == log_id)
            log = LogSize(log_id, LogName.parse(name), indexes[-1] + 1)
            there = await self._candidates.present(log_id, indexes)
            async for leaf, event in self._candidates.events(log, there):
                found[log_id, leaf] = event
        return found


def meaning(family: str, path: str) -> str:
    """What this release's schema says of a field; a path that it does not know says nothing."""
    return _meanings(family).get(_INDEX.sub(".*", path), "not known to this release")


@cache
def _meanings(family: str) -> Mapping[str, str]:
    return {leaf.path: leaf.doc for leaf in avro_schemas.leaves(family)}


@cache
def _family_meaning(family: str) -> str:
    doc: str = avro_schemas.load(family).get("doc", "")
    return doc


def _reported(
    event: SealedEvent, named: Named, keys: Mapping[bytes, SubjectKey], redacted: Sequence[str]
) -> ReportedEvent:
    opened: dict[str, Any] = {}
    for blob in event.blobs:
        key = keys.get(blob.subject_ref)
        if key is not None:
            opened |= open_blob(key, event.event_id, blob)
    clear = event.clear
    return ReportedEvent(
        event_id=uuid_text(event.event_id),
        occurred_at=time_text(event.occurred_at_us),
        tenant=str(clear.get("tenant", "")),
        action=str(clear.get("action", "")),
        outcome=str(clear.get("outcome", "")),
        family=event.family,
        meaning=_family_meaning(event.family),
        source=str(clear.get("producer.service", "")),
        purpose=opened.get("purpose"),
        ticket=clear.get("ticket"),
        values=[
            ReportedValue(path, opened[path], meaning(event.family, path))
            for path in sorted(opened)
        ],
        redacted=redacted,
        log=named.log,
        leaf_index=named.leaf_index,
    )
