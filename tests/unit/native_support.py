"""Both forms of the first steps side by side: schemas, keys and records in memory, and what must be equal."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import fastavro

import avro_schemas
from pipeline.codec.decoders import Decoders
from pipeline.codec.judge import Horizon
from pipeline.codec.limits import Limits
from pipeline.codec.registry import RegisteredSchema, SchemaRegistry
from pipeline.codec.wire import frame
from pipeline.domain.escrow import EscrowEntry
from pipeline.domain.logs import LogName, subject_of
from pipeline.domain.records import LeafRange, LogHead, PreparedBatch, RecordBatch, SealedEvent
from pipeline.entrypoints.preparing import policies
from pipeline.keys.provider import LocalKeyProvider
from pipeline.keys.seal import open_blob
from pipeline.keys.subjects import StoredKey, SubjectKeys
from pipeline.native import native
from pipeline.testing import (
    OCCURRED_AT_US,
    TENANTS,
    an_event,
)
from sinks import archive_format, rows
from sinks.documents import Documents
from sinks.index import IndexDestination
from sinks.prepare import Preparer

FAMILIES = avro_schemas.families()
LATE_AFTER_S = 86_400
STORED_AT_US = OCCURRED_AT_US + 90_000_000_000
NAME = LogName("audit.raw.authentication", 0, 1)
HEAD = LogHead(1, NAME, 0, 0)
# A schema of the family with what the reviewed one lacks: an unmarked field, unusual types.
WIDER = [
    {"name": "email", "type": ["null", "string"], "default": None},
    {"name": "score", "type": ["null", "double"], "default": None, "pii": "none"},
    {"name": "flags", "type": {"type": "map", "values": "long"}, "default": {}},
    {"name": "sizes", "type": {"type": "array", "items": "long"}, "default": [], "pii": "target"},
    {"name": "changes", "type": {"type": "array", "items": "string"}, "default": []},
    {"name": "blob", "type": ["null", "bytes"], "default": None, "pii": "unattributed"},
    {
        "name": "owner",
        "type": [
            "null",
            {
                "type": "record",
                "name": "Owner",
                "fields": [
                    {"name": "tenant", "type": "string"},
                    {"name": "id_type", "type": "string"},
                    {"name": "id", "type": ["null", "string"], "pii": "subject"},
                    {"name": "note", "type": ["null", "string"], "pii": "subject"},
                ],
            },
        ],
        "default": None,
    },
    {
        "name": "steps",
        "type": {
            "type": "array",
            "items": {
                "type": "record",
                "name": "Step",
                "fields": [
                    {"name": "name", "type": "string"},
                    {"name": "subject", "type": ["null", "string"], "pii": "subject"},
                    {"name": "free", "type": ["null", "string"], "pii": "unattributed"},
                ],
            },
        },
        "default": [],
    },
]


# What services add first: a party of their own, whose tenant no reviewed schema has in clear.
APPROVER = {
    "type": "record",
    "name": "Approver",
    "fields": [
        {"name": "tenant", "type": "string", "pii": "none"},
        {"name": "id_type", "type": "string", "pii": "none"},
        {"name": "id", "type": "string", "pii": "actor"},
    ],
}
MORE = {
    "authentication": WIDER,
    "admin-action": [{"name": "approver", "type": ["null", APPROVER], "default": None}],
}


def schema_of(family: str) -> dict[str, Any]:
    schema = avro_schemas.load(family)
    return {**schema, "fields": [*schema["fields"], *MORE.get(family, [])]}


PARSED = {family: fastavro.parse_schema(schema_of(family)) for family in FAMILIES}


class Schemas(SchemaRegistry):
    def __init__(self) -> None:
        super().__init__("http://none.invalid")

    async def by_id(self, schema_id: int, subject: str) -> RegisteredSchema:
        family = FAMILIES[schema_id]
        named = {subject_of(f"audit.raw.{family}"): 1}
        return RegisteredSchema(schema_id, json.dumps(schema_of(family)), named)


class Store:
    """``KeyStore`` in memory; ``erased``: subjects whose key is gone, by hash."""

    def __init__(self) -> None:
        self.rows: dict[bytes, StoredKey] = {}
        self.erased: set[bytes] = set()

    async def subject_keys(self, proposed: Sequence[EscrowEntry]) -> Sequence[StoredKey]:
        for entry in proposed:
            ref = UUID(bytes=entry.subject_ref)
            row = StoredKey(entry.subject_hash, 1, ref, entry.tenant, entry.wrapped_key)
            self.rows.setdefault(entry.subject_hash, row)
        return [
            self.rows[entry.subject_hash]
            for entry in proposed
            if entry.subject_hash not in self.erased
        ]

    async def keys_by_ref(self, refs: Sequence[UUID]) -> Sequence[StoredKey]:
        return [row for row in self.rows.values() if row.subject_ref in refs]

    async def tenants(self) -> Mapping[str, bytes]:
        return {}


@dataclass
class Record:
    offset: int
    value: bytes | None
    timestamp: int = OCCURRED_AT_US // 1000
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class World:
    """Two preparers over one store of keys: with the compiled form, and without."""

    def __init__(self, *, cache_size: int = 100_000) -> None:
        self.store = Store()
        self.provider = LocalKeyProvider(bytes(range(32)))
        wrapped = {
            tenant: self.provider.wrap(bytes(range(32)), b"tenant:" + tenant.encode())
            for tenant in TENANTS
        }
        self.ring = native.KeyRing()
        self.compiled, self.keys = self._preparer(self.ring, cache_size)
        self.plain, _ = self._preparer(None, cache_size)
        for preparer in (self.compiled, self.plain):
            preparer.know_tenants(wrapped)

    def _preparer(self, ring: Any, cache_size: int) -> tuple[Preparer, SubjectKeys]:
        async def journal(_entries: Sequence[EscrowEntry]) -> None: ...

        keys = SubjectKeys(self.provider, self.store, journal, cache_size=cache_size, ring=ring)
        preparer = Preparer(
            Decoders(Schemas(), policies(), Limits()),
            keys,
            limits=Limits(),
            horizon=Horizon.of(future_s=300, retention_days=2557, import_retention_days=7305),
            import_key=None,
        )
        return preparer, keys

    def prepare(self, preparer: Preparer, family: str, *values: bytes | None) -> PreparedBatch:
        """The last batch, after one that made the schema known."""
        first = [Record(0, value_of(family, an_event(family)))]
        records = [Record(offset, value) for offset, value in enumerate(values)]

        async def both() -> PreparedBatch:
            for each in (first, records):
                batch = RecordBatch(f"audit.raw.{family}", 0, 0, len(each), each, 1)
                (prepared,) = await preparer.prepare([(batch, HEAD)])
            return prepared

        return asyncio.run(both())

    def open(self, event: SealedEvent) -> dict[str, Any]:
        found = asyncio.run(self.keys.by_ref([UUID(bytes=b.subject_ref) for b in event.blobs]))
        opened: dict[str, Any] = {}
        for blob in event.blobs:
            key = found[UUID(bytes=blob.subject_ref)]
            opened |= open_blob(key, event.event_id, blob)
        return opened


def value_of(family: str, event: Mapping[str, Any]) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, PARSED[family], dict(event))
    return frame(FAMILIES.index(family), body.getvalue())


def bodies(chosen: Sequence[SealedEvent]) -> bytes:
    destination = IndexDestination(
        None,  # type: ignore[arg-type]
        Documents(late_after_s=LATE_AFTER_S),
        None,  # type: ignore[arg-type]
        prefix="audit-events",
        bulk_max_bytes=1 << 16,
        retry_first_s=1,
        retry_max_s=1,
    )
    whole = [LeafRange(1, NAME, 7, chosen)]
    return b"".join(chunk.text for chunk in destination.chunks(whole, 4096))


FACTS = (
    "event_id",
    "family",
    "occurred_at_us",
    "offset",
    "broker_timestamp_ms",
    "schema_id",
    "clear",
    "opened",
    "canonical",
    "leaf_hash",
    "actor_ref",
    "tenant",
)


def check_same(world: World, family: str, *values: bytes | None) -> list[SealedEvent]:
    """Both forms agree about every record; the events of the compiled one."""
    ours = world.prepare(world.compiled, family, *values)
    theirs = world.prepare(world.plain, family, *values)

    assert [(dead.record.offset, dead.reason, dead.detail) for dead in ours.dead] == [
        (dead.record.offset, dead.reason, dead.detail) for dead in theirs.dead
    ]
    assert len(ours.events) == len(theirs.events)
    for one, other in zip(ours.events, theirs.events, strict=True):
        for fact in FACTS:
            assert getattr(one, fact) == getattr(other, fact), fact
        assert [blob.subject_ref for blob in one.blobs] == [b.subject_ref for b in other.blobs]
        assert world.open(one) == world.open(other) == one.opened
        one.stored_at_us = other.stored_at_us = STORED_AT_US
    packer = rows.RowPacker(late_after_s=LATE_AFTER_S)
    for stored_at_us in (STORED_AT_US, None):
        mine = b"".join(packer.events(1, 7, ours.events, stored_at_us))
        assert mine == b"".join(packer.events(1, 7, theirs.events, stored_at_us))
    assert b"".join(rows.leaves(3, 7, ours.events)) == b"".join(rows.leaves(3, 7, theirs.events))
    assert bodies(ours.events) == bodies(theirs.events)
    mine = b"".join(archive_format.leaf_datums(ours.events, 7))
    assert mine == b"".join(archive_format.leaf_datums(theirs.events, 7))
    return ours.events


def is_compiled(event: SealedEvent) -> bool:
    return isinstance(event, native.SealedEvent)


WORLD = World() if native else None
