"""What the archive's tests share: events as the pipeline seals them, and a ledger in memory."""

from __future__ import annotations

import asyncio
import os
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from pipeline.domain.canonical import Value, canonical_json
from pipeline.domain.errors import Unavailable
from pipeline.domain.escrow import EscrowEntry
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import leaf_hash
from pipeline.domain.records import LeafRange, LogHead, SealedBlob, SealedEvent
from sinks.archive import ArchiveDestination
from sinks.archive_reader import ArchiveReader
from sinks.buckets import ensure_buckets
from sinks.s3 import S3, connect

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

STORED_AT_US = 1_800_000_000_000_000  # 2027-01-15
PATHS = ("actor.id", "actor.name", "actor.email", "source.ip", "source.user_agent", "session.id")


def a_ref(number: int) -> bytes:
    return random.Random(number).randbytes(16)


def an_event(
    leaf: int,
    *,
    tenant: str = "acme",
    subject: int = 1,
    seed: str = "",
    stored_at_us: int = STORED_AT_US,
) -> SealedEvent:
    """The leaf ``leaf`` of a log; another ``seed`` gives other content at the same leaf."""
    source = random.Random(f"{seed}{leaf}")
    event_id, ref = source.randbytes(16), a_ref(subject)
    occurred_at_us = STORED_AT_US - 5_000_000 + leaf * 731
    clear: dict[str, Value] = {
        "action": "login",
        "event_id": str(UUID(bytes=event_id)),
        "occurred_at": occurred_at_us,
        "outcome": "success",
        "tenant": tenant,
    }
    commitments: dict[str, Value] = {
        path: b64encode(source.randbytes(32)).decode() for path in PATHS
    }
    canonical = canonical_json(
        {
            "clear": dict(clear),
            "family": "authentication",
            "sealed": {str(UUID(bytes=ref)): dict(commitments)},
            "v": 1,
        }
    )
    return SealedEvent(
        event_id=event_id,
        family="authentication",
        occurred_at_us=occurred_at_us,
        offset=10 + leaf * 2,
        broker_timestamp_ms=occurred_at_us // 1000,
        schema_id=7,
        clear=clear,
        opened={},
        canonical=canonical,
        leaf_hash=leaf_hash(canonical),
        blobs=(SealedBlob(ref, source.randbytes(12), source.randbytes(180)),),
        actor_ref=ref,
        stored_at_us=stored_at_us,
    )


def realistic_event(leaf: int) -> SealedEvent:
    """About 870 canonical bytes, six of the values sealed; for measuring."""
    event = an_event(leaf, subject=leaf % 200)
    commitments: dict[str, Value] = {path: b64encode(os.urandom(32)).decode() for path in PATHS}
    event.clear = {
        **event.clear,
        "actor.id_type": "user_id",
        "actor.tenant": "acme",
        "actor.type": "user",
        "authentication.method": "password",
        "imported": False,
        "operation": "authenticate",
        "service.name": "identity-gateway",
        "service.version": "2.14.1",
        "severity": "low",
        "trace.id": os.urandom(16).hex(),
    }
    event.canonical = canonical_json(
        {
            "clear": dict(event.clear),
            "family": "authentication",
            "sealed": {str(UUID(bytes=a_ref(leaf % 200))): commitments},
            "v": 1,
        }
    )
    event.leaf_hash = leaf_hash(event.canonical)
    event.broker_timestamp_ms = STORED_AT_US // 1000 + leaf // 20  # the broker stamps whole batches
    event.blobs = (SealedBlob(a_ref(leaf % 200), os.urandom(12), os.urandom(260)),)
    return event


def facts(event: SealedEvent) -> dict[str, object]:
    """Everything that a store must give back of an event."""
    return {name: getattr(event, name) for name in SealedEvent.__slots__}


class LedgerLog:
    """One log of a ledger, as far as the archive asks for it; ``events`` is its leaves."""

    def __init__(self, name: LogName, size: int = 0, *, log_id: int = 1) -> None:
        self.name = name
        self.log_id = log_id
        self.events = [an_event(leaf) for leaf in range(size)]
        self.next_offset = 10 + size * 2
        self.restored: list[LeafRange] = []

    @property
    def log_head(self) -> LogHead:
        return LogHead(self.log_id, self.name, len(self.events), self.next_offset)

    def range(self, first: int, end: int | None = None) -> LeafRange:
        return LeafRange(self.log_id, self.name, first, self.events[first:end])

    async def read(self, log_id: int, first_leaf: int, *, limit: int) -> LeafRange:
        assert log_id == self.log_id
        return self.range(first_leaf, first_leaf + limit)

    async def restore(self, leaves: LeafRange, *, next_offset: int) -> LogHead:
        assert leaves.first_leaf == len(self.events)
        self.restored.append(leaves)
        self.events += leaves.events
        self.next_offset = next_offset
        return self.log_head


class Subjects:
    """``audit_user`` as escrow and restore see it."""

    def __init__(self, numbers: Collection[int]) -> None:
        self.rows = {a_ref(number): an_entry(number) for number in numbers}
        self.escrowed: dict[bytes, str] = {}
        self.asked = 0

    async def unescrowed(self, refs: Collection[bytes]) -> Sequence[EscrowEntry]:
        self.asked += 1
        return [self.rows[ref] for ref in refs if ref in self.rows and ref not in self.escrowed]

    async def mark(self, refs: Collection[bytes], name: str) -> None:
        for ref in refs:
            self.escrowed.setdefault(ref, name)

    async def restore(self, entries: Sequence[EscrowEntry]) -> int:
        missing = [entry for entry in entries if entry.subject_ref not in self.rows]
        self.rows.update({entry.subject_ref: entry for entry in missing})
        return len(missing)


def an_entry(number: int) -> EscrowEntry:
    source = random.Random(f"entry {number}")
    return EscrowEntry(
        subject_hash=source.randbytes(32),
        generation=1,
        subject_ref=a_ref(number),
        tenant="acme",
        id_type="user_id",
        wrapped_key=source.randbytes(60),
        first_occurred_at_us=STORED_AT_US,
    )


class FlakyS3(S3):
    """The real gateway behind a line that fails: before a put arrives, or after it was done."""

    def __init__(self, client: S3Client, *, waits_for_permission: bool = False) -> None:
        super().__init__(client, waits_for_permission=waits_for_permission)
        self.lose: Callable[[], str] = lambda: ""  # "before", "after", or "" for a put that works
        self.delay_s: Callable[[], float] = lambda: 0.0

    async def put(self, bucket: str, key: str, body: bytes, **options: Any) -> bool:
        await asyncio.sleep(self.delay_s())
        lost = self.lose()
        if lost == "before":
            raise Unavailable("s3", "lost before")
        stored = await super().put(bucket, key, body, **options)
        if lost == "after":
            raise Unavailable("s3", "lost after")
        return stored


@dataclass(frozen=True)
class Gateway:
    """Buckets of one test run on the local stack's S3 gateway."""

    s3: FlakyS3
    archive: str
    vault: str

    def destination(self, ledger: LedgerLog | None, **options: Any) -> ArchiveDestination:
        """One that stores every leaf at once, unless told otherwise."""
        chosen: dict[str, Any] = {
            "read_ledger": ledger.read if ledger else None,
            "ensure_escrowed": escrowed_already,
            "retention_days": lambda _: 1,
            "lock_mode": "GOVERNANCE",
            "max_age_s": 0.0,
        }
        return ArchiveDestination(
            self.s3, archive_bucket=self.archive, vault_bucket=self.vault, **chosen | options
        )

    @property
    def reader(self) -> ArchiveReader:
        return ArchiveReader(self.s3, archive_bucket=self.archive, vault_bucket=self.vault)

    async def stored(self, name: LogName) -> list[LeafRange]:
        """Every range of a log that the archive holds, verified by reading it."""
        return [await self.reader.read(found, 1) async for found in self.reader.ranges(name)]

    async def cuts(self, name: LogName) -> list[tuple[int, int]]:
        """First and next leaf of every range."""
        return [(found.first_leaf, found.next_leaf) for found in await self.stored(name)]


async def escrowed_already(_: set[bytes]) -> None:
    """The keys are in the vault."""


def new_log() -> LogName:
    """A log that no other test has used."""
    return LogName("audit.raw.authentication", 0, random.SystemRandom().randrange(1, 2**31))


def s3_settings() -> dict[str, Any]:
    """How to reach the gateway of the local stack; skips the test if there is none."""
    endpoint = os.environ.get("AUDIT_S3_ENDPOINT_URL")
    if not endpoint:
        pytest.skip("AUDIT_S3_ENDPOINT_URL is not set: the local stack is not up")
    return {
        "endpoint_url": endpoint,
        "region": os.environ.get("AUDIT_S3_REGION", "us-east-1"),
        "access_key_id": os.environ["AUDIT_S3_ACCESS_KEY_ID"],
        "secret_access_key": os.environ["AUDIT_S3_SECRET_ACCESS_KEY"],
    }


@asynccontextmanager
async def open_gateway() -> AsyncIterator[Gateway]:
    """Two buckets of their own."""
    s3 = FlakyS3(connect(**s3_settings()).client)
    suffix = random.SystemRandom().randbytes(5).hex()
    gateway = Gateway(s3, f"archive-{suffix}", f"vault-{suffix}")
    await ensure_buckets(s3, archive=gateway.archive, vault=gateway.vault)
    yield gateway
    await s3.close()
