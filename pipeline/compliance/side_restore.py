"""A period of the archive in a schema of its own, for looking at it without touching the ledger.

Every object is verified when it is read, and against the ledger's leaves, before any of it is loaded.
Nobody who was erased comes back: a blob whose key is gone is not loaded, nor one that an unfinished
redaction is about. As the owner: making a schema is nobody else's right.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import sql

from pipeline.compliance.candidates import runs
from pipeline.compliance.keeping import microseconds
from pipeline.db.connection import Connection, PostgresConnection
from pipeline.domain.errors import ChainBroken, ConfigurationError
from pipeline.domain.logs import LogName
from pipeline.domain.records import LeafRange, SealedEvent
from sinks import rows
from sinks.archive_reader import ArchiveReader
from sinks.rows import RowPacker
from sinks.subject_store import SubjectStore

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
LABEL = "audit-trail restore"  # what a schema of ours is known by
_KEYS_AT_ONCE = 5_000

_COMMENT = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s"
_MAKE = """
CREATE SCHEMA {schema} AUTHORIZATION audit_owner;
COMMENT ON SCHEMA {schema} IS {comment};
CREATE TABLE {schema}.audit_logs (LIKE public.audit_logs INCLUDING DEFAULTS INCLUDING COMMENTS,
    PRIMARY KEY (log_id, leaf_index));
CREATE TABLE {schema}.audit_blobs (LIKE public.audit_blobs INCLUDING DEFAULTS INCLUDING COMMENTS,
    PRIMARY KEY (log_id, leaf_index, subject_ref));
ALTER TABLE {schema}.audit_logs OWNER TO audit_owner;
ALTER TABLE {schema}.audit_blobs OWNER TO audit_owner;
ALTER TABLE {schema}.audit_logs ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON {schema}.audit_logs FOR SELECT
    USING (tenant = current_setting('audit.tenant', true));
GRANT USAGE ON SCHEMA {schema} TO audit_reader, audit_auditor, audit_writer;
GRANT SELECT ON {schema}.audit_logs TO audit_reader, audit_auditor, audit_writer;
GRANT SELECT ON {schema}.audit_blobs TO audit_auditor, audit_writer;
"""
_LOG_IDS = "SELECT name, log_id FROM public.log_heads"
_HASHES = """
SELECT leaf_index, leaf_hash FROM public.leaves
WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s ORDER BY leaf_index
"""
_UNFINISHED = """
SELECT leaf_index FROM public.redaction_flag JOIN public.removal_request USING (request_id)
WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s AND state <> 'done'
"""
_CLEAR = """
DELETE FROM {schema}.{table} WHERE log_id = %s AND leaf_index >= %s AND leaf_index < %s
"""


@dataclass(slots=True)
class Restored:
    """What one log gave. ``withheld``: blobs of erased persons and of unfinished redactions."""

    log: str
    events: int = 0
    blobs: int = 0
    withheld: int = 0


class SideRestore:
    """Loads leaves whose ``occurred_at`` is in a period into one schema; may be repeated."""

    def __init__(
        self,
        url: str,
        archive: ArchiveReader,
        store: SubjectStore,
        schema: str,
        *,
        late_after_s: int,
        timeout_s: float = 10.0,
    ) -> None:
        if not _NAME.fullmatch(schema) or schema == "public" or schema.startswith("pg_"):
            raise ConfigurationError(f"--into {schema}: not a name of a schema of its own")
        self._connection = Connection(url, name="side-restore", timeout_s=timeout_s)
        self._archive = archive
        self._store = store
        self._schema = schema
        self._packer = RowPacker(late_after_s=late_after_s)

    async def close(self) -> None:
        """Close the connection; the rest belongs to whoever made it."""
        await self._connection.close()

    async def make(self, period: str) -> None:
        """The schema with its tables, labelled; one of ours that is there stays, and is filled on.

        Raises:
            ConfigurationError: A schema of this name is somebody else's.
        """
        async with self._connection.session() as connection:
            cursor = await connection.execute(_COMMENT, [self._schema])
            row = await cursor.fetchone()
            label = f"{LABEL} of {period}"
            if row is not None and row[0] != label:
                raise ConfigurationError(
                    f"schema {self._schema} is there and not a restore of {period}:"
                    " choose another name, or drop it"
                )
            if row is None:
                made = sql.SQL(_MAKE).format(
                    schema=sql.Identifier(self._schema), comment=sql.Literal(label)
                )
                async with connection.transaction():
                    await connection.execute(made)

    async def load(
        self,
        log: LogName,
        since: datetime,
        until: datetime,
        *,
        on_leaves: Callable[[int], None] = lambda _leaves: None,
    ) -> Restored:
        """The leaves of one log in a period; ``until`` is not included. Durable object by object.

        Raises:
            ChainBroken: An object is not what was stored, or not what the ledger has.
            Unavailable: Load again; what is there is replaced by the same.
        """
        restored = Restored(str(log))
        since_us, until_us = microseconds(since), microseconds(until)
        async with self._connection.session() as connection:
            cursor = await connection.execute(_LOG_IDS)
            log_id = dict(await cursor.fetchall()).get(str(log))
        if log_id is None:
            raise ConfigurationError(
                f"the ledger has no log {log}: run `audit-trail restore` first"
            )
        async for found in self._archive.ranges(log):
            info = found.info
            if info.max_occurred_at_us < since_us or info.min_occurred_at_us >= until_us:
                continue
            leaves = await self._archive.read(found, log_id)
            await self._compare(leaves)
            chosen = {
                leaf: event
                for leaf, event in enumerate(leaves.events, leaves.first_leaf)
                if since_us <= event.occurred_at_us < until_us
            }
            await self._withhold(leaves, chosen, restored)
            await self._store_range(leaves, chosen)
            restored.events += len(chosen)
            restored.blobs += sum(len(event.blobs) for event in chosen.values())
            on_leaves(len(chosen))
        return restored

    async def _compare(self, leaves: LeafRange) -> None:
        """Every leaf of the object that the ledger knows must be the same there."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(
                _HASHES, [leaves.log_id, leaves.first_leaf, leaves.next_leaf]
            )
            held = await cursor.fetchall()
        for leaf, leaf_hash in held:
            if leaves.events[leaf - leaves.first_leaf].leaf_hash != bytes(leaf_hash):
                raise ChainBroken(
                    str(leaves.name), f"leaf {leaf} differs between ledger and archive"
                )

    async def _withhold(
        self, leaves: LeafRange, chosen: Mapping[int, SealedEvent], restored: Restored
    ) -> None:
        """Take away the blobs that must not come back."""
        async with self._connection.session() as connection:
            cursor = await connection.execute(
                _UNFINISHED, [leaves.log_id, leaves.first_leaf, leaves.next_leaf]
            )
            unfinished = {leaf for (leaf,) in await cursor.fetchall()}
        refs = sorted({blob.subject_ref for event in chosen.values() for blob in event.blobs})
        living: set[bytes] = set()
        for start in range(0, len(refs), _KEYS_AT_ONCE):
            part = [UUID(bytes=ref) for ref in refs[start : start + _KEYS_AT_ONCE]]
            living |= {key.subject_ref.bytes for key in await self._store.keys_by_ref(part)}
        for leaf, event in chosen.items():
            kept = [
                blob
                for blob in event.blobs
                if blob.subject_ref in living and leaf not in unfinished
            ]
            restored.withheld += len(event.blobs) - len(kept)
            event.blobs = kept

    async def _store_range(self, leaves: LeafRange, chosen: Mapping[int, SealedEvent]) -> None:
        """One object's rows, instead of those that an earlier try left."""
        async with self._inside() as connection:
            for table in ("audit_logs", "audit_blobs"):
                clear = sql.SQL(_CLEAR).format(
                    schema=sql.Identifier(self._schema), table=sql.Identifier(table)
                )
                await connection.execute(
                    clear, [leaves.log_id, leaves.first_leaf, leaves.next_leaf]
                )
            for first, count in runs(sorted(chosen)):
                events = [chosen[leaf] for leaf in range(first, first + count)]
                await self._copy(
                    connection,
                    rows.COPY_EVENTS,
                    self._packer.events(leaves.log_id, first, events, None),
                )
                blobs = rows.blobs(leaves.log_id, first, events)
                await self._copy(connection, rows.COPY_BLOBS, blobs)

    @asynccontextmanager
    async def _inside(self) -> AsyncIterator[PostgresConnection]:
        """A transaction in which a table's bare name means the side schema's."""
        async with self._connection.session() as connection, connection.transaction():
            await connection.execute(
                sql.SQL("SET LOCAL search_path = {}, pg_catalog").format(
                    sql.Identifier(self._schema)
                )
            )
            yield connection

    @staticmethod
    async def _copy(
        connection: PostgresConnection, statement: str, pieces: Sequence[bytes]
    ) -> None:
        if not pieces:
            return
        async with connection.cursor().copy(statement.encode()) as copy:
            await copy.write(rows.stream(pieces))
