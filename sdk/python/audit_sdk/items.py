"""Accepted events on their way, what became of them, and who is told."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from audit_sdk.segments import Spooled


class DeliveryClass(StrEnum):
    """How hard the SDK tries for an event; see the module."""

    BEST_EFFORT = "best_effort"
    SPOOL = "spool"
    FAIL_CLOSED = "fail_closed"


class Producer(Protocol):
    """What is used of ``confluent_kafka.Producer``."""

    def produce(self, topic: str, value: bytes, key: bytes, on_delivery: Any) -> None: ...

    def poll(self, timeout: float) -> int: ...

    def purge(self, in_queue: bool = True, in_flight: bool = True) -> None: ...  # noqa: FBT001, FBT002


class Metrics:
    """Hooks, called from the sending thread and from callers; override what you count. Never raise."""

    def accepted(self, family: str) -> None:
        """An event was taken."""

    def delivered(self, family: str, seconds: float) -> None:
        """The broker has an event, so long after it was accepted."""

    def dropped(self, family: str, count: int, reason: str) -> None:
        """Events that will not arrive; best effort only."""

    def resent(self, count: int) -> None:
        """So many events of a process that is gone, found in the spool, are with the broker now; told once
        for each of its files, when all of it is delivered. ``delivered`` tells of each as well.
        """


@dataclass(slots=True, eq=False)
class Item:
    """One accepted event on its way."""

    family: str
    delivery: DeliveryClass
    accepted_at: float
    key: bytes = b""
    body: bytes = b""
    sequence: int | None = None  # None: not given yet, or read back from the spool
    spooled: Spooled | None = None
    settled: threading.Event | None = None
    failure: str = ""
    order: int = 0  # grows with each that is accepted or read back

    @property
    def own(self) -> bool:
        """Whether this process gave it its sequence; not: it was found in the spool."""
        return self.spooled is None or not self.spooled.segment.recovered

    @property
    def weight(self) -> int:
        """Bytes of memory, about."""
        return len(self.body) + len(self.key) + 200


def from_spool(spooled: Spooled, now: float) -> Item:
    """An event that is read back."""
    return Item(
        spooled.family, DeliveryClass.SPOOL, now, spooled.key, spooled.body, spooled=spooled
    )
