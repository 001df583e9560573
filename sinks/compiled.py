"""The compiled sealer over the decoders that are ready: a program per schema, made once.

What it cannot take, it gives back: an event whose keys are not in memory, a record that the form in
Python has to judge. It refuses nothing itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from pipeline.codec.decoders import Decoders
from pipeline.codec.judge import Horizon
from pipeline.codec.limits import Limits
from pipeline.domain.logs import family_of
from pipeline.domain.records import Record, SealedEvent
from pipeline.keys.subjects import Subject
from pipeline.logging import log_event
from pipeline.native import native
from sinks.documents import Documents
from sinks.program import write_program

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from pipeline.native.audit_native import CompiledProgram, KeyRing


class Keyless(NamedTuple):
    """An event that is accepted so far; these subjects' keys are wanted."""

    occurred_at_us: int
    subjects: list[Subject]


class CompiledSealer:
    """Seals records of topics whose schemas the decoders know."""

    def __init__(
        self, decoders: Decoders, ring: KeyRing, *, limits: Limits, horizon: Horizon
    ) -> None:
        self._decoders = decoders
        self._limits = limits
        self._documents = Documents(late_after_s=0)  # for the beginnings of documents alone
        # By topic and schema id; None: such events are left to the form in Python.
        self._known: dict[str, dict[int, CompiledProgram | None]] = {}
        self._programs: dict[str, dict[int, CompiledProgram]] = {}
        self._sealer = native.Sealer(
            ring, horizon.future_us, horizon.retention_us, limits.event_bytes
        )

    def know_tenants(self, tenants: Iterable[str]) -> None:
        """Take the tenants as they are now."""
        self._sealer.know_tenants(list(tenants))

    def seal(
        self, topic: str, records: Sequence[Record]
    ) -> list[SealedEvent] | Iterator[SealedEvent | Keyless | None]:
        """A list of events, if every record became one, as nearly always. Else what becomes of each
        record; None: the form in Python has to look at it.
        """
        fates, all_sealed = self._sealer.seal(self._programs_of(topic), records)
        if all_sealed:
            return cast("list[SealedEvent]", fates)
        return (
            Keyless(fate[0], [Subject(*parts) for parts in fate[1]])
            if isinstance(fate, tuple)
            else fate
            for fate in fates
        )

    def _programs_of(self, topic: str) -> dict[int, CompiledProgram]:
        ready = self._decoders.ready(topic)
        known = self._known.setdefault(topic, {})
        if known.keys() != ready.keys():
            for schema_id in known.keys() - ready.keys():
                del known[schema_id]
            for schema_id in ready.keys() - known.keys():
                known[schema_id] = self._compile(topic, schema_id)
            self._programs[topic] = {
                schema_id: program for schema_id, program in known.items() if program is not None
            }
        return self._programs.get(topic, {})

    def _compile(self, topic: str, schema_id: int) -> CompiledProgram | None:
        family = family_of(topic)
        tree = self._decoders.tree(topic, schema_id)
        make_head = self._documents.shapes(family).head_of
        try:
            spec = write_program(family, tree, self._decoders.policy(topic), self._limits)
            return native.CompiledProgram(spec, make_head)
        except (ValueError, RecursionError) as why:  # too large, or too deep for its parser
            log_event(log, "schema_left_to_python", topic=topic, schema_id=schema_id, error=why)
            return None
