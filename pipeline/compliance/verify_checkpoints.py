"""The signed checkpoints of a log, in the order of their sizes: what its roots must be.

The bucket is the authority: its first versions are read, signatures and all; the table must have the
same notes. Each root is compared where the leaves reach its size, so successive ones are consistent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from pipeline.compliance.checkpoint_store import (
    CheckpointObjects,
    CheckpointRow,
    CheckpointTable,
    StoredNote,
    checkpoint_key,
    checkpoints_prefix,
    read_stored,
)
from pipeline.compliance.findings import Finding, Findings, Kind, Store
from pipeline.domain.checkpoints import CheckpointRefused
from pipeline.domain.logs import LogName
from pipeline.domain.notes import NoteRefused, VerifierKey
from sinks.archive_listing import key_versions
from sinks.s3 import S3


class SignedRoot(NamedTuple):
    """What a trusted key signed."""

    size: int
    root: bytes


class Checkpoints:
    """Both places of checkpoints, and the keys that are trusted."""

    def __init__(
        self,
        s3: S3,
        *,
        bucket: str,
        table: CheckpointTable,
        keys: Sequence[VerifierKey],
        origin_prefix: str,
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._table = table
        self._objects = CheckpointObjects(s3, bucket=bucket)
        self._keys = keys
        self._origin_prefix = origin_prefix

    async def roots(
        self, name: LogName, log_id: int | None, findings: Findings, *, from_size: int = 0
    ) -> AsyncIterator[SignedRoot]:
        """The signed roots from a size on; what is wrong with a note goes to ``findings``.

        Raises:
            Unavailable: Ask again later.
        """
        rows = self._rows(log_id, from_size)
        row = await anext(rows, None)
        async for stored in self._objects.all(name, from_size=from_size):
            size = _size(stored)
            while row is not None and size is not None and row.size < size:
                findings.add(_only_in_table(name, row))
                row = await anext(rows, None)
            held = row if row is not None and row.size == size else None
            if held is not None:
                row = await anext(rows, None)
            try:
                signed = read_stored(stored, self._keys, origin_prefix=self._origin_prefix)
            except (NoteRefused, CheckpointRefused) as refusal:
                findings.add(
                    _finding(Kind.UNSIGNED, name, f"is not believed: {refusal}", stored.key)
                )
                continue
            if held is None:
                if log_id is not None and await self._still_missing(log_id, signed.size):
                    what = "is in the bucket and not in the table"
                    findings.add(_finding(Kind.MISSING, name, what, stored.key))
            elif held.root != signed.root or held.note.encode() != stored.encoded:
                what = "the table has another note or root than the bucket"
                findings.add(_finding(Kind.CHANGED, name, what, stored.key))
            yield SignedRoot(signed.size, signed.root)
        while row is not None:
            findings.add(_only_in_table(name, row))
            row = await anext(rows, None)

    async def put_over(self, name: LogName, findings: Findings) -> None:
        """Note what was put over a checkpoint's first version."""
        async for found in key_versions(self._s3, self._bucket, checkpoints_prefix(name)):
            if found.later or found.markers or found.first is None:
                what = f"{found.later} later version(s) and {found.markers} delete marker(s) stand over it"
                kind = Kind.MISSING if found.first is None else Kind.ADDED
                findings.add(_finding(kind, name, what, found.key))

    async def _rows(self, log_id: int | None, from_size: int) -> AsyncIterator[CheckpointRow]:
        if log_id is None:
            return
        async for row in self._table.all(log_id):
            if row.size >= from_size:
                yield row

    async def _still_missing(self, log_id: int, size: int) -> bool:
        """The signer puts the object first: the row may have come since the table was read."""
        return not await self._table.has(log_id, size)


def _size(stored: StoredNote) -> int | None:
    digits = stored.key.rpartition("/")[2]
    return int(digits) if digits.isdecimal() else None


def _only_in_table(name: LogName, row: CheckpointRow) -> Finding:
    what = "is in the table and not in the bucket"
    return _finding(Kind.ADDED, name, what, checkpoint_key(name, row.size))


def _finding(kind: Kind, name: LogName, what: str, key: str) -> Finding:
    return Finding(kind, Store.CHECKPOINTS, str(name), what, place=key)
