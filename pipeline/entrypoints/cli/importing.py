"""``audit-trail import``: vendors' records to the raw topics, and an account of each one.

Events of tenants that the ledger does not know are not published: they would only be dead letters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.domain.errors import ConfigurationError
from pipeline.entrypoints.cli.output import Row, progress
from pipeline.entrypoints.cli.published import IdsFile, ids_file
from pipeline.entrypoints.cli.publishing import Publisher
from pipeline.entrypoints.cli.schema_ids import registered_ids
from pipeline.entrypoints.cli.tenants import add_tenants, unknown_tenants
from pipeline.importers.catalogue import SOURCES, map_file
from pipeline.importers.encode import EventEncoder
from pipeline.importers.events import ImportedEvent, Refused
from pipeline.keys.provider import read_key_file

if TYPE_CHECKING:
    from pipeline.settings import Settings

LISTED_MAX: Final = 10_000
ALIASES: Final = {"cloudtrail": "aws-cloudtrail"}
TENANT_UNKNOWN: Final = "tenant_unknown"


@dataclass(frozen=True, slots=True)
class Unpublished:
    """One record that was not published, and why."""

    file: str
    record: int
    reason: str
    detail: str


@dataclass(slots=True)
class ImportSummary:
    """What became of every record. Of ``unpublished`` the first ``LISTED_MAX`` are kept."""

    read: int = 0
    mapped: int = 0
    published: int = 0
    unmapped: Counter[str] = field(default_factory=Counter)
    withheld: Counter[str] = field(default_factory=Counter)  # by unknown tenant
    unpublished: list[Unpublished] = field(default_factory=list)

    def note(self, unpublished: Unpublished) -> None:
        """Keep a record for the list."""
        if len(self.unpublished) < LISTED_MAX:
            self.unpublished.append(unpublished)

    def as_dict(self) -> dict[str, Any]:
        """For output."""
        return {
            "read": self.read,
            "mapped": self.mapped,
            "published": self.published,
            "unmapped": dict(self.unmapped),
            "tenant_unknown": dict(self.withheld),
        }

    def add(self, other: ImportSummary) -> None:
        """Take in another import's counts."""
        self.read += other.read
        self.mapped += other.mapped
        self.published += other.published
        self.unmapped += other.unmapped
        self.withheld += other.withheld
        for unpublished in other.unpublished:
            self.note(unpublished)


def import_files(
    settings: Settings,
    source: str,
    files: Sequence[Path],
    *,
    tenant: str = "",
    create_tenants: bool = False,
    ids_file: Path | None = None,
) -> ImportSummary:
    """Map and publish every record; on return all of them are acknowledged.

    Raises:
        ConfigurationError: No such source, no import key, or schemas that are not registered.
        Unavailable: A server does not answer; importing again stores each event once.

    """
    source = ALIASES.get(source, source)
    if source not in SOURCES:
        raise ConfigurationError(
            f"no such source: {source}; there are {', '.join(sorted(SOURCES))}"
        )
    import_key = read_key_file(settings.import_key_file, "AUDIT_IMPORT_KEY_FILE")
    encoder = EventEncoder(registered_ids(settings), import_key=import_key)
    run = _Import(settings, encoder, create_tenants=create_tenants)
    run.import_all(source, files, tenant or None, ids_file)
    return run.summary


class _Import:
    """One run: its counts, and the tenants seen so far."""

    def __init__(self, settings: Settings, encoder: EventEncoder, *, create_tenants: bool) -> None:
        self.summary = ImportSummary()
        self._settings = settings
        self._encoder = encoder
        self._create_tenants = create_tenants
        self._known: set[str] = set()
        self._unknown: set[str] = set()

    def import_all(
        self, source: str, files: Sequence[Path], tenant: str | None, path: Path | None
    ) -> None:
        with (
            ids_file(path) as ids,
            Publisher(self._settings) as publisher,
            progress(f"importing {source}", None) as done,
        ):
            for file in files:
                for found in map_file(source, file, tenant=tenant):
                    self.summary.read += 1
                    self._take(file, found, publisher, ids)
                    done.advance()
            publisher.flush()
            self.summary.published = ids.acknowledged

    def _take(
        self, file: Path, found: ImportedEvent | Refused, publisher: Publisher, ids: IdsFile
    ) -> None:
        if isinstance(found, Refused):
            self.summary.unmapped[found.reason.value] += 1
            self._note(file, found.position, found.reason.value, found.detail)
            return
        self.summary.mapped += 1
        unknown = self._strangers(found.tenants)
        if unknown:
            self.summary.withheld.update(unknown)
            self._note(file, found.position, TENANT_UNKNOWN, ", ".join(unknown))
            return
        record = self._encoder.encode(found.family, found.event)
        publisher.publish(
            record.topic,
            key=record.key,
            value=record.value,
            headers=record.headers,
            delivered=ids.noting(str(found.event_id)),
        )

    def _strangers(self, tenants: frozenset[str]) -> list[str]:
        """Those of the tenants that the ledger does not know, after letting in who may come in."""
        new = tenants - self._known - self._unknown
        if new:
            missing = unknown_tenants(self._settings, new)
            if missing and self._create_tenants:
                add_tenants(self._settings, missing)
                missing = []
            self._unknown.update(missing)
            self._known.update(new.difference(missing))
        return sorted(tenants & self._unknown)

    def _note(self, file: Path, record: int, reason: str, detail: str) -> None:
        self.summary.note(Unpublished(file.name, record, reason, detail))


def summary_rows(summary: ImportSummary) -> list[Row]:
    """For output: read, mapped, published, then what was not, by reason."""
    rows: list[Row] = [
        {"what": "read", "records": summary.read},
        {"what": "mapped", "records": summary.mapped},
        {"what": "published", "records": summary.published},
    ]
    rows += [
        {"what": f"unmapped: {reason}", "records": records}
        for reason, records in summary.unmapped.most_common()
    ]
    if summary.withheld:
        rows.append({"what": "tenant unknown", "records": summary.mapped - summary.published})
    return rows


def unmapped_rows(summary: ImportSummary) -> list[Row]:
    """For output: each record that was not published."""
    return [
        {
            "file": unpublished.file,
            "record": unpublished.record,
            "reason": unpublished.reason,
            "detail": unpublished.detail,
        }
        for unpublished in summary.unpublished
    ]
