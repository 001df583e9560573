"""How far a follower is, and who is told about it: figures only, no effect on what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Stored(NamedTuple):
    """Leaves of one log that a destination has newly made durable.

    ``broker_timestamps_ms`` are those of the leaves that this worker gave it: fewer than
    ``records`` when the store already had some.
    """

    records: int
    broker_timestamps_ms: Sequence[int]


@dataclass(frozen=True, slots=True)
class LogStatus:
    """How far one follower is on one log. ``alert`` says why it stopped; empty when it runs."""

    log_id: int
    log: str
    position: int  # next leaf to store, as the ledger has it durably
    head_size: int
    lag_records: int
    lag_s: float  # age of the oldest leaf that the store lacks; 0 when it has all
    alert: str


@dataclass(frozen=True, slots=True)
class FollowerStatus:
    """How far a follower is; ``unavailable`` names the server it waits for, if it does."""

    sink: str
    held_bytes: int
    outages: int
    unavailable: str
    logs: tuple[LogStatus, ...]

    @property
    def caught_up(self) -> bool:
        """Every leaf of every assigned log is durable in the store, and the ledger knows it."""
        return all(log.position == log.head_size for log in self.logs)


class FollowerObserver(Protocol):
    """Where the figures go; ``sink`` is the destination's name. Called on the event loop."""

    def wrote(self, sink: str, *, seconds: float) -> None:
        """One call of ``Destination.write`` came back without a failure."""
        ...

    def stored(self, sink: str, log: str, stored: Stored) -> None:
        """Leaves became durable in the store."""
        ...

    def outage(self, sink: str, *, what: str) -> None:
        """``what`` (the store's server or the ledger's) began to be unavailable."""
        ...

    def stopped(self, sink: str, log: str, alert: str) -> None:
        """A log stopped on a contradiction; a person is needed."""
        ...
