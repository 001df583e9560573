"""What a leaf calls for and a store does not have, before anybody has asked whether that may be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pipeline.compliance.findings import Finding, Kind, Store

WITHOUT: Final = "missing without authority"


class Part(StrEnum):
    """What is missing. A month that was dropped is its events, blobs and documents, each of them."""

    LEAF = "leaf"
    EVENT = "event"
    BLOB = "blob"
    VALUE = "value"  # out of a blob that opens
    KEY = "key"  # of a subject, so that its values in one event cannot be had
    DOCUMENT = "document"
    VAULT_OBJECT = "vault object"
    ARCHIVE_OBJECT = "archive object"


@dataclass(frozen=True, slots=True)
class Absence:
    """One thing that is not there. ``what`` says it in words; ``subject`` and ``path`` where it is about
    one; ``occurred_at_us``: of the event, since 1970; ``held``: the blobs that a vault object should have.
    """

    part: Part
    store: Store
    log: str
    leaf: int
    what: str
    event_id: str | None = None
    place: str | None = None
    occurred_at_us: int | None = None
    subject: bytes | None = None
    path: str | None = None
    held: tuple[Absence, ...] = ()

    def finding(self) -> Finding:
        """What it is when nothing gives authority."""
        return Finding(
            Kind.MISSING,
            self.store,
            self.log,
            f"{self.what}: {WITHOUT}",
            leaf=self.leaf,
            event_id=self.event_id,
            place=self.place,
        )


Problem = Finding | Absence
