"""Whatever happens to databases, signers and calls: what was given out for a log is one history.

Fakes stand for bucket and database here, so that any call can fail, be lost, or be overtaken at any
moment; ``tests/integration/test_checkpoints.py`` has the same promises on real servers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, cast

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from pipeline.compliance.checkpoint_store import (
    CheckpointObjects,
    CheckpointRow,
    CheckpointTable,
    read_signed,
)
from pipeline.compliance.log_signer import LogSigner, RoundKeys
from pipeline.compliance.metrics import SignerMetrics
from pipeline.compliance.signer_ledger import SignableHead, SignerLedger
from pipeline.compliance.tile_store import TileReader, TileStore
from pipeline.compliance.witnesses import Witnesses
from pipeline.domain.checkpoints import Checkpoint
from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import merkle_root
from pipeline.keys.note_keys import NoteSigner
from sinks.s3 import S3, Lock, Stored
from tests.sizes import examples

NAME = LogName("audit.raw.authentication", 0)
ORIGIN = "audit.example.com/trail"
KEY = NoteSigner(ORIGIN, bytes(range(32)))
KEYS = RoundKeys([KEY], [KEY.verifier])
NOW = datetime(2026, 1, 2, tzinfo=UTC)
LOCK = Lock("GOVERNANCE", NOW)


class Line:
    """Between a signer and its servers: lets others go first, and fails now and then."""

    def __init__(self, source: random.Random, failing: float) -> None:
        self.source, self.failing = source, failing
        self.dying = ""  # the puts to such keys are lost: their signer dies there

    async def before(self, key: str = "") -> None:
        for _ in range(self.source.randrange(4)):
            await asyncio.sleep(0)
        if self.source.random() < self.failing or (self.dying and key.startswith(self.dying)):
            raise Unavailable("s3", "lost before")

    def after(self) -> None:
        if self.source.random() < self.failing:
            raise Unavailable("s3", "lost after")


@dataclass
class Bucket:
    """Versions of each key, the oldest first."""

    versions: dict[str, list[bytes]] = field(default_factory=dict)
    given_out: list[bytes] = field(default_factory=list)  # every note that anybody could see


class FakeS3:
    """What the stores ask of ``S3``."""

    def __init__(self, bucket: Bucket, line: Line) -> None:
        self.bucket, self.line = bucket, line

    async def put(self, _bucket: str, key: str, body: bytes, **options: Any) -> bool:
        await self.line.before(key)
        versions = self.bucket.versions.setdefault(key, [])
        etag = _etag(versions[-1]) if versions else None
        if options.get("absent") and versions:
            return False
        if options.get("if_match") is not None and options["if_match"] != etag:
            return False
        versions.append(body)
        if key.startswith("checkpoints/") or key.endswith("/checkpoint"):
            self.bucket.given_out.append(body)
        self.line.after()
        return True

    async def get(self, _bucket: str, key: str, *, version: str | None = None) -> Stored | None:
        await self.line.before()
        versions = self.bucket.versions.get(key)
        if not versions:
            return None
        body = versions[-1 if version is None else int(version)]
        return Stored(key, _etag(body), {}, body)

    async def oldest_versions(
        self, _bucket: str, prefix: str, *, after: str = ""
    ) -> AsyncIterator[tuple[str, str]]:
        await self.line.before()
        for key in sorted(self.bucket.versions):
            if key.startswith(prefix) and key > after and self.bucket.versions[key]:
                yield key, "0"


class FakeDatabase:
    """One log of one database: its leaves, and the table of checkpoints."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.leaves: list[bytes] = []
        self.archived = 0
        self.rows: dict[int, CheckpointRow] = {}

    async def head(self, _log_id: int) -> SignableHead:
        await self.line.before()
        root = merkle_root(self.leaves)
        return SignableHead(1, NAME, len(self.leaves), root, self.archived)

    async def leaf_hashes(
        self, _head: SignableHead, first: int, end: int
    ) -> AsyncIterator[list[bytes]]:
        while first < end:
            await self.line.before()
            yield self.leaves[first : min(first + 100, end)]
            first = min(first + 100, end)

    async def newest(self, _log_id: int) -> CheckpointRow | None:
        await self.line.before()
        return self.rows[max(self.rows)] if self.rows else None

    async def insert(
        self, _log_id: int, name: LogName, checkpoint: Checkpoint, note: bytes, at: datetime
    ) -> None:
        await self.line.before()
        row = CheckpointRow(checkpoint.size, checkpoint.root, note.decode(), at)
        if self.rows.setdefault(row.size, row).root != row.root:
            raise ChainBroken(str(name), "another root")
        self.line.after()

    def grow(self, count: int, seed: int) -> None:
        first = len(self.leaves)
        self.leaves += [sha256(b"%d %d" % (seed, first + at)).digest() for at in range(count)]
        self.archived = len(self.leaves)

    def copy(self) -> FakeDatabase:
        twin = FakeDatabase(self.line)
        twin.leaves, twin.archived = list(self.leaves), self.archived
        twin.rows = dict(self.rows)
        return twin


def a_log_signer(database: FakeDatabase, bucket: Bucket, line: Line) -> LogSigner:
    s3 = cast("S3", FakeS3(bucket, line))
    return LogSigner(
        cast("SignerLedger", database),
        cast("CheckpointTable", database),
        CheckpointObjects(s3, bucket="archive"),
        TileStore(s3, bucket="archive"),
        Witnesses([], SignerMetrics(CollectorRegistry()), timeout_s=1.0),
        origin_prefix=ORIGIN,
        now=lambda: NOW,
    )


async def sign(signer: LogSigner, seen: SignableHead) -> None:
    """One call, whatever becomes of it."""
    with suppress(ChainBroken, Unavailable):
        await signer.sign(seen, KEYS, LOCK)


def _etag(body: bytes) -> str:
    return sha256(body).hexdigest()


@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(
        st.sampled_from(
            ["grow", "grow", "grow other", "roll back", "fork", "sign", "sign", "die", "both"]
        ),
        min_size=4,
        max_size=14,
    ),
    failing=st.sampled_from([0.0, 0.02, 0.1]),
)
@hypothesis_settings(max_examples=examples(500))
def test_what_is_given_out_is_one_history_and_its_tiles_are_right(
    seed: int, steps: list[str], failing: float
) -> None:
    source = random.Random(seed)
    line, bucket = Line(source, failing), Bucket()
    databases = [FakeDatabase(line)]
    seen = SignableHead(1, NAME, 1, b"", 0)

    async def history() -> None:
        backup = databases[0].copy()
        for place, step in enumerate(steps):
            one = databases[source.randrange(len(databases))]
            if step == "grow":
                one.grow(source.choice([1, 3, 200, 300]), seed=0 if len(databases) == 1 else place)
            elif step == "grow other":
                backup = databases[0].copy()
                one.grow(source.choice([1, 255, 256]), seed=place)
            elif step == "roll back":
                databases[0] = backup.copy()
            elif step == "fork" and len(databases) < 3:
                databases.append(one.copy())
            elif step == "die":
                line.dying = source.choice(["checkpoints/", "tiles/"])
                await sign(a_log_signer(one, bucket, line), seen)
                line.dying = ""
            elif step == "sign":
                await sign(a_log_signer(one, bucket, line), seen)
            else:
                signers = [a_log_signer(each, bucket, line) for each in (*databases, one)]
                await asyncio.gather(*(sign(signer, seen) for signer in signers))
        # In the end the line holds: whoever has the newest history goes on, tiles and all.
        line.failing = 0.0
        for each in databases:
            for _ in range(2):
                await sign(a_log_signer(each, bucket, line), seen)

    asyncio.run(history())

    given_out = {
        (found.size, found.root)
        for found in (
            read_signed(NAME, note, KEYS.trusted, origin_prefix=ORIGIN) for note in bucket.given_out
        )
    }
    if not given_out:
        return
    newest = max(given_out)
    owners = [
        one
        for one in databases
        if len(one.leaves) >= newest[0] and merkle_root(one.leaves[: newest[0]]) == newest[1]
    ]
    sizes = [size for size, _ in given_out]
    assert len(sizes) == len(set(sizes))  # no second root of one size
    # Whoever has the newest has all of them; a history that was lost with its database has no owner.
    for one in owners:
        for size, root in given_out:
            assert merkle_root(one.leaves[:size]) == root
    if owners:
        tiles = TileStore(cast("S3", FakeS3(bucket, line)), bucket="archive")
        assert asyncio.run(TileReader(tiles, NAME).root(newest[0])) == newest[1]
