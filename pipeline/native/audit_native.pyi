"""What ``src`` offers to Python. Events that functions are given are all of this module's class."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.domain import records
from pipeline.domain.records import Record

class SealedEvent(records.SealedEvent):
    """One sealed event (not a subclass: it has every attribute of one); ``clear``, ``opened`` and
    ``blobs`` are made anew at every look.
    """

class KeyRing:
    """The keys of data subjects that are in memory: (tenant, id type, id) → ref, Kc, Kb."""

    def __init__(self) -> None: ...
    def put(
        self,
        subject: tuple[str, str, str],
        subject_ref: bytes,
        commit_key: bytes,
        blob_key: bytes,
        erased_until_us: int,
    ) -> None:
        """An event up to ``erased_until_us`` is left to the form in Python."""

    def take_used(self, subject: tuple[str, str, str]) -> bool:
        """Whether the key sealed anything since the last call for it."""

    def drop_key(self, subject: tuple[str, str, str]) -> None: ...
    def clear(self) -> None: ...
    def __len__(self) -> int: ...

class CompiledProgram:
    """What to do with events of one writer's schema; ``spec`` is ``sinks.program``'s.

    ``make_head(activity, outcome, severity)`` gives the beginning of a document.

    Raises:
        ValueError: The spec is none.
    """

    def __init__(
        self, spec: str, make_head: Callable[[str | None, str | None, str | None], bytes]
    ) -> None: ...

class Sealer:
    """Decodes, judges and seals; bounds as in ``pipeline.codec``."""

    def __init__(
        self, ring: KeyRing, future_us: int, retention_us: int, event_max_bytes: int
    ) -> None: ...
    def know_tenants(self, tenants: Sequence[str]) -> None: ...
    def seal(
        self, programs: Mapping[int, CompiledProgram], records: Sequence[Record]
    ) -> tuple[list[SealedEvent | tuple[int, list[tuple[str, str, str]]] | None], bool]:
        """For each record its sealed event; or ``occurred_at`` (µs) and the event's subjects, when
        not all of their keys are in memory; or None: the form in Python has to look at it. And
        whether every record became an event.
        """

def leading(events: list[Any]) -> int:
    """How many events at the beginning of a list are of this module's class."""

def event_rows(
    events: Sequence[records.SealedEvent],
    log_id: int,
    first_leaf: int,
    stored_at_us: int | None,
    late_after_us: int,
) -> bytes:
    """As ``sinks.rows.RowPacker.events``, joined."""

def leaf_rows(events: Sequence[records.SealedEvent], log_id: int, first_leaf: int) -> bytes:
    """As ``sinks.rows.leaves``, joined."""

def blob_rows(events: Sequence[records.SealedEvent], log_id: int, first_leaf: int) -> bytes:
    """As ``sinks.rows.blobs``, joined."""

def bulk_lines(
    events: Sequence[records.SealedEvent],
    log: str,
    first_leaf: int,
    prefix: str,
    late_after_us: int,
    max_bytes: int,
) -> tuple[bytes, int]:
    """Actions and documents of the first events, one at least, up to about ``max_bytes``, and of how
    many.
    """

def leaf_datums(events: Sequence[records.SealedEvent], first_leaf: int) -> bytes:
    """As ``sinks.archive_format.leaf_datums``, joined."""

def blob_datums(
    events: Sequence[records.SealedEvent], first_leaf: int
) -> tuple[bytes, int, list[bytes]]:
    """As ``sinks.archive_format.blob_datums``, joined; how many; the subjects that they name."""

def parents(hashes: Sequence[bytes]) -> list[bytes]:
    """SHA-256(0x01 || left || right) of each pair: a level of a Merkle tree (RFC 6962 §2.1)."""
