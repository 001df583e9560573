"""The ledger's side of keys: subjects, tenants and dead letters, as wrapped keys in PostgreSQL.

Guarantees that of several callers who propose a key for the same thing at the same moment, all get
the one that was stored, durably. Never sees a clear key or a clear id of a person.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pipeline.db.connection import CONFLICTS, Connection
from pipeline.domain.errors import Unavailable
from pipeline.domain.escrow import EscrowEntry
from pipeline.keys.subjects import NEVER_ERASED, StoredKey

CONFLICT_TRIES = 5

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_SUBJECT_KEYS = """
SELECT subject_hash, generation, subject_ref, tenant, wrapped_key, created, escrowed,
    erased_until
FROM subject_keys(%s::bytea[], %s::text[], %s::text[], %s::uuid[], %s::bytea[], %s::timestamptz[])
"""
_BY_REF = """
SELECT subject_hash, generation, subject_ref, tenant, id_type, wrapped_key, first_occurred_at,
    escrow
FROM subject_keys_by_ref(%s::uuid[])
"""
_MARK = "SELECT mark_escrowed(%s::uuid[], %s)"
_UNESCROWED = "SELECT * FROM unescrowed_keys(%s)"
_RESTORE = """
SELECT restore_subject_keys(%s::bytea[], %s::integer[], %s::text[], %s::text[], %s::uuid[],
    %s::bytea[], %s::timestamptz[])
"""
_NEWEST_ESCROW = "SELECT newest_escrow()"
_TENANTS = "SELECT tenant, wrapped_key FROM tenants"
_TENANT_ROWS = """
SELECT tenant, name, retention_days, created_at FROM tenants ORDER BY tenant
"""
_EPOCH_OF_ERASURES = "SELECT epoch FROM erasure_state"
_CREATE_TENANT = """
INSERT INTO tenants (tenant, name, wrapped_key, retention_days) VALUES (%s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""
_CREATE_DEAD_LETTER_KEYS = """
INSERT INTO dead_letter_key (source_topic, source_partition, source_offset, source_epoch,
    wrapped_key, reason, raw_key_hash)
SELECT * FROM unnest(%b::text[], %b::integer[], %b::bigint[], %b::integer[], %b::bytea[], %b::text[],
    %b::bytea[]) AS proposed (topic, partition, "offset", epoch, wrapped_key, reason, raw_key_hash)
ORDER BY topic, partition, "offset", epoch
ON CONFLICT DO NOTHING
"""
_DEAD_LETTER_KEYS = """
SELECT source_topic, source_partition, source_offset, source_epoch, wrapped_key
FROM dead_letter_key
JOIN unnest(%s::text[], %s::integer[], %s::bigint[], %s::integer[])
    AS wanted (topic, partition, "offset", epoch)
    ON source_topic = wanted.topic AND source_partition = wanted.partition
    AND source_offset = wanted."offset" AND source_epoch = wanted.epoch
WHERE wrapped_key IS NOT NULL
"""

Position = tuple[str, int, int, int]  # topic, partition, offset, epoch


@dataclass(frozen=True, slots=True)
class DeadLetterKey:
    """A proposed key of one dead letter, wrapped. ``raw_key_hash``: keyed hash of the record key."""

    topic: str
    partition: int
    offset: int
    epoch: int
    wrapped_key: bytes
    reason: str
    raw_key_hash: bytes | None = None

    @property
    def position(self) -> Position:
        """Of the record."""
        return self.topic, self.partition, self.offset, self.epoch


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as it is shown to people."""

    tenant: str
    name: str
    retention_days: int | None
    created_at: datetime


class SubjectStore:
    """Keys in PostgreSQL, over one connection; any call may be repeated after ``Unavailable``."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._connection = Connection(url, name="keys", timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def subject_keys(self, proposed: Sequence[EscrowEntry]) -> Sequence[StoredKey]:
        """See ``pipeline.keys.subjects.KeyStore``; each subject hash once.

        A subject erased at or after its ``first_occurred_at_us`` is left out: seal to nobody.
        """
        columns = [
            [entry.subject_hash for entry in proposed],
            [entry.tenant for entry in proposed],
            [entry.id_type for entry in proposed],
            [UUID(bytes=entry.subject_ref) for entry in proposed],
            [entry.wrapped_key for entry in proposed],
            [_EPOCH + timedelta(microseconds=entry.first_occurred_at_us) for entry in proposed],
        ]
        for _try in range(CONFLICT_TRIES):
            try:
                async with self._connection.session(*CONFLICTS) as connection:
                    cursor = await connection.cursor(binary=True).execute(_SUBJECT_KEYS, columns)
                    return [
                        StoredKey(
                            *(subject_hash, generation, ref, tenant, wrapped_key, created, escrowed),
                            NEVER_ERASED if until is None else _us(until),
                        )
                        for subject_hash, generation, ref, tenant, wrapped_key, created, escrowed,
                        until in await cursor.fetchall()
                    ]  # fmt: skip
            except CONFLICTS:
                continue
        raise Unavailable("postgres", "the subject keys are locked")

    async def keys_by_ref(self, refs: Sequence[UUID]) -> Sequence[StoredKey]:
        """See ``pipeline.keys.subjects.KeyStore``."""
        async with self._connection.session() as connection:
            cursor = await connection.cursor(binary=True).execute(_BY_REF, [list(refs)])
            return [
                StoredKey(subject_hash, generation, ref, tenant, wrapped_key)
                for subject_hash, generation, ref, tenant, _id_type, wrapped_key, _at, _escrow
                in await cursor.fetchall()
            ]  # fmt: skip

    async def unescrowed(self, refs: Collection[bytes]) -> Sequence[EscrowEntry]:
        """See ``pipeline.domain.escrow.EscrowSource``."""
        wanted = [UUID(bytes=ref) for ref in refs]
        async with self._connection.session() as connection:
            cursor = await connection.cursor(binary=True).execute(_BY_REF, [wanted])
            return [
                EscrowEntry(
                    subject_hash=subject_hash,
                    generation=generation,
                    subject_ref=ref.bytes,
                    tenant=tenant,
                    id_type=id_type,
                    wrapped_key=wrapped_key,
                    first_occurred_at_us=_us(first_occurred_at),
                )
                for subject_hash, generation, ref, tenant, id_type, wrapped_key, first_occurred_at,
                escrow in await cursor.fetchall()
                if escrow is None
            ]  # fmt: skip

    async def mark(self, refs: Collection[bytes], name: str) -> Collection[bytes]:
        """See ``pipeline.domain.escrow.EscrowSource``."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_MARK, [[UUID(bytes=ref) for ref in refs], name])
            (erased,) = await cursor.fetchone() or ([],)
            return [ref.bytes for ref in erased]

    async def unescrowed_refs(self, at_most: int) -> list[bytes]:
        """Subjects with a living key that no vault object is remembered for. Raises ``Unavailable``."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_UNESCROWED, [at_most])
            return [ref.bytes for (ref,) in await cursor.fetchall()]

    async def newest_escrow(self) -> str | None:
        """The newest vault object that holds keys of this database. Raises ``Unavailable``."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_NEWEST_ESCROW)
            row = await cursor.fetchone()
            return row[0] if row else None

    async def restore(self, entries: Sequence[EscrowEntry]) -> int:
        """See ``pipeline.domain.escrow.KeyStore``.

        Where a key made since the rollback stands in a row's place, the row that comes back becomes
        a generation of its own, so that the blobs of both open.
        """
        columns = [
            [entry.subject_hash for entry in entries],
            [entry.generation for entry in entries],
            [entry.tenant for entry in entries],
            [entry.id_type for entry in entries],
            [UUID(bytes=entry.subject_ref) for entry in entries],
            [entry.wrapped_key for entry in entries],
            [_EPOCH + timedelta(microseconds=entry.first_occurred_at_us) for entry in entries],
        ]
        async with self._connection.session() as connection:
            cursor = await connection.execute(_RESTORE, columns)
            (inserted,) = await cursor.fetchone() or (0,)
            return int(inserted)

    async def tenants(self) -> dict[str, bytes]:
        """The wrapped key of each tenant. Raises ``Unavailable``."""
        async with self._connection.session() as connection:
            cursor = await connection.cursor(binary=True).execute(_TENANTS)
            return dict(await cursor.fetchall())

    async def list_tenants(self) -> list[Tenant]:
        """The tenants as people see them, by id. Raises ``Unavailable``."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(_TENANT_ROWS)
            return [Tenant(*row) for row in await cursor.fetchall()]

    async def erasure_epoch(self) -> int:
        """How many erasures there were. Raises ``Unavailable``."""
        rows = await self._connection.all(_EPOCH_OF_ERASURES)
        return int(rows[0][0]) if rows else 0

    async def create_tenant(
        self, tenant: str, *, name: str, wrapped_key: bytes, retention_days: int | None = None
    ) -> bool:
        """Add a tenant; False when it is there, unchanged. Durable on return.

        Raises:
            Unavailable: Nothing is known; ask again, and take False for success.
        """
        async with self._connection.session() as connection:
            cursor = await connection.execute(
                _CREATE_TENANT, [tenant, name, wrapped_key, retention_days]
            )
            return cursor.rowcount == 1

    async def dead_letter_keys(self, proposed: Sequence[DeadLetterKey]) -> dict[Position, bytes]:
        """Find or make the wrapped key of each dead letter, by its position; durable on return.

        The first proposal for a position stays: a dead letter that is produced again after a crash
        is encrypted under the same key. One whose key an erasure destroyed is left out, for ever.
        Raises ``Unavailable``.
        """
        positions = [key.position for key in proposed]
        async with self._connection.session() as connection:
            made = await connection.execute(
                _CREATE_DEAD_LETTER_KEYS,
                [
                    *_columns(positions),
                    [key.wrapped_key for key in proposed],
                    [key.reason for key in proposed],
                    [key.raw_key_hash for key in proposed],
                ],
            )
        if made.rowcount == len(proposed):  # none was there before: no need to look
            return {key.position: key.wrapped_key for key in proposed}
        return await self.stored_dead_letter_keys(positions)

    async def stored_dead_letter_keys(self, positions: Sequence[Position]) -> dict[Position, bytes]:
        """The wrapped keys of dead letters; positions without one, or no more, are left out.

        Raises ``Unavailable``.
        """
        async with self._connection.session() as connection:
            cursor = await connection.cursor(binary=True).execute(
                _DEAD_LETTER_KEYS, _columns(positions)
            )
            return {
                (topic, partition, offset, epoch): key
                for topic, partition, offset, epoch, key in await cursor.fetchall()
            }


def _columns(positions: Sequence[Position]) -> list[list[object]]:
    """Topics, partitions, offsets and epochs."""
    return [list(column) for column in zip(*positions, strict=True)] or [[], [], [], []]


def _us(time: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (time - _EPOCH) // timedelta(microseconds=1)
