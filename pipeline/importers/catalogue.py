"""The sources that can be imported, by name: the importers' front door."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

from pipeline.importers import aws_cloudtrail, github, okta
from pipeline.importers.events import ImportedEvent, Refusal, Refused, Unmappable
from pipeline.importers.files import read_records


class MapRecord(Protocol):
    """An adapter: one vendor record to one event; raises ``Unmappable``."""

    def __call__(
        self, record: Mapping[str, Any], *, tenant: str | None = None
    ) -> ImportedEvent: ...


SOURCES: Final[Mapping[str, MapRecord]] = MappingProxyType(
    {
        aws_cloudtrail.SOURCE: aws_cloudtrail.map_record,
        github.SOURCE: github.map_record,
        okta.SOURCE: okta.map_record,
    }
)


def map_record(
    source: str, record: Mapping[str, Any], *, tenant: str | None = None
) -> ImportedEvent:
    """One record of a source as an event that its family's schema and the judge accept.

    Raises:
        LookupError: There is no such source.
        Unmappable: The record is no event; the reason says why.
    """
    return _adapter(source)(record, tenant=tenant)


def map_file(
    source: str, path: Path, *, tenant: str | None = None
) -> Iterator[ImportedEvent | Refused]:
    """Every record of a file, in order: its event, or its refusal. Reads as it is consumed.

    A record that stands in the file twice gives the same event id twice. ``tenant`` overrides the
    tenant that the records name.

    Raises:
        LookupError: There is no such source.
        OSError: The file cannot be opened.
    """
    adapter = _adapter(source)
    for position, record in enumerate(read_records(path), start=1):
        if isinstance(record, Refusal):
            yield Refused(source, position, record)
            continue
        try:
            yield replace(adapter(record, tenant=tenant), position=position)
        except Unmappable as error:
            yield Refused(source, position, error.reason, error.detail)


def _adapter(source: str) -> MapRecord:
    if source not in SOURCES:
        raise LookupError(
            f"no importer is named {source!r}; there are {', '.join(sorted(SOURCES))}"
        )
    return SOURCES[source]
