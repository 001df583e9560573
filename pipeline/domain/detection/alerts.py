"""What a rule says when it fires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from pipeline.domain.detection.rules import Level


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``group`` is subject_refs and keyed hashes: names are looked up when it is shown.

    ``alert_id`` is made of rule, tenant, group and the bucket that the window ends with: an alert that
    is raised again after a crash is the same one.
    """

    alert_id: UUID
    rule: str
    level: Level
    tenant: str
    group: str
    window_start_us: int
    window_end_us: int
    values: Mapping[str, float]
    first_event_ids: tuple[str, ...]
    runbook: str


def alert_id(rule: str, tenant: str, group: str, bucket: int) -> UUID:
    """The same for the same window of the same counter."""
    text = "\n".join((rule, tenant, group, str(bucket)))
    return UUID(bytes=sha256(text.encode()).digest()[:16], version=5)
