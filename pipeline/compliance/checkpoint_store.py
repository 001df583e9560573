"""Where checkpoints are kept: under Object Lock in the archive bucket, and as rows of the ledger.

The bucket is the authority. A key's first version counts, so that neither an overwrite nor a delete
marker changes what was signed; the table is a copy to look things up in, and is never trusted alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from pipeline.db.connection import Connection
from pipeline.domain.checkpoints import Checkpoint, CheckpointRefused, origin_of, parse_checkpoint
from pipeline.domain.errors import ChainBroken, Unavailable
from pipeline.domain.logs import LogName
from pipeline.domain.notes import Note, NoteRefused, VerifierKey, parse_note
from pipeline.keys.note_keys import verify_note
from sinks.s3 import S3, Lock

CHECKPOINTS_PREFIX = "checkpoints/"
TILES_PREFIX = "tiles/"
CONTENT_TYPE = "text/plain; charset=utf-8"
ROWS_PAGE = 1_000

_INSERT = """
INSERT INTO checkpoints (log_id, size, root, note, signed_at) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (log_id, size) DO NOTHING
"""
_OF_SIZE = "SELECT size, root, note, signed_at FROM checkpoints WHERE log_id = %s AND size = %s"
_NEWEST = """
SELECT size, root, note, signed_at FROM checkpoints WHERE log_id = %s ORDER BY size DESC LIMIT 1
"""
_ROWS = """
SELECT size, root, note, signed_at FROM checkpoints WHERE log_id = %s AND size > %s
ORDER BY size LIMIT %s
"""


def checkpoints_prefix(name: LogName) -> str:
    """What the keys of a log's checkpoints begin with."""
    return f"{CHECKPOINTS_PREFIX}{name}/"


def checkpoint_key(name: LogName, size: int) -> str:
    """The object of one checkpoint; keys sort by size."""
    return f"{checkpoints_prefix(name)}{size:019d}"


def published_key(name: LogName) -> str:
    """The one object of a log that changes: the newest note, beside its tiles."""
    return f"{TILES_PREFIX}{name}/checkpoint"


@dataclass(frozen=True, slots=True)
class StoredNote:
    """An object of the bucket, as it was first stored. Nothing of it has been checked yet."""

    name: LogName
    key: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """The note that is served as a log's newest. ``etag`` stands for it in the next change."""

    etag: str
    encoded: bytes


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint of a log that a trusted key signed; ``note`` has every signature."""

    name: LogName
    checkpoint: Checkpoint
    note: Note
    signers: tuple[VerifierKey, ...]  # those of the trusted keys that signed

    @property
    def size(self) -> int:
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        return self.checkpoint.root


def read_signed(
    name: LogName, encoded: bytes, keys: Sequence[VerifierKey], *, origin_prefix: str
) -> SignedCheckpoint:
    """The checkpoint in a note, if a trusted key signed it for this log.

    Raises:
        NoteRefused: Not a note, or one that no trusted key signed.
        CheckpointRefused: Not a checkpoint, or another log's.
    """
    note = parse_note(encoded)
    signers = verify_note(note, keys)
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != origin_of(origin_prefix, name):
        raise CheckpointRefused(f"the checkpoint is of {checkpoint.origin}, not of this log")
    return SignedCheckpoint(name, checkpoint, note, tuple(signers))


def read_stored(
    stored: StoredNote, keys: Sequence[VerifierKey], *, origin_prefix: str
) -> SignedCheckpoint:
    """As ``read_signed``, of an object: its key must name the size, too. Raises alike."""
    found = read_signed(stored.name, stored.encoded, keys, origin_prefix=origin_prefix)
    if stored.key != checkpoint_key(stored.name, found.size):
        raise CheckpointRefused(f"object {stored.key} holds the checkpoint of size {found.size}")
    return found


class CheckpointObjects:
    """The checkpoints of all logs in the archive bucket. The S3 client belongs to whoever made it."""

    def __init__(self, s3: S3, *, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    async def put(self, name: LogName, size: int, encoded: bytes, lock: Lock) -> StoredNote:
        """Store a note where none is yet; what is stored for that size on return, ours or an earlier one.
        Durable on return; may be repeated.

        Raises:
            Unavailable: Nothing is known; put the same again later.
        """
        key = checkpoint_key(name, size)
        await self._s3.put(
            self._bucket, key, encoded, content_type=CONTENT_TYPE, absent=True, lock=lock
        )
        # Read back even when it was put: behind a delete marker there may be a version that counts.
        async for stored in self._listed(name, after=checkpoint_key(name, size - 1), last=key):
            return stored
        raise Unavailable("s3", "the checkpoint came and went")

    async def all(self, name: LogName, *, from_size: int = 0) -> AsyncIterator[StoredNote]:
        """The checkpoints of a log from a size on, in the order of their sizes.

        Raises:
            Unavailable: Ask again later.
        """
        after = checkpoint_key(name, from_size - 1) if from_size > 0 else ""
        async for stored in self._listed(name, after=after):
            yield stored

    async def newest(self, name: LogName, *, known_size: int = 0) -> StoredNote | None:
        """The checkpoint of the largest size; None if there is none.

        ``known_size``: one that must be there (what the ledger's table has), so that only what is newer
        is listed; 0 lists all.

        Raises:
            ChainBroken: The known one is not there.
            Unavailable: Ask again later.
        """
        newest: str | None = None
        version = ""
        prefix = checkpoints_prefix(name)
        after = checkpoint_key(name, known_size - 1) if known_size > 0 else ""
        found_known = known_size == 0
        async for key, first in self._s3.oldest_versions(self._bucket, prefix, after=after):
            found_known = found_known or key == checkpoint_key(name, known_size)
            newest, version = key, first
        if not found_known:
            raise ChainBroken(
                str(name),
                f"the ledger knows a checkpoint of size {known_size}, and the archive bucket does not"
                f" have it ({checkpoint_key(name, known_size)})",
            )
        return None if newest is None else await self._get(name, newest, version)

    async def published(self, name: LogName) -> Published | None:
        """What ``tiles/<log>/checkpoint`` holds now; None if it is not there. Raises ``Unavailable``."""
        found = await self._s3.get(self._bucket, published_key(name))
        return None if found is None else Published(found.etag, found.body)

    async def publish(self, name: LogName, encoded: bytes, *, instead_of: Published | None) -> bool:
        """Publish a note in the place of that one, or of none; False when another stands there now.

        Raises:
            Unavailable: It may be published or not.
        """
        put = partial(
            self._s3.put, self._bucket, published_key(name), encoded, content_type=CONTENT_TYPE
        )
        if instead_of is not None:
            return await put(if_match=instead_of.etag)
        if await put(absent=True):
            return True
        # Some gateways count a delete marker as an object: nothing that could be named is there then.
        return await self.published(name) is None and await put()

    async def _listed(
        self, name: LogName, *, after: str, last: str | None = None
    ) -> AsyncIterator[StoredNote]:
        prefix = checkpoints_prefix(name)
        async for key, version in self._s3.oldest_versions(self._bucket, prefix, after=after):
            if last is not None and key > last:
                return
            yield await self._get(name, key, version)

    async def _get(self, name: LogName, key: str, version: str) -> StoredNote:
        found = await self._s3.get(self._bucket, key, version=version)
        if found is None:
            raise Unavailable("s3", f"{key} came and went")
        return StoredNote(name, key, found.body)


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A row of ``checkpoints``."""

    size: int
    root: bytes
    note: str
    signed_at: datetime


class CheckpointTable:
    """The table ``checkpoints``, over a connection that belongs to whoever made it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def insert(
        self, log_id: int, name: LogName, checkpoint: Checkpoint, note: bytes, signed_at: datetime
    ) -> None:
        """Append a checkpoint; one that is there must have the same root. Durable on return; may be
        repeated. As ``audit_signer``.

        Raises:
            ChainBroken: The table has another root for that size.
            Unavailable: Nothing is known; insert the same again later.
        """
        row = (log_id, checkpoint.size, checkpoint.root, note.decode(), signed_at)
        async with self._connection.session() as session:
            await session.execute(_INSERT, row)
            cursor = await session.execute(_OF_SIZE, (log_id, checkpoint.size))
            held = await cursor.fetchone()
        if held is None or held[1] != checkpoint.root:
            raise ChainBroken(
                str(name),
                f"the table checkpoints has another root of size {checkpoint.size} than the archive"
                " bucket, which is right: see docs/runbooks/refused-log.md",
            )

    async def newest(self, log_id: int) -> CheckpointRow | None:
        """The row of the largest size. Raises ``Unavailable``."""
        async with self._connection.session() as session:
            found = await (await session.execute(_NEWEST, (log_id,))).fetchone()
        return CheckpointRow(*found) if found else None

    async def all(self, log_id: int) -> AsyncIterator[CheckpointRow]:
        """Every row of a log in the order of sizes, read in pages. Raises ``Unavailable``."""
        after = 0
        while True:
            async with self._connection.session() as session:
                cursor = await session.execute(_ROWS, (log_id, after, ROWS_PAGE))
                rows = await cursor.fetchall()
            for row in rows:
                yield CheckpointRow(*row)
            if len(rows) < ROWS_PAGE:
                return
            after = rows[-1][0]


Verified = Callable[[StoredNote], SignedCheckpoint]


def verifying(keys: Sequence[VerifierKey], *, origin_prefix: str) -> Verified:
    """Turns what is stored into what a trusted key signed, for one who stops where it is not.

    Raises (when called):
        ChainBroken: The object is not a checkpoint of its log that a trusted key signed.
    """

    def verified(stored: StoredNote) -> SignedCheckpoint:
        try:
            return read_stored(stored, keys, origin_prefix=origin_prefix)
        except (NoteRefused, CheckpointRefused) as error:
            raise ChainBroken(
                str(stored.name),
                f"the archive bucket's object {stored.key} cannot be used: {error}",
            ) from None

    return verified
