"""``audit-trail export`` and ``prove``, wired: which role reads what, who signs, where the file goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pipeline import verifier
from pipeline.compliance.export import Exporter, ExportRequest, ExportSummary, OnEvents
from pipeline.compliance.export_opening import ExportOpener, NoOpener
from pipeline.compliance.export_read import ExportReader
from pipeline.compliance.prove import EventProof, prove_event
from pipeline.compliance.tile_store import TileReader, TileStore
from pipeline.db.connection import Connection
from pipeline.domain.errors import AuditTrailError, ConfigurationError
from pipeline.domain.logs import LogName
from pipeline.domain.notes import VerifierKey
from pipeline.entrypoints.cli.announcing import command_event, tell_trail
from pipeline.entrypoints.cli.authority import open_authorities
from pipeline.entrypoints.cli.output import Row
from pipeline.entrypoints.cli.stores import auditor_url, object_store, opening_keys
from pipeline.keys.provider import load_provider
from pipeline.keys.signing_keys import active_keys, open_signer, read_keys, trusted_keys
from pipeline.keys.subjects import Subject, subject_message
from sinks.recorded_schemas import RecordedSchemas
from sinks.subject_store import SubjectStore

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from sinks.s3 import S3

Tiles = Callable[[LogName], TileReader | None]


class BundleRefused(AuditTrailError):
    """What was written does not verify: it was not given. Something in the trail contradicts itself."""


@dataclass(frozen=True, slots=True)
class Why:
    """The right to personal data, and for what; the text is sealed where it is kept."""

    right: str
    reason: str


def known_keys(settings: Settings, given: Sequence[str] = ()) -> list[VerifierKey]:
    """Keys that are trusted to have signed: those given, else AUDIT_VERIFIER_KEYS_FILE, else our own.

    Raises:
        ConfigurationError: There is none.
    """
    if not given and settings.verifier_keys_file is None and settings.signing_key_file is not None:
        return [key.verifier for key in read_keys(settings.signing_key_file)]
    return trusted_keys(given, settings.verifier_keys_file)


@asynccontextmanager
async def ledger_reader(
    settings: Settings, *, as_writer: bool = False
) -> AsyncIterator[Connection]:
    """A connection as the auditor's role, which decrypts nothing, or as the writer's."""
    url = settings.database_url.get_secret_value() if as_writer else auditor_url(settings)
    connection = Connection(url, name="export", timeout_s=settings.request_timeout_s)
    try:
        yield connection
    finally:
        await connection.close()


def tile_readers(settings: Settings, objects: S3, *, wanted: bool = True) -> Tiles:
    """Readers of the logs' tiles; none where they are not wanted."""
    store = TileStore(objects, bucket=settings.s3_archive_bucket)
    return lambda name: TileReader(store, name) if wanted else None


def prove(settings: Settings, event_id: UUID, given: Sequence[str]) -> EventProof:
    """The verified proof of an event. Raises as ``prove_event``."""

    async def call() -> EventProof:
        async with ledger_reader(settings) as connection, object_store(settings) as objects:
            return await prove_event(
                ExportReader(connection),
                tile_readers(settings, objects),
                event_id,
                keys=known_keys(settings, given),
                origin=settings.log_origin,
                interval_s=settings.signer_interval_s,
            )

    return asyncio.run(call())


def subject_refs(settings: Settings, subject: tuple[str, str, str]) -> tuple[UUID, ...]:
    """The refs by which the trail knows a person. Needs the key provider and the writer's role.

    Raises:
        ConfigurationError: The trail has no such person.
    """
    hashed = load_provider(settings).mac(subject_message(Subject(*subject)))

    async def call() -> list[UUID]:
        async with ledger_reader(settings, as_writer=True) as connection:
            return await ExportReader(connection).subject_refs([hashed])

    found = asyncio.run(call())
    if not found:
        raise ConfigurationError("the trail knows no such person: --subject TENANT ID_TYPE ID")
    return tuple(found)


def export(
    settings: Settings,
    out: Path,
    request: ExportRequest,
    *,
    why: Why | None,
    use_tiles: bool,
    wait_s: float,
    on_events: OnEvents,
) -> dict[str, Any]:
    """Write a bundle, verified; its manifest. The file appears whole or not at all.

    Raises:
        BundleRefused: It does not verify.
        ConfigurationError: The file is there, no key signs, a schema is unknown.
        AuditTrailError: As ``Exporter.write`` and ``tell_trail``.
    """
    if out.exists():
        raise ConfigurationError(f"{out} is there; name another file, or remove it")
    provider = load_provider(settings)
    signers = [
        open_signer(provider, key) for key in active_keys(read_keys(settings.signing_key_file))
    ]
    keys = known_keys(settings)
    partial = out.with_name(f"{out.name}.partial")

    async def announce(summary: ExportSummary) -> Mapping[str, str]:
        return await _announce(settings, summary, why, wait_s=wait_s)

    async def call() -> dict[str, Any]:
        async with (
            ledger_reader(settings, as_writer=why is not None) as connection,
            object_store(settings) as objects,
            open_authorities(settings, objects) as authorities,
        ):
            reader = ExportReader(connection)
            store = SubjectStore(
                settings.database_url.get_secret_value(), timeout_s=settings.request_timeout_s
            )
            try:
                subjects = opening_keys(settings, provider, store)
                opener = NoOpener() if why is None else ExportOpener(reader, subjects)
                exporter = Exporter(
                    reader,
                    tile_readers(settings, objects, wanted=use_tiles),
                    opener,
                    schemas=await RecordedSchemas(connection).all(),
                    keys=keys,
                    signers=signers,
                    judge=authorities.judge,
                    announce=announce,
                )
                return await _write(exporter, partial, request, on_events)
            finally:
                await store.close()

    try:
        manifest = asyncio.run(call())
        check(partial, [*keys, *(signer.verifier for signer in signers)])
        partial.replace(out)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    return manifest


async def _write(
    exporter: Exporter, partial: Path, request: ExportRequest, on_events: OnEvents
) -> dict[str, Any]:
    try:
        # Of an interrupted export nothing is of use: begun anew, for the owner's eyes only.
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{partial}: {os.strerror(error.errno or 0)}") from None
    with os.fdopen(descriptor, "wb") as file:
        manifest = await exporter.write(file, request, on_events)
        file.flush()
        os.fsync(file.fileno())
    return manifest


def check(path: Path, keys: Sequence[VerifierKey]) -> None:
    """Verify a bundle of ours as its receiver will. Raises ``BundleRefused``."""
    trusted = [verifier.parse_key(str(key)) for key in keys if key.algorithm == verifier.LOG_KEY]
    report = verifier.verify_file(path, trusted, (), None)
    if report.problems:
        raise BundleRefused(
            f"the bundle does not verify and was not kept: {report.problems[0]}; run: audit-trail"
            " verify. If only tiles are wrong, export again with --without-tiles"
        )


async def _announce(
    settings: Settings, summary: ExportSummary, why: Why | None, *, wait_s: float
) -> Mapping[str, str]:
    """One event for each tenant that the export concerns: its trail tells what left."""
    filters = summary.request.filters
    events = [
        command_event(
            settings,
            tenant,
            "export",
            "trail.export",
            reason=None if why is None else why.reason,
            reason_code=None if why is None else why.right,
            severity="informational" if why is None else "medium",
            export={
                "content_hash": summary.content_sha256,
                "events": number,
                "personal_data": why is not None,
                "all_tenants": filters.all_tenants,
                "from_time": filters.from_us,
                "to_time": filters.to_us,
                "families": list(filters.families),
                "one_person": filters.subjects is not None,
            },
        )
        for tenant, number in sorted(summary.events.items())
    ]
    if events:
        await tell_trail(settings, events, timeout_s=wait_s)
    return {event["tenant"]: event["event_id"] for event in events}


def rows_of(manifest: Mapping[str, Any]) -> list[Row]:
    """What a bundle has of each log, for output."""
    return [
        {
            "log": log["log"],
            "events": log["events"],
            "first_leaf": log["first_leaf"],
            "last_leaf": log["last_leaf"],
            "complete": log["complete"],
            "expired": log["expired"],
            "checkpoint": log["checkpoints"][-1] if log["checkpoints"] else None,
        }
        for log in manifest["logs"]
    ]
