"""The two events of the bench, encoded as producers send them, and where each of them goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.domain.logs import RAW_PREFIX
from pipeline.generator.bench_events import (
    LEAN_BYTES,
    REALISTIC_BYTES,
    lean_events,
    realistic_events,
)
from pipeline.importers.encode import EventEncoder, RawRecord

TENANT = "acme"
PARTITIONS = 4
# A company's people act again and again: 40 events by each, so 2.5 % of the events bring a new key.
EVENTS_PER_PERSON = 40
# Both sides cut archive objects after so many leaves, so that a run ends with a full object and
# nothing waits for the age at which a smaller one is stored.
OBJECT_LEAVES = 5_000
_AGO_US = 3_600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Kind:
    """An event of the bench; ``size_bytes`` is its Avro body."""

    name: str
    family: str
    size_bytes: int
    make: Callable[..., Iterator[tuple[str, dict[str, Any]]]]

    @property
    def topic(self) -> str:
        """Where it is published."""
        return RAW_PREFIX + self.family

    def events(self, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """``count`` events of an hour ago; another call gives other times and so other ids."""
        return self.make(
            count,
            seed=1,
            start_at_us=time.time_ns() // 1000 - _AGO_US,
            tenant=TENANT,
            people=max(count // EVENTS_PER_PERSON, 1),
        )

    def encoded(self, count: int, schema_ids: Mapping[str, int]) -> list[RawRecord]:
        """The records to publish."""
        encoder = EventEncoder(schema_ids)
        records = [encoder.encode(family, event) for family, event in self.events(count)]
        sizes = {len(record.value) - 5 for record in records}
        if sizes != {self.size_bytes}:
            raise ValueError(f"{self.name}: events of {sorted(sizes)} bytes, not {self.size_bytes}")
        return records


LEAN = Kind("lean", "authentication", LEAN_BYTES, lean_events)
REALISTIC = Kind("realistic", "data-access", REALISTIC_BYTES, realistic_events)
KINDS = {kind.name: kind for kind in (LEAN, REALISTIC)}


def whole_objects(count: int) -> int:
    """``count``, up to the next number that fills the last object of every partition."""
    step = PARTITIONS * object_leaves(count)
    return -(-count // step) * step


def object_leaves(count: int) -> int:
    """Leaves of one archive object: fewer where a run is short."""
    return min(OBJECT_LEAVES, max(count // (2 * PARTITIONS), 1))


def by_partition(records: Sequence[RawRecord]) -> list[Sequence[RawRecord]]:
    """Every fourth record each: partitions of one length, whatever the keys hash to."""
    return [records[partition::PARTITIONS] for partition in range(PARTITIONS)]
