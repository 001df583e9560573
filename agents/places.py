"""What is known of each assigned partition, and whom its placing asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.domain.records import LogHead
from sinks.operations import HeadRow, Pause


class Operators(Protocol):
    """``sinks.operations.Operations``: which logs there are, and table ``partition_pause``."""

    async def heads(self) -> Sequence[HeadRow]: ...

    async def pause(self, topic: str, partition: int, *, reason: str, detail: str) -> bool: ...

    async def pauses(self) -> Sequence[Pause]: ...

    async def deleted_below(self, topic: str, partition: int) -> int: ...


class Topics(Protocol):
    """``agents.identity.TopicFacts``."""

    async def ids(self, topic: str) -> tuple[str, str]: ...

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...


@dataclass(slots=True)
class Place:
    """One assigned partition."""

    head: LogHead | None = None
    stopped: str = ""  # why it stands still; looked at again every ``stopped_again_s``
    retry_at: float = 0.0
    topic_id: str = ""  # of the topic that it was placed in
    placed: bool = False  # fetched from where the ledger says, since it last stood still
    paused: str = ""  # why it stands still until `audit-trail resume`
    end: int | None = None  # the topic's, when the broker was asked
    outside: int | None = None  # records of a topic that ends before the ledger: none is in the log
    behind_since: float | None = None  # monotonic: since when it stands still with records left
    followed: set[int] = field(default_factory=set)  # log ids of the epochs that followers have

    def ends(self, head: LogHead | None, bounds: tuple[int, int]) -> None:
        """What the broker says of the topic, asked when the ledger was at ``head`` at least."""
        first, self.end = bounds
        is_before = head is not None and self.end < head.next_offset
        self.outside = self.end - first if is_before else None

    @property
    def is_read(self) -> bool:
        """Records of it are fetched."""
        return self.placed and not self.still

    @property
    def still(self) -> str:
        return self.stopped or self.paused


@dataclass(frozen=True, slots=True)
class Waits:
    """How outages are waited for, and how often pauses, lags, heads and topics are looked at;
    seconds.
    """

    retry_first_s: float
    retry_max_s: float
    outage_limit_s: float
    look_every_s: float = 1.0
    stopped_again_s: float = 10.0
