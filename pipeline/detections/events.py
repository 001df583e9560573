"""Events as dicts, made what the worker would hand to the detections: flat values, a subject_ref.

For evaluation and backtests: nothing is sealed and no server is asked. Values are those that the worker
reads of the record, the schema's defaults among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from uuid import UUID

import avro_schemas
from pipeline.detections.trials import flat_event
from pipeline.domain.detection.rules import MINUTE_US
from pipeline.domain.logs import RAW_PREFIX, LogName
from pipeline.domain.records import LeafRange, SealedEvent
from pipeline.importers.encode import EventEncoder
from pipeline.testing import read_as_worker

# A range ends after so many events, or so much time: logs of a live stream are seconds apart.
RANGE_EVENTS: Final = 500
RANGE_US: Final = 5 * MINUTE_US


class Accepting:
    """Makes events as if they were accepted when they happened."""

    def __init__(self) -> None:
        self._encoder = EventEncoder(dict.fromkeys(avro_schemas.families(), 1))

    def __call__(self, family: str, event: Mapping[str, Any]) -> SealedEvent:
        """One event.

        Raises:
            ValueError, InvalidRecord: It breaks its contract.
        """
        values = read_as_worker(family, self._encoder.encode(family, dict(event)).value)
        number = UUID(str(event["event_id"])).int
        return flat_event(family, values, int(values["occurred_at"]), number)


def ranges(events: Iterable[SealedEvent], *, size: int = RANGE_EVENTS) -> Iterator[LeafRange]:
    """Leaf ranges as followers get them: a log for each family, some events at a time."""
    leaves: dict[str, int] = defaultdict(int)
    log_ids = {family: number for number, family in enumerate(avro_schemas.families(), 1)}
    held: list[SealedEvent] = []

    def cut() -> Iterator[LeafRange]:
        by_family: dict[str, list[SealedEvent]] = defaultdict(list)
        for event in held:
            by_family[event.family].append(event)
        held.clear()
        for family, found in by_family.items():
            name = LogName(RAW_PREFIX + family, 0, 0)
            yield LeafRange(log_ids[family], name, leaves[family], found)
            leaves[family] += len(found)

    for event in events:
        if held and event.occurred_at_us - held[0].occurred_at_us > RANGE_US:
            yield from cut()
        held.append(event)
        if len(held) >= size:
            yield from cut()
    yield from cut()
