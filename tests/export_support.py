"""What the tests of bundles share: logs in memory with real seals, checkpoints and proofs, and a bundle."""

from __future__ import annotations

import asyncio
import io
import json
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from hashlib import blake2b, sha256
from typing import Any
from uuid import UUID

from pipeline import verifier
from pipeline.compliance.absence import Absence
from pipeline.compliance.authority import Judged
from pipeline.compliance.bundle_writer import MANIFEST, SIGNATURE, manifest_text, tar_header
from pipeline.compliance.export import Exporter, ExportRequest, ExportSummary
from pipeline.compliance.export_filters import ExportFilters
from pipeline.compliance.export_opening import NoOpener
from pipeline.compliance.export_read import ExportedEvent, ExportPage
from pipeline.domain.canonical import canonical_json
from pipeline.domain.checkpoints import Checkpoint, origin_of
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import Frontier
from pipeline.domain.records import SealedEvent
from pipeline.keys.note_keys import NoteSigner, sign_note
from pipeline.keys.seal import seal
from pipeline.keys.subjects import SubjectKey
from sinks.recorded_schemas import RecordedSchema

ORIGIN = "audit.example.org/trail"
SIGNER = NoteSigner(ORIGIN, bytes(range(32)))
EXPORTER = NoteSigner("exports.example.org", bytes(range(1, 33)))
STRANGER = NoteSigner(ORIGIN, bytes(32))
KEYS = [verifier.parse_key(str(SIGNER.verifier))]
LOG = LogName("audit.raw.authentication", 0, 1)
OTHER_LOG = LogName("audit.raw.data-access", 3, 1)
OCCURRED_AT_US = 1_764_000_000_000_000
PERSON = SubjectKey(UUID(int=7), bytes(range(32)))
SCHEMA = RecordedSchema(
    7, "audit.raw.authentication-value", 1, "authentication", "{}", "f" * 64, "t"
)


def an_exported_event(leaf: int, *, log: LogName = LOG, tenant: str = "acme") -> ExportedEvent:
    event_id = UUID(bytes=sha256(f"{log}{leaf}".encode()).digest()[:16], version=4)
    occurred_at_us = OCCURRED_AT_US + leaf * 1_000_000
    clear = {
        "action": "session.start" if leaf % 2 else "session.end",
        "event_id": str(event_id),
        "occurred_at": occurred_at_us,
        "tenant": tenant,
    }
    family = log.topic.removeprefix("audit.raw.")
    values = {"actor.id": f"u-{leaf}", "actor.name": 'Zoë "Z" Quinn', "session.mfa": True}
    sealed = seal(family, event_id.bytes, clear, [(PERSON, values)])
    event = SealedEvent(
        event_id=event_id.bytes,
        family=family,
        occurred_at_us=occurred_at_us,
        offset=10 + leaf,
        broker_timestamp_ms=occurred_at_us // 1000,
        schema_id=7,
        clear=clear,
        opened=values,
        canonical=sealed.canonical,
        leaf_hash=sealed.leaf_hash,
        blobs=sealed.blobs,
        actor_ref=PERSON.ref,
        stored_at_us=occurred_at_us + 5,
    )
    return ExportedEvent(leaf, event, json.loads(sealed.canonical)["sealed"])


class LogsInMemory:
    """``ExportReader`` over lists; checkpoints at the sizes given, or at the newest alone."""

    def __init__(
        self,
        logs: dict[LogName, list[ExportedEvent]],
        sizes: dict[LogName, list[int]] | None = None,
    ) -> None:
        self._logs = list(logs.items())
        self._notes = {
            name: [
                (size, a_checkpoint(name, events[:size]))
                for size in (sizes or {}).get(name, [len(events)])
            ]
            for name, events in self._logs
        }
        self.page = 40

    async def logs(self) -> list[tuple[int, LogName, int]]:
        return [(at, name, len(events)) for at, (name, events) in enumerate(self._logs)]

    async def newest_checkpoint(self, log_id: int) -> tuple[int, bytes] | None:
        notes = self._notes[self._logs[log_id][0]]
        return notes[-1] if notes else None

    async def checkpoints(self, log_id: int, after: int, size: int) -> list[tuple[int, bytes]]:
        notes = self._notes[self._logs[log_id][0]]
        return [note for note in notes if after < note[0] <= size]

    async def leaf_hashes(self, log_id: int, first: int, end: int) -> list[bytes]:
        return [one.event.leaf_hash for one in self._logs[log_id][1][first:end]]

    async def place(self, event_id: UUID) -> tuple[int, LogName, int] | None:
        for log_id, (name, events) in enumerate(self._logs):
            for one in events:
                if one.event.event_id == event_id.bytes:
                    return log_id, name, one.leaf_index
        return None

    async def canonical(self, log_id: int, leaf: int) -> bytes | None:
        return self._logs[log_id][1][leaf].event.canonical

    async def events(
        self, log_id: int, name: LogName, filters: ExportFilters, size: int
    ) -> AsyncIterator[ExportPage]:
        taken = [one for one in self._logs[log_id][1][:size] if lets_in(filters, one)]
        for at in range(0, len(taken), self.page):
            yield ExportPage(taken[at : at + self.page], [])


async def no_authority(_log_id: int, absences: Sequence[Absence]) -> Judged:
    """Nothing may be missing."""
    return Judged([one.finding() for one in absences])


def lets_in(filters: ExportFilters, one: ExportedEvent) -> bool:
    clear = one.event.clear
    return (
        (not filters.tenants or clear["tenant"] in filters.tenants)
        and (not filters.actions or clear["action"] in filters.actions)
        and (filters.from_us or 0) <= one.event.occurred_at_us < (filters.to_us or 2**63)
    )


class OpensAll:
    """An opener that has every value at hand."""

    def __init__(self) -> None:
        self.values = 0
        self.withheld: Counter[str] = Counter()

    async def open(self, _log_id: int, _name: LogName, page: list[ExportedEvent]) -> list[Any]:
        opened = []
        for one in page:
            event_key = blake2b(one.event.event_id, key=PERSON.commit_key, digest_size=32).digest()
            values = dict(one.event.opened)
            self.values += len(values)
            encoded = b64encode(event_key).decode()
            opened.append({str(UUID(bytes=PERSON.ref)): {"event_key": encoded, "values": values}})
        return opened


def a_checkpoint(
    name: LogName, events: Sequence[ExportedEvent], signer: NoteSigner = SIGNER
) -> bytes:
    root = Frontier().append([one.event.leaf_hash for one in events]).root()
    checkpoint = Checkpoint(origin_of(ORIGIN, name), len(events), root)
    return sign_note(checkpoint.text, [signer]).encode()


def a_log(
    size: int, *, log: LogName = LOG, tenants: Sequence[str] = ("acme",)
) -> list[ExportedEvent]:
    return [
        an_exported_event(leaf, log=log, tenant=tenants[leaf % len(tenants)])
        for leaf in range(size)
    ]


def a_bundle(
    reader: LogsInMemory,
    filters: ExportFilters | None = None,
    *,
    events_format: Any = "ndjson",
    opener: Any = None,
    signer: NoteSigner = SIGNER,
    announced: list[ExportSummary] | None = None,
) -> bytes:
    async def announce(summary: ExportSummary) -> dict[str, str]:
        if announced is not None:
            announced.append(summary)
        return dict.fromkeys(summary.events, str(UUID(int=9)))

    request = ExportRequest(
        filters=filters or ExportFilters(all_tenants=True),
        events_format=events_format,
        origin=ORIGIN,
        exported_by="dora@example.org",
        exported_at_us=OCCURRED_AT_US,
        product="test",
        right="audit" if opener else None,
    )
    exporter = Exporter(
        reader,  # type: ignore[arg-type]
        lambda _name: None,
        opener or NoOpener(),
        schemas=[SCHEMA],
        keys=[SIGNER.verifier],
        signers=[signer],
        judge=no_authority,
        announce=announce,
    )
    file = io.BytesIO()
    asyncio.run(exporter.write(file, request))
    return file.getvalue()


def verified(bundle: bytes, keys: Any = None, exporters: Any = ()) -> verifier.Report:
    return verifier.verify_bundle(io.BytesIO(bundle), keys or KEYS, exporters)


def members_of(bundle: bytes) -> dict[str, bytes]:
    opened = verifier.Bundle(io.BytesIO(bundle))
    return {name: opened.read(name) for name in opened.names}


def packed(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A container of these members, whatever they are."""
    parts = [tar_header(name, len(body)) + body + bytes(-len(body) % 512) for name, body in members]
    return b"".join(parts) + bytes(1024)


def repacked(
    bundle: bytes,
    change: Callable[[dict[str, bytes], dict[str, Any]], None],
    *,
    signer: NoteSigner = EXPORTER,
) -> bytes:
    """The bundle as somebody makes it who may sign manifests, and changes members and manifest; what
    the manifest says of members is made to fit.
    """
    members = members_of(bundle)
    manifest = json.loads(members.pop(MANIFEST))
    del members[SIGNATURE]
    change(members, manifest)
    manifest["members"] = [
        {"bytes": len(body), "name": name, "sha256": sha256(body).hexdigest()}
        for name, body in members.items()
    ]
    lines = "".join(f"{row['sha256']}  {row['name']}\n" for row in manifest["members"])
    manifest["content_sha256"] = sha256(lines.encode()).hexdigest()
    encoded = canonical_json(manifest)
    note = sign_note(manifest_text(manifest["origin"], encoded), [signer]).encode()
    return packed([*members.items(), (MANIFEST, encoded), (SIGNATURE, note)])
