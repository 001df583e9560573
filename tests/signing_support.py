"""What the signer's tests share: logs that grow on a real database, signers over one bucket."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from pipeline.compliance.checkpoint_store import (
    CheckpointObjects,
    CheckpointTable,
    SignedCheckpoint,
    read_stored,
)
from pipeline.compliance.log_signer import LogSigner, RoundKeys
from pipeline.compliance.metrics import SignerMetrics
from pipeline.compliance.signer import Signer
from pipeline.compliance.signer_ledger import SignerLedger
from pipeline.compliance.tile_store import TileStore
from pipeline.compliance.witnesses import Witness, Witnesses
from pipeline.db.connection import Connection
from pipeline.domain.logs import LogName
from pipeline.domain.records import LogHead
from pipeline.keys.note_keys import NoteSigner
from sinks.ledger import PostgresLedger
from tests.archive_support import Gateway, open_gateway
from tests.ledger_support import Database, a_batch, a_sealed_event

ORIGIN = "audit.example.com/trail"
A_KEY = NoteSigner(ORIGIN, bytes(range(32)))
ANOTHER_KEY = NoteSigner(ORIGIN, bytes(range(1, 33)))
NOW = datetime.now(UTC).replace(microsecond=0)

_ids = itertools.count(random.SystemRandom().randrange(1 << 60))


def the_keys(*signers: NoteSigner, trusted: Sequence[NoteSigner] = ()) -> RoundKeys:
    """Keys of a round: those that sign, and others that are still believed."""
    return RoundKeys(signers, [one.verifier for one in (*signers, *trusted)])


@dataclass
class GrowingLog:
    """A log of one database."""

    database: Database
    head: LogHead

    @property
    def name(self) -> LogName:
        return self.head.name

    async def grow(self, leaves: int, *, archived: bool = True) -> None:
        """Append events, and let the archive follow them, or not."""
        ledger = PostgresLedger(self.database.urls["writer"])
        try:
            while leaves:
                count = min(leaves, 2_000)
                first = self.head.next_offset
                events = [
                    a_sealed_event(offset, event_id=UUID(int=next(_ids)))
                    for offset in range(first, first + count)
                ]
                (outcome,) = await ledger.write([a_batch(self.head, events)])
                self.head = outcome.head
                leaves -= count
            if archived:
                await ledger.advance("archive", {self.head.log_id: self.head.size})
        finally:
            await ledger.close()


async def a_log(database: Database, leaves: int = 0, *, name: LogName) -> GrowingLog:
    """A log under this name; the topic is the name's, its partition too."""
    ledger = PostgresLedger(database.urls["writer"])
    head = await ledger.open_log(name.topic, name.partition, cluster_id="c", topic_id="t")
    await ledger.close()
    made = GrowingLog(database, head)
    await made.grow(leaves)
    return made


def a_name() -> LogName:
    """A log that no other test of the bucket has."""
    return LogName("audit.raw.authentication", random.SystemRandom().randrange(1, 2**31))


@dataclass
class SignerOf:
    """A signer over one database, as ``audit_signer``, with the stores that it uses."""

    gateway: Gateway
    signer: Signer
    objects: CheckpointObjects
    tiles: TileStore
    table: CheckpointTable
    metrics: SignerMetrics
    keys: RoundKeys
    said: list[str] = field(default_factory=list)

    async def stored(self, name: LogName) -> list[SignedCheckpoint]:
        """Every checkpoint of a log under lock, verified."""
        return [
            read_stored(note, self.keys.trusted, origin_prefix=ORIGIN)
            async for note in self.objects.all(name)
        ]

    async def sizes(self, name: LogName) -> list[int]:
        return [one.size for one in await self.stored(name)]


@asynccontextmanager
async def a_signer(
    database: Database,
    gateway: Gateway,
    keys: RoundKeys | None = None,
    *,
    witnesses: Sequence[Witness] = (),
    witness_timeout_s: float = 5.0,
    now: datetime = NOW,
) -> AsyncIterator[SignerOf]:
    """Opened, and closed afterwards."""
    connection = Connection(database.urls["signer"], name="signer")
    metrics = SignerMetrics(CollectorRegistry())
    asked = Witnesses(witnesses, metrics, timeout_s=witness_timeout_s)
    await asked.open()
    ledger, table = SignerLedger(connection), CheckpointTable(connection)
    objects = CheckpointObjects(gateway.s3, bucket=gateway.archive)
    tiles = TileStore(gateway.s3, bucket=gateway.archive)
    log_signer = LogSigner(
        ledger, table, objects, tiles, asked, origin_prefix=ORIGIN, now=lambda: now
    )
    made: SignerOf

    async def current_keys() -> RoundKeys:
        return made.keys

    signer = Signer(
        ledger,
        log_signer,
        current_keys,
        metrics,
        lock_mode="GOVERNANCE",
        retention_days=30,
        now=lambda: now,
    )
    made = SignerOf(gateway, signer, objects, tiles, table, metrics, keys or the_keys(A_KEY))
    try:
        yield made
    finally:
        await asked.close()
        await connection.close()


LOCKED_UNTIL = NOW + timedelta(days=30)


@pytest.fixture
async def gateway(anyio_backend: str) -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


def leaf_hashes(log: GrowingLog) -> list[bytes]:
    rows = log.database.run(
        "writer",
        "SELECT leaf_hash FROM leaves WHERE log_id = %s ORDER BY leaf_index",
        [log.head.log_id],
    )
    return [row[0] for row in rows]


def copy_of(database: Database) -> Database:
    """What a backup of now would give: another database with the same content."""
    with psycopg.connect(database.urls["admin"], dbname="postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {database.name}_copy TEMPLATE {database.name}")
    urls = {
        role: psycopg.conninfo.make_conninfo(url, dbname=f"{database.name}_copy")
        for role, url in database.urls.items()
    }
    return Database(f"{database.name}_copy", urls)


@pytest.fixture
def dropped(database: Database) -> Iterator[None]:
    """A copy is dropped after the test."""
    yield
    with psycopg.connect(database.urls["admin"], dbname="postgres", autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {database.name}_copy WITH (FORCE)")


@pytest.fixture
async def signed(
    database: Database, gateway: Gateway
) -> AsyncIterator[tuple[SignerOf, GrowingLog, GrowingLog]]:
    """A signer, a log with a checkpoint of 300 leaves, and another log."""
    log = await a_log(database, 300, name=a_name())
    other = await a_log(database, 2, name=a_name())
    async with a_signer(database, gateway) as of:
        await of.signer.round()
        yield of, log, other
