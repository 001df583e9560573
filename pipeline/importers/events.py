"""What an importer gives: an event of one family, or the reason why a record has none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from pipeline.domain.errors import AuditTrailError


class Refusal(StrEnum):
    """Why a record of another system is no event here: a closed set, shown to who imports."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    FILE_DAMAGED = "file_damaged"
    NO_TIME = "no_time"
    NO_ACTION = "no_action"
    ACTION_UNKNOWN = "action_unknown"
    TENANT_UNUSABLE = "tenant_unusable"
    ID_TOO_LONG = "id_too_long"


class Unmappable(AuditTrailError):
    """The record is no event: count it with its reason and go on. ``detail`` holds no content."""

    def __init__(self, reason: Refusal, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ImportedEvent:
    """An event that follows its family's schema and the judge's limits, with ``imported`` set.

    The id is made of the record's content, so that a record that is imported again is the same
    event. ``position`` is the record's number in its file, from 1; 0 outside of a file.
    """

    source: str
    family: str
    event: dict[str, Any]
    position: int = 0

    @property
    def event_id(self) -> UUID:
        """The event's id."""
        return UUID(self.event["event_id"])

    @property
    def tenants(self) -> frozenset[str]:
        """Every tenant that the event names; the ledger must know each."""
        parts = (*self.event["targets"], *self.event["data_subjects"], *self.event["resources"])
        return frozenset(
            [
                self.event["tenant"],
                self.event["actor"]["tenant"],
                *(part["tenant"] for part in parts),
            ]
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A record of a file that has no event."""

    source: str
    position: int
    reason: Refusal
    detail: str = ""
