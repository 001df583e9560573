"""Legal holds beyond the ledger: S3 legal holds on archive objects, and a copy of each hold in the vault.

The ledger's table decides; this brings the buckets to what it says, however often it is done. An
archive object is held while any of its leaves is.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from pipeline.compliance.candidates import LogSize
from pipeline.domain.errors import ChainBroken
from sinks.archive_format import archive_key
from sinks.archive_reader import ArchivedRange, ArchiveReader
from sinks.holds import Holds, LegalHold
from sinks.s3 import S3

HOLDS_PREFIX = "holds/"
_NONE_SET = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"})


@dataclass(frozen=True, slots=True)
class Applied:
    """What a run did: objects looked at, held from now on, and free from now on."""

    objects: int = 0
    held: int = 0
    freed: int = 0


class ArchiveHolds:
    """S3 legal holds of the archive bucket; the S3 client belongs to whoever made it."""

    def __init__(self, s3: S3, archive: ArchiveReader, *, bucket: str, holds: Holds) -> None:
        self._s3 = s3
        self._archive = archive
        self._bucket = bucket
        self._holds = holds

    async def apply(
        self, logs: list[LogSize], *, on_object: Callable[[int], None] = lambda _objects: None
    ) -> Applied:
        """Hold every archive object that has a held leaf, and free every other; may be repeated.

        Raises:
            Unavailable: Nothing is known of the rest; apply again.
        """
        looked_at = held = freed = 0
        for log in logs:
            async for found in self._archive.ranges(log.name):
                info = found.info
                wanted = bool(await self._holds.held(log.log_id, info.first_leaf, info.next_leaf))
                looked_at += 1
                on_object(1)
                if wanted != await self.is_held(found):
                    await self._set(found, "ON" if wanted else "OFF")
                    held += wanted
                    freed += not wanted
        return Applied(looked_at, held, freed)

    async def is_held(self, found: ArchivedRange) -> bool:
        """Whether S3 holds the object."""
        ask = partial(self._s3.client.get_object_legal_hold, **self._place(found))
        answer = await self._s3.call(ask, missing=_NONE_SET)
        return answer is not None and answer["LegalHold"].get("Status") == "ON"

    async def _set(self, found: ArchivedRange, status: Any) -> None:
        put = partial(
            self._s3.client.put_object_legal_hold,
            **self._place(found),
            LegalHold={"Status": status},
        )
        await self._s3.call(put)

    def _place(self, found: ArchivedRange) -> dict[str, Any]:
        key = archive_key(found.info.name, found.info.first_leaf)
        return {"Bucket": self._bucket, "Key": key, "VersionId": found.version}


class HoldCopies:
    """A copy of each hold in the vault bucket, so that the loss of the database ends none."""

    def __init__(self, s3: S3, *, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    async def put(self, hold: LegalHold) -> None:
        """Store a hold as it is now; durable on return."""
        row = {name: _text(value) for name, value in asdict(hold).items()}
        body = json.dumps({"v": 1, **row}, sort_keys=True).encode()
        key = f"{HOLDS_PREFIX}{hold.hold_id}.json"
        await self._s3.put(self._bucket, key, body, content_type="application/json")

    async def all(self) -> AsyncIterator[LegalHold]:
        """Every hold, for a restore.

        Raises:
            ChainBroken: An object that is no hold.
        """
        async for key in self._s3.keys(self._bucket, HOLDS_PREFIX):
            stored = await self._s3.get(self._bucket, key)
            if stored is None:
                continue
            try:
                yield _hold(json.loads(stored.body))
            except (ValueError, KeyError, TypeError):
                raise ChainBroken("holds", f"vault object {key} is no hold") from None


def _text(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, UUID) else value


def _hold(row: dict[str, Any]) -> LegalHold:
    if row.pop("v") != 1:
        raise ValueError("a hold of another version")
    for name in ("occurred_from", "occurred_until", "placed_at", "ends_at", "released_at"):
        row[name] = row[name] and datetime.fromisoformat(row[name])
    row["hold_id"] = UUID(row["hold_id"])
    row["event_id"] = row["event_id"] and UUID(row["event_id"])
    row["subject_hash"] = row["subject_hash"] and bytes.fromhex(row["subject_hash"])
    return LegalHold(**row)
