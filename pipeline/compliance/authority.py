"""Why something may be missing: the one place that is asked.

A blob, key, row or month counts as erased, redacted or expired only under a leaf of ``audit.raw.system``
that names the request and commits to the affected leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.compliance.findings import Finding, Kind, Store

WITHOUT = "missing without authority"


@dataclass(frozen=True, slots=True)
class Absence:
    """What a leaf calls for and a store does not have. ``what`` says it in words."""

    store: Store
    log: str
    leaf: int
    what: str
    event_id: str | None = None
    place: str | None = None


def authority_of(absence: Absence) -> str | None:  # noqa: ARG001 - nothing gives any yet
    """The request under which it is missing; None: nobody may have removed it.

    No operation of this release removes anything, so no leaf can name one: every absence is without
    authority. What erases, redacts or expires adds here how its leaves are found.
    """
    return None


def missing(absence: Absence) -> Finding | None:
    """The finding, unless a leaf gives authority."""
    if authority_of(absence) is not None:
        return None
    return Finding(
        Kind.MISSING,
        absence.store,
        absence.log,
        f"{absence.what}: {WITHOUT}",
        leaf=absence.leaf,
        event_id=absence.event_id,
        place=absence.place,
    )
