"""Failures, told apart by what the caller must do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class AuditError(Exception):
    """Root of every failure that this SDK raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an event: where, by which rule, and what would be right.

    ``detail`` never holds a value of the event.
    """

    path: str
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path or '(event)'}: {self.detail} [{self.rule}]"


class InvalidEvent(AuditError, ValueError):
    """The event breaks its contract: mend the call. Nothing was sent."""

    def __init__(self, family: str, problems: Sequence[Problem]) -> None:
        super().__init__(f"{family}: " + "; ".join(map(str, problems)))
        self.family = family
        self.problems = tuple(problems)


class AuditConfigurationError(AuditError):
    """A setting that a person must mend; the message names it."""


class NotAccepted(AuditError):
    """The event was not taken, and will not arrive: the spool is full, or the client is closed."""


class NotDelivered(AuditError):
    """The broker did not confirm the event in time. It may still arrive: sending the same event again
    (with its ``event_id``) doubles nothing.
    """

    def __init__(self, event_id: str, why: str) -> None:
        super().__init__(f"event {event_id}: {why}")
        self.event_id = event_id
