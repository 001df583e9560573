"""What an erasure works with: its servers as it needs them, and how it says that it has to wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from pipeline.domain.erasure import RedactionCommand
from pipeline.domain.errors import AuditTrailError
from pipeline.keys.note_keys import NoteSigner
from sinks.erasure_store import ErasureStore, Request
from sinks.index_rewrite import IndexRewriter
from sinks.key_escrow import KeyEscrow
from sinks.ledger import PostgresLedger
from sinks.opening import BlobOpener
from sinks.subject_store import Position, SubjectStore
from sinks.vault import Vault

RawPlace = tuple[str, int]  # topic, partition


class Pending(AuditTrailError):
    """The erasure waits for something; what is done is noted: resume it later.

    The message says for what, without anything of a person.
    """


class Brokers(Protocol):
    """Kafka, as an erasure needs it. Every call may raise ``Unavailable``; none is on the event loop."""

    def publish_event(self, event: dict[str, Any]) -> None:
        """Publish an event of the trail itself; acknowledged on return."""
        ...

    def publish_command(self, command: RedactionCommand) -> None:
        """Publish a command; acknowledged on return."""
        ...

    def commands(self) -> Iterable[RedactionCommand]:
        """Every command that the topic holds; of each request the last one."""
        ...

    def journal_end(self) -> int:
        """The offset after the last record of the key journal."""
        ...

    def raw_ends(self) -> Mapping[RawPlace, int]:
        """The offset after the last record of each raw partition."""
        ...

    def delete_below(self, offsets: Mapping[RawPlace, int]) -> None:
        """Delete records below these offsets, for good."""
        ...

    def letters_naming(self, hashes: frozenset[bytes]) -> list[Position]:
        """The dead letters whose record can be decoded and names one of these subjects."""
        ...


class SearchIndex(Protocol):
    """The index beside its documents. Every call may raise ``Unavailable``; none is on the event loop."""

    def refresh(self) -> None: ...

    def count(self, refs: Sequence[UUID]) -> int:
        """Documents that name one of these subjects."""
        ...

    def expunge(self) -> int:
        """Take deleted and replaced documents off the disks; how many indices were merged.

        Raises:
            Pending: The index keeps them for a copy that is behind; ask again.
        """
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long an erasure waits in one go, and how long what it cannot reach lives."""

    wait_s: float
    look_s: float
    letters_days: int
    raw_days: int
    backups_days: int


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything that the steps use."""

    store: ErasureStore
    ledger: PostgresLedger
    keys: SubjectStore
    opener: BlobOpener
    vault: Vault
    escrow: KeyEscrow
    overwriter: IndexRewriter
    brokers: Brokers
    index: SearchIndex
    signers: Sequence[NoteSigner]
    bounds: Bounds
    on_step: Callable[[str], None]
    sleep: Callable[[float], Awaitable[None]]


def facts_of(request: Request, step: str) -> dict[str, Any]:
    """What a step that is done noted.

    Raises:
        Pending: It is not done: resume.
    """
    found = request.steps.get(step)
    if found is None:
        raise Pending(f"step {step} is not done")
    return found
