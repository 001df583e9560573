"""The contracts of the ledger and of its followers: read this first.

One event's way: ``Ledger.write`` makes it durable (the commit point); each ``Destination`` gets
it afterwards through a follower, which holds a durable position and nothing else that matters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from pipeline.domain.errors import AuditTrailError
from pipeline.domain.logs import LogName
from pipeline.domain.records import (
    DeadLetter,
    LeafRange,
    LogHead,
    PreparedBatch,
    RecordBatch,
    SealedEvent,
    WriteOutcome,
)

# Acknowledged by all in-sync replicas on return; the same letters may be published again.
PublishDeadLetters = Callable[[Sequence[DeadLetter]], Awaitable[None]]


# Of the canonical forms that one read gives: some four times as much memory (``SealedEvent.held_bytes``).
READ_BYTES: Final = 2 * 1024 * 1024


class ReusedIds(AuditTrailError):
    """Events whose id the ledger holds with another content: send them to the dead letter
    (``id_reused``), then write the same batches without them. Nothing of the call was stored.
    """

    def __init__(self, events: Mapping[LogName, Sequence[SealedEvent]]) -> None:
        super().__init__(f"{sum(map(len, events.values()))} event ids reused")
        self.events = events


class StaleKeys(AuditTrailError):
    """A batch was sealed before an erasure that the ledger knows of: prepare the same records again.
    Nothing of the call was stored.
    """


class Ledger(Protocol):
    """The commit point: rows, leaves, log heads and positions in one transaction.

    Life cycle: ``open`` once, anything else any number of times, ``close`` once. A batch may
    arrive again, whole or cut differently: what lies below ``next_offset`` changes nothing.
    """

    async def open(self) -> None: ...

    async def open_log(
        self, topic: str, partition: int, *, cluster_id: str, topic_id: str
    ) -> LogHead:
        """The head of the newest epoch of a topic-partition's log; made, at offset 0, if there is none.

        Raises:
            ChainBroken: The head was written from another cluster or another topic of this name.
            Unavailable: Ask again later.
        """
        ...

    async def write(self, batches: Sequence[PreparedBatch]) -> Sequence[WriteOutcome]:
        """Store one or several logs' batches in one transaction; an outcome per batch, in order.

        On return everything accepted is durable. Records below ``next_offset`` are skipped; an
        event id that is stored with the same leaf hash is a duplicate, counted and not stored.

        Raises:
            ReusedIds: See there.
            StaleKeys: See there.
            OutOfPosition: A batch begins after its log's ``next_offset``. Nothing was stored.
            ChainBroken: The head is not of the log that the batch names. Nothing was stored.
            Unavailable: Nothing is known; write the same batches later.
        """
        ...

    async def read(self, log_id: int, first_leaf: int, *, limit: int) -> LeafRange:
        """Up to ``limit`` consecutive leaves from ``first_leaf`` on, for catch-up; empty: there are none.

        Fewer, but one at least, where their canonical forms are more than ``READ_BYTES`` together.
        ``opened`` is empty: whoever needs personal data opens the blobs.

        Raises:
            Unavailable: Ask again later.
        """
        ...

    async def head(self, log_id: int) -> LogHead:
        """The head as it is now. Raises ``Unavailable``."""
        ...

    async def position(self, follower: str, log_id: int) -> int:
        """The next leaf that a follower has to store; 0 for a new one. Raises ``Unavailable``."""
        ...

    async def advance(self, follower: str, positions: Mapping[int, int]) -> None:
        """Move a follower's positions (log id → next leaf) forward, durably; never backward, nor
        beyond the log as the ledger has it (a database that was rolled back has fewer leaves).

        Raises:
            Unavailable: Nothing is known; the same leaves may be written again, which is harmless.
        """
        ...

    async def close(self) -> None: ...


class Destination(Protocol):
    """A store that follows the ledger: the search index, the archive.

    ``write`` may get the same leaves again after a crash or a hand-over, cut differently; writing
    them again changes nothing. One ``write`` is in flight at a time. It has no retry, no metric
    and no position of its own: ``sinks/follower.py`` has them, once.
    """

    name: str  # label in metrics and logs: ``index``, ``archive``

    async def open(self) -> None: ...

    async def write(self, ranges: Sequence[LeafRange]) -> Mapping[int, int]:
        """Make leaves durable; log id → next leaf, for every log of which some are durable now.

        A destination may hold leaves back until they are worth an object (it then returns without
        them); they stay the follower's to give again.

        Raises:
            Unavailable: Nothing is known about the call; give the same leaves again later.
            ChainBroken: What the store holds contradicts the ledger: stop this log, page a person.
        """
        ...

    def forget(self, log_id: int) -> None:
        """The log was revoked or must be read again: drop what is held for it, and make durable no
        leaf of it that a write under way has not begun to store: its leaves may not follow any more.
        """
        ...

    async def close(self) -> None: ...


class Feed(Protocol):
    """What a follower offers to delivery."""

    def offer(self, fresh: LeafRange) -> None: ...

    def note_head(self, head: LogHead) -> None: ...

    def is_pressed(self) -> bool: ...


class Prepare(Protocol):
    """``sinks.prepare.Preparer``."""

    async def prepare(
        self, batches: Sequence[tuple[RecordBatch, LogHead]]
    ) -> list[PreparedBatch]: ...


class PartitionControl(Protocol):
    """What delivery asks of the transport, which owns fetching."""

    def stored(self, head: LogHead) -> None:
        """The ledger has everything below ``head.next_offset``."""
        ...

    def reread(self, topic: str, partition: int) -> None:
        """Ask the ledger where the partition stands, and fetch it from there on, again."""
        ...

    def stop(self, topic: str, partition: int, why: str) -> None:
        """Stop fetching the partition until a person acts; the others go on."""
        ...

    async def pause(self, topic: str, partition: int, why: str) -> None:
        """The same, remembered in the database until ``audit-trail resume``; what is fetched
        already goes on. Raises ``Unavailable``.
        """
        ...
