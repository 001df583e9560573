"""The worker's own decode, judge and seal without any server: keys and schemas are in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import avro_schemas
from benchmark.kinds import TENANT
from pipeline.codec.decoders import Decoders
from pipeline.codec.judge import Horizon
from pipeline.codec.limits import Limits
from pipeline.codec.registry import RegisteredSchema, SchemaRegistry
from pipeline.domain.escrow import EscrowEntry
from pipeline.domain.logs import RAW_PREFIX, LogName, subject_of
from pipeline.domain.records import LogHead, PreparedBatch, RecordBatch
from pipeline.entrypoints.preparing import policies
from pipeline.importers.encode import RawRecord
from pipeline.keys.provider import KEY_BYTES, LocalKeyProvider
from pipeline.keys.subjects import StoredKey, SubjectKeys
from pipeline.native import native
from sinks.prepare import Preparer

SCHEMA_IDS = {family: number for number, family in enumerate(avro_schemas.families(), 1)}


@dataclass(slots=True)
class FetchedRecord:
    """What aiokafka gives; its own record is a dataclass of the same fields and more."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class ShippedSchemas(SchemaRegistry):
    """A registry that has this release's schemas under the given ids and is never asked."""

    def __init__(self, schema_ids: Mapping[str, int]) -> None:
        super().__init__("http://none.invalid")
        self._shipped = {
            number: RegisteredSchema(
                number,
                json.dumps(avro_schemas.load(family)),
                {subject_of(RAW_PREFIX + family): 1},
            )
            for family, number in schema_ids.items()
        }

    async def by_id(self, schema_id: int, subject: str) -> RegisteredSchema:  # noqa: ARG002
        return self._shipped[schema_id]


class KeysInMemory:
    """``pipeline.keys.subjects.KeyStore``: every proposal wins."""

    async def subject_keys(self, proposed: Sequence[EscrowEntry]) -> Sequence[StoredKey]:
        return [
            StoredKey(
                entry.subject_hash,
                entry.generation,
                UUID(bytes=entry.subject_ref),
                entry.tenant,
                entry.wrapped_key,
            )
            for entry in proposed
        ]

    async def keys_by_ref(self, refs: Sequence[UUID]) -> Sequence[StoredKey]:  # noqa: ARG002
        return []

    async def tenants(self) -> Mapping[str, bytes]:
        return {}


def make_preparer(schema_ids: Mapping[str, int] = SCHEMA_IDS) -> Preparer:
    """A preparer that knows the bench's tenant."""
    provider = LocalKeyProvider(os.urandom(KEY_BYTES))

    async def no_journal(_entries: Sequence[EscrowEntry]) -> None:
        pass

    limits = Limits()
    preparer = Preparer(
        Decoders(ShippedSchemas(schema_ids), policies(), limits),
        SubjectKeys(
            provider,
            KeysInMemory(),
            no_journal,
            cache_size=1_000_000,
            ring=None if native is None else native.KeyRing(),
        ),
        limits=limits,
        horizon=Horizon.of(future_s=300, retention_days=2_557, import_retention_days=7_305),
        import_key=None,
    )
    wrapped = provider.wrap(os.urandom(KEY_BYTES), b"tenant:" + TENANT.encode())
    preparer.know_tenants({TENANT: wrapped})
    return preparer


def batch_of(topic: str, partition: int, records: Sequence[RawRecord], at_ms: int) -> RecordBatch:
    """Records as a fetch gives them, from offset 0 on."""
    fetched = [
        FetchedRecord(offset, at_ms, record.key, record.value)
        for offset, record in enumerate(records)
    ]
    size = sum(len(record.value) for record in records)
    return RecordBatch(topic, partition, 0, len(fetched), fetched, size)


async def sealed(preparer: Preparer, batch: RecordBatch, log_id: int) -> PreparedBatch:
    """The batch prepared; nothing of it may be a dead letter.

    Raises:
        ValueError: The preparer refused an event of the bench.
    """
    head = LogHead(log_id, LogName(batch.topic, batch.partition, 0), 0, 0)
    (prepared,) = await preparer.prepare([(batch, head)])
    if prepared.dead:
        raise ValueError(f"{len(prepared.dead)} events refused: {prepared.dead[0].reason}")
    return prepared
