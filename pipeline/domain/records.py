"""What travels from the topic to the stores: record batches, sealed events, leaf ranges.

Hot-path types are plain slotted classes: one object per event, nothing computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from pipeline.domain.errors import Reason
from pipeline.domain.logs import FIRST_EPOCH, LogName

_EVENT_BYTES = 400
_BYTES_PER_CANONICAL_BYTE = 4


class Record(Protocol):
    """A Kafka record, as aiokafka gives it."""

    offset: int
    timestamp: int  # ms, set by producer or broker (``timestamp_type``)
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Consecutive records of one topic-partition, as one fetch gave them.

    Covers offsets ``start_offset`` to ``end_offset - 1``: offsets in between without a record are
    holes (compaction, transaction markers), not losses. ``size_bytes`` counts keys and values.
    """

    topic: str
    partition: int
    start_offset: int
    end_offset: int
    records: Sequence[Record]
    size_bytes: int


class SealedBlob(NamedTuple):
    """The personal data of one subject in one event: AES-256-GCM of canonical JSON {path: value}."""

    subject_ref: bytes  # 16 bytes
    nonce: bytes  # 12 bytes
    ciphertext: bytes


class SealedEvent:
    """One accepted event, ready to become a leaf.

    ``clear`` and ``opened`` map flat paths (``targets.0.id``) to plain values; ``opened`` holds the
    values of the sealed paths, in memory only, and lacks those whose subject's key is gone.
    ``canonical`` is what is hashed and stored; ``stored_at_us`` is set by the ledger.
    ``pipeline.native`` has a compiled class with the same attributes.
    """

    __slots__ = (
        "actor_ref",
        "blobs",
        "broker_timestamp_ms",
        "canonical",
        "clear",
        "event_id",
        "family",
        "leaf_hash",
        "occurred_at_us",
        "offset",
        "opened",
        "schema_id",
        "stored_at_us",
    )

    def __init__(
        self,
        *,
        event_id: bytes,
        family: str,
        occurred_at_us: int,
        offset: int,
        broker_timestamp_ms: int,
        schema_id: int,
        clear: Mapping[str, Any],
        opened: Mapping[str, Any],
        canonical: bytes,
        leaf_hash: bytes,
        blobs: Sequence[SealedBlob],
        actor_ref: bytes | None,
        stored_at_us: int = 0,
    ) -> None:
        self.event_id = event_id
        self.family = family
        self.occurred_at_us = occurred_at_us
        self.offset = offset
        self.broker_timestamp_ms = broker_timestamp_ms
        self.schema_id = schema_id
        self.clear = clear
        self.opened = opened
        self.canonical = canonical
        self.leaf_hash = leaf_hash
        self.blobs = blobs
        self.actor_ref = actor_ref
        self.stored_at_us = stored_at_us

    @property
    def tenant(self) -> str:
        """The tenant whose event it is."""
        tenant: str = self.clear.get("tenant", "")
        return tenant

    @property
    def held_bytes(self) -> int:
        """The memory that the event holds, about: mostly Python objects, the maps of its values.

        2.8 kB at 758 bytes of canonical form, 5.8 kB at 1,553 (tracemalloc, tests/bench/index_bench.py).
        """
        return len(self.canonical) * _BYTES_PER_CANONICAL_BYTE + _EVENT_BYTES


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that can never be accepted, with its original bytes."""

    topic: str
    partition: int
    record: Record
    reason: Reason
    detail: str = ""
    epoch: int = FIRST_EPOCH  # of the log: the same offset of a replaced topic is another record


@dataclass(frozen=True, slots=True)
class LogHead:
    """The ledger's row of one log. ``next_offset`` is the only position of the pipeline."""

    log_id: int
    name: LogName
    size: int
    next_offset: int
    root: bytes = b""


@dataclass(slots=True)
class PreparedBatch:
    """A record batch after decode, judge and seal: what the ledger transaction takes.

    ``dead`` holds letters that are already acknowledged in the dead letter topic. Every offset from
    ``start_offset`` to ``end_offset - 1`` is an event, a dead letter, or a hole. ``erasure_epoch``: the
    erasures that were applied before its first event was sealed; None: nobody asks.
    """

    log_id: int
    name: LogName
    start_offset: int
    end_offset: int
    events: list[SealedEvent]
    dead: list[DeadLetter] = field(default_factory=list)
    erasure_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class LeafRange:
    """Leaves ``first_leaf`` to ``first_leaf + len(events) - 1`` of one log, all in the ledger."""

    log_id: int
    name: LogName
    first_leaf: int
    events: Sequence[SealedEvent]

    @property
    def next_leaf(self) -> int:
        """The index after the last leaf of the range."""
        return self.first_leaf + len(self.events)

    @property
    def held_bytes(self) -> int:
        """The memory that the range's events hold, about."""
        return sum([event.held_bytes for event in self.events])

    def from_leaf(self, leaf: int) -> LeafRange:
        """The part of the range from ``leaf`` on."""
        skip = max(leaf - self.first_leaf, 0)
        return LeafRange(self.log_id, self.name, self.first_leaf + skip, self.events[skip:])


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What one ledger transaction did with one batch."""

    head: LogHead
    accepted: LeafRange
    duplicates: int
    skipped: int  # records below ``next_offset``: the ledger had them
