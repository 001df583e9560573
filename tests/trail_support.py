"""A small trail in real stores, whole and signed, for tests that spoil it and look whether it is noticed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from pipeline.compliance.archive_walk import ArchiveWalk
from pipeline.compliance.authority import Authorities
from pipeline.compliance.authority_reader import AuthorityReader
from pipeline.compliance.checkpoint_store import CheckpointObjects, CheckpointTable
from pipeline.compliance.findings import Finding, Kind, Store
from pipeline.compliance.trail_reader import TrailReader
from pipeline.compliance.verify import Options, Scope, Verification
from pipeline.compliance.verify_checkpoints import Checkpoints
from pipeline.compliance.verify_ends import Parts
from pipeline.compliance.verify_index import DocumentCheck
from pipeline.compliance.verify_intake import Topics
from pipeline.compliance.verify_state import Progress
from pipeline.db.connection import Connection
from pipeline.domain.checkpoints import Checkpoint, origin_of
from pipeline.domain.records import LogHead, SealedEvent
from pipeline.keys.note_keys import NoteSigner, sign_note
from pipeline.keys.subjects import SubjectKey
from pipeline.testing import OCCURRED_AT_US
from sinks.expiring import ExpiringLeaves
from sinks.index_reader import IndexReader
from sinks.ledger import PostgresLedger
from sinks.s3 import Lock
from tests.archive_support import Gateway, escrowed_already, open_gateway
from tests.index_support import KEY, LATE_AFTER_S, IndexServer, open_index_server, sign_ins
from tests.ledger_support import Database, a_batch

ORIGIN = "trail.test"
SIGNER = NoteSigner(ORIGIN, bytes(range(32)))
DAY_US = 86_400_000_000
TOPIC = "audit.raw.authentication"


@dataclass
class Trail:
    """One log, and where it is stored. ``per_object``: leaves of an archive object."""

    database: Database
    gateway: Gateway
    server: IndexServer
    ledger: PostgresLedger
    head: LogHead
    per_object: int = 10
    events: list[SealedEvent] = field(default_factory=list)

    @property
    def log(self) -> str:
        return str(self.head.name)

    def event_id(self, leaf: int) -> str:
        return str(UUID(bytes=self.events[leaf].event_id))

    def copied(self, database: Database) -> Trail:
        """The same over a copy of its database."""
        ledger = PostgresLedger(database.urls["writer"])
        return replace(self, database=database, ledger=ledger, events=list(self.events))

    def spoil(self, *statements: str, values: Iterable[Any] = ()) -> None:
        """As a superuser who switches off what stands in the way."""
        with psycopg.connect(self.database.urls["admin"]) as connection:
            tables = [
                row[0]
                for row in connection.execute(
                    "SELECT c.relname FROM pg_class c WHERE c.relkind IN ('r', 'p')"
                    " AND c.relnamespace = 'public'::regnamespace"
                )
            ]
            for way in ("DISABLE", "ENABLE"):
                for table in tables:
                    statement = f"ALTER TABLE IF EXISTS {{}} {way} TRIGGER ALL"
                    connection.execute(sql.SQL(statement).format(sql.Identifier(table)))
                if way == "DISABLE":
                    for statement in statements:
                        connection.execute(statement, list(values) or None)

    async def grow(self, count: int, *, at_us: int | None = None) -> None:
        """Events through ledger, index and archive, in health."""
        options = {} if at_us is None else {"at_us": at_us}
        await self.store(sign_ins(count, **options))

    async def store(self, fresh: list[SealedEvent]) -> None:
        """These events through ledger, index and archive, in health."""
        for number, event in enumerate(fresh, self.head.next_offset):
            event.offset = number
        (written,) = await self.ledger.write([a_batch(self.head, fresh)])
        self.head = written.head
        self.events += fresh
        index = self.server.destination()
        archive = self.gateway.destination(
            None,
            read_ledger=self.ledger.read,
            ensure_escrowed=escrowed_already,
            max_events=self.per_object,
        )
        try:
            for name, destination in (("index", index), ("archive", archive)):
                await self.ledger.advance(name, await destination.write([written.accepted]))
        finally:
            await index.close()

    async def sign(self) -> None:
        """A checkpoint of the head as it is."""
        head = await self.ledger.head(self.head.log_id)
        checkpoint = Checkpoint(origin_of(ORIGIN, head.name), head.size, head.root)
        note = sign_note(checkpoint.text, [SIGNER]).encode()
        now = datetime.now(UTC)
        objects = CheckpointObjects(self.gateway.s3, bucket=self.gateway.archive)
        await objects.put(head.name, head.size, note, Lock("GOVERNANCE", now + timedelta(days=1)))
        connection = Connection(self.database.urls["signer"], name="signer")
        await CheckpointTable(connection).insert(head.log_id, head.name, checkpoint, note, now)
        await connection.close()

    async def verify(
        self,
        *,
        scope: Scope | None = None,
        topics: Topics | None = None,
        sources: bool = True,
        keys: Mapping[UUID, SubjectKey] | None = None,
        state_file: Path | None = None,
        stores: tuple[str, ...] = ("ledger", "archive", "index"),
        trusted: Any = (SIGNER.verifier,),
    ) -> Progress:
        """A verification of everything, as ``audit_auditor``."""
        known = {KEY_REF: KEY} if keys is None else keys

        async def keys_of(refs: Iterable[UUID]) -> Mapping[UUID, SubjectKey]:
            return {ref: known[ref] for ref in refs if ref in known}

        connection = Connection(self.database.urls["auditor"], name="verify")
        expiring = ExpiringLeaves(self.database.urls["auditor"])
        make_parts = partial(
            Parts,
            TrailReader(connection),
            Authorities(
                AuthorityReader(
                    connection,
                    expiring,
                    self.gateway.s3,
                    archive_bucket=self.gateway.archive,
                    vault_bucket=self.gateway.vault,
                )
            ),
            "ledger" in stores,
            ArchiveWalk(
                self.gateway.s3,
                archive_bucket=self.gateway.archive,
                vault_bucket=self.gateway.vault,
            )
            if "archive" in stores
            else None,
            IndexReader(self.server.client, self.server.prefix) if "index" in stores else None,
            DocumentCheck(
                prefix=self.server.prefix,
                late_after_s=LATE_AFTER_S,
                sources=sources,
                keys_of=keys_of if known else None,
            ),
            Checkpoints(
                self.gateway.s3,
                bucket=self.gateway.archive,
                table=CheckpointTable(connection),
                keys=trusted,
                origin_prefix=ORIGIN,
            )
            if trusted
            else None,
        )
        options = Options(scope or Scope(), {}, topics, state_file)
        try:
            return await Verification(make_parts, options).run()
        finally:
            await expiring.close()
            await connection.close()


KEY_REF = UUID(bytes=KEY.ref)


@asynccontextmanager
async def a_trail(database: Database, *, leaves: int = 25) -> AsyncIterator[Trail]:
    """A log of ``leaves`` events in archive objects of ten at most, the first half of them in one month,
    the others in the next; signed after each half.
    """
    async with open_gateway() as gateway, open_index_server() as server:
        ledger = PostgresLedger(database.urls["writer"])
        await ledger.open()
        try:
            head = await ledger.open_log(TOPIC, 0, cluster_id="c", topic_id="t")
            trail = Trail(database, gateway, server, ledger, head)
            await trail.grow(leaves // 4)
            await trail.grow(leaves // 2 - leaves // 4)
            await trail.sign()
            await trail.grow(leaves - leaves // 2, at_us=OCCURRED_AT_US + 30 * DAY_US)
            await trail.sign()
            await ledger.close()  # it connects again when it is used
            yield trail
        finally:
            await ledger.close()


def found(progress: Progress) -> list[tuple[Kind, Store, int | None]]:
    """Kind, store and leaf of what is listed."""
    return sorted(
        ((one.kind, one.store, one.leaf) for one in progress.findings.listed),
        key=lambda one: (one[0], one[1], -1 if one[2] is None else one[2]),
    )


def of(progress: Progress, kind: Kind, store: Store) -> list[Finding]:
    """The findings of one sort."""
    return [one for one in progress.findings.listed if (one.kind, one.store) == (kind, store)]
