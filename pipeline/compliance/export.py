"""An export: the events that filters let in, with the proof that they are in the trail, as one file.

Guarantees that a bundle has its signature only after every event in it is under a signed checkpoint and
after the trail itself holds, as a leaf, that the export was made. Nothing is changed anywhere else; an
export that was interrupted is made again from its beginning.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from pipeline.compliance.absence import Absence
from pipeline.compliance.authority import Judged
from pipeline.compliance.bundle_writer import (
    FORMAT,
    FORMAT_VERSION,
    PART_BYTES,
    README,
    README_TEXT,
    BundleWriter,
    EventsFormat,
    Part,
    manifest_bytes,
    manifest_text,
)
from pipeline.compliance.checkpoint_store import SignedCheckpoint, read_signed
from pipeline.compliance.export_filters import ExportFilters
from pipeline.compliance.export_opening import Opened
from pipeline.compliance.export_read import ExportedEvent, ExportReader
from pipeline.compliance.subtrees import Subtrees
from pipeline.compliance.tile_store import TileReader
from pipeline.domain.canonical import canonical_json
from pipeline.domain.checkpoints import CheckpointRefused
from pipeline.domain.errors import ChainBroken, ConfigurationError
from pipeline.domain.logs import LogName
from pipeline.domain.multiproof import between
from pipeline.domain.notes import NoteRefused, VerifierKey
from pipeline.domain.proofs import consistency_subtrees
from pipeline.keys.note_keys import NoteSigner, sign_note
from sinks.recorded_schemas import RecordedSchema


class Opener(Protocol):
    """Opens the values of events, or does not (``pipeline.compliance.export_opening``)."""

    values: int
    withheld: Counter[str]

    async def open(self, log_id: int, name: LogName, page: list[ExportedEvent]) -> list[Opened]:
        """What each event of a page holds, in its order."""
        ...


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is asked for, and by whom. ``right`` is None without personal data."""

    filters: ExportFilters
    events_format: EventsFormat
    origin: str
    exported_by: str
    exported_at_us: int
    product: str
    right: str | None = None


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What a bundle is going to hold, as the trail is told before it is finished."""

    request: ExportRequest
    events: Mapping[str, int]  # by tenant; each tenant that was asked for has a number
    values: int
    content_sha256: str


# What became of leaves of one log whose rows are gone (``pipeline.compliance.authority``).
Judge = Callable[[int, Sequence[Absence]], Awaitable[Judged]]
# Returns the id of the event that tells each tenant of the export, once all are leaves of the trail.
Announce = Callable[[ExportSummary], Awaitable[Mapping[str, str]]]
OnEvents = Callable[[int], None]


@dataclass(slots=True)
class _LogExport:
    """How far the export of one log is."""

    name: LogName
    events: int = 0
    expired: int = 0
    first_leaf: int | None = None
    last_leaf: int = -1
    sizes: list[int] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        first = self.first_leaf
        return {
            "checkpoints": self.sizes,
            "complete": first is not None and self.events == self.last_leaf - first + 1,
            "events": self.events,
            "expired": self.expired,
            "first_leaf": first,
            "last_leaf": None if first is None else self.last_leaf,
            "log": str(self.name),
        }


class Exporter:
    """Writes bundles. ``keys`` are those that are trusted to have signed checkpoints."""

    def __init__(
        self,
        reader: ExportReader,
        tiles: Callable[[LogName], TileReader | None],
        opener: Opener,
        *,
        schemas: Sequence[RecordedSchema],
        keys: Sequence[VerifierKey],
        signers: Sequence[NoteSigner],
        judge: Judge,
        announce: Announce,
    ) -> None:
        self._reader = reader
        self._tiles = tiles
        self._opener = opener
        self._schemas = {schema.schema_id: schema for schema in schemas}
        self._keys = keys
        self._signers = signers
        self._judge = judge
        self._announce = announce

    async def write(
        self, file: IO[bytes], request: ExportRequest, on_events: OnEvents = lambda _events: None
    ) -> dict[str, Any]:
        """Write a bundle to an empty file; its manifest. The file is whole on return, and not before.

        Raises:
            ChainBroken: The ledger is not what was hashed, lacks an event without authority, or a
                checkpoint is not what was signed.
            ConfigurationError: A schema that events name was never recorded.
            Unavailable: Begin again later.
        """
        bundle = BundleWriter(file)
        bundle.add(README, README_TEXT.encode())
        tenants: Counter[str] = Counter(dict.fromkeys(request.filters.tenants, 0))
        schema_ids: set[int] = set()
        logs = []
        for log_id, name, _size in await self._reader.logs():
            if not request.filters.takes(name):
                continue
            log = _LogExport(name)
            newest = await self._newest(log_id, name, request.origin)
            if newest is not None:
                async for page in self._pages(log_id, newest, bundle, log, request):
                    tenants.update(one.event.tenant for one in page)
                    schema_ids.update(one.event.schema_id for one in page)
                    on_events(len(page))
                if log.events:
                    await self._prove(log_id, newest, bundle, log, request.origin)
            logs.append(log.as_dict())
        schemas = [self._add_schema(bundle, schema_id) for schema_id in sorted(schema_ids)]
        content = bundle.content_sha256()
        told = await self._announce(
            ExportSummary(request, dict(tenants), self._opener.values, content)
        )
        manifest = {
            "content_sha256": content,
            "events_format": request.events_format,
            "exported_at": request.exported_at_us,
            "exported_by": request.exported_by,
            "filters": request.filters.as_dict(),
            "format": FORMAT,
            "logs": logs,
            "members": bundle.members,
            "origin": request.origin,
            "personal_data": {
                "included": request.right is not None,
                "right": request.right,
                "values": self._opener.values,
                "withheld": dict(self._opener.withheld),
            },
            "product": request.product,
            "schemas": schemas,
            "trail_events": dict(told),
            "version": FORMAT_VERSION,
        }
        text = manifest_text(request.origin, manifest_bytes(manifest))
        bundle.finish(manifest, sign_note(text, self._signers).encode())
        return manifest

    async def _newest(self, log_id: int, name: LogName, origin: str) -> SignedCheckpoint | None:
        found = await newest_checkpoint(self._reader, log_id, name, self._keys, origin)
        return None if found is None else found[0]

    async def _pages(
        self,
        log_id: int,
        newest: SignedCheckpoint,
        bundle: BundleWriter,
        log: _LogExport,
        request: ExportRequest,
    ) -> AsyncIterator[list[ExportedEvent]]:
        """Write the log's events, part by part; each page as it is taken."""
        name, size = newest.name, newest.size
        subtrees = Subtrees(self._tiles(name), self._reader, log_id, size)
        part = Part(name)
        async for page in self._reader.events(log_id, name, request.filters, size):
            log.expired += await self._expired(log_id, name, page.gone)
            opened = await self._opener.open(log_id, name, page.events)
            for one, values in zip(page.events, opened, strict=True):
                hashes = await subtrees.roots(list(between(log.last_leaf, one.leaf_index, size)))
                part.add(one, hashes, values)
                log.events += 1
                log.last_leaf = one.leaf_index
                log.first_leaf = one.leaf_index if log.first_leaf is None else log.first_leaf
                if part.held_bytes >= PART_BYTES:
                    part.write(bundle, request.events_format)
                    part = Part(name)
            yield page.events
        if part.events:
            part.write(bundle, request.events_format)
        if log.events:
            behind = await subtrees.roots(list(between(log.last_leaf, size, size)))
            if behind:
                bundle.add(f"proofs/{name}/{size:019d}", b"".join(behind))

    async def _expired(self, log_id: int, name: LogName, gone: Sequence[Absence]) -> int:
        """How many of some leaves without a row are expired: no other one may be passed over."""
        if not gone:
            return 0
        judged = await self._judge(log_id, gone)
        for finding in judged.findings:
            raise ChainBroken(str(name), f"{finding.what}; run: audit-trail verify")
        return len(judged.expired)

    async def _prove(
        self,
        log_id: int,
        newest: SignedCheckpoint,
        bundle: BundleWriter,
        log: _LogExport,
        origin: str,
    ) -> None:
        """The log's checkpoints from its first exported leaf on, and that they are of one history."""
        name, first = newest.name, log.first_leaf or 0
        proofs: list[list[str]] = []
        for size, note in await self._reader.checkpoints(log_id, first, newest.size):
            signed = _signed(name, note, self._keys, origin)
            if log.sizes:
                subtrees = Subtrees(self._tiles(name), self._reader, log_id, signed.size)
                hashes = await subtrees.roots(consistency_subtrees(log.sizes[-1], signed.size))
                proofs.append([b64encode(one).decode() for one in hashes])
            bundle.add(f"checkpoints/{name}/{size:019d}", note)
            log.sizes.append(size)
        body = canonical_json({"proofs": [list(proof) for proof in proofs]})
        bundle.add(f"consistency/{name}.json", body)

    def _add_schema(self, bundle: BundleWriter, schema_id: int) -> dict[str, Any]:
        schema = self._schemas.get(schema_id)
        if schema is None:
            raise ConfigurationError(
                f"the ledger has no schema {schema_id}, which events name;"
                " run: audit-trail schemas register"
            )
        bundle.add(f"schemas/{schema_id}.avsc", schema.schema.encode())
        return {
            "fingerprint": schema.fingerprint,
            "id": schema_id,
            "subject": schema.subject,
            "version": schema.version,
        }


async def newest_checkpoint(
    reader: ExportReader, log_id: int, name: LogName, keys: Sequence[VerifierKey], origin: str
) -> tuple[SignedCheckpoint, bytes] | None:
    """The newest checkpoint of a log that the ledger's table has, with its note verbatim; None if there
    is none.

    Raises:
        ChainBroken: It is not of this log, or no trusted key signed it.
        Unavailable: Ask again later.
    """
    found = await reader.newest_checkpoint(log_id)
    return None if found is None else (_signed(name, found[1], keys, origin), found[1])


def _signed(
    name: LogName, note: bytes, keys: Sequence[VerifierKey], origin: str
) -> SignedCheckpoint:
    try:
        return read_signed(name, note, keys, origin_prefix=origin)
    except (NoteRefused, CheckpointRefused) as error:
        raise ChainBroken(
            str(name), f"a checkpoint in the ledger cannot be used: {error}"
        ) from None
