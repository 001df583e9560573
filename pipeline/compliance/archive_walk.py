"""The archive of one log, object after object, each verified; a few are read ahead.

Always the first version of an object. What was put over it is a finding, and so is a hole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from pipeline.compliance.archive_objects import ArchivedLeaves, check_object
from pipeline.compliance.findings import Finding, Kind, Store
from pipeline.domain.logs import LogName
from sinks.archive_format import ObjectInfo, archive_key, archive_prefix, blobs_key
from sinks.archive_listing import KeyVersions, key_versions
from sinks.s3 import S3, Stored

READ_AHEAD: Final = 3  # objects, each with its blobs: at most some 40 MB as stored


class ArchiveWalk:
    """Reads both buckets. The S3 client belongs to whoever made it."""

    def __init__(self, s3: S3, *, archive_bucket: str, vault_bucket: str) -> None:
        self.s3 = s3
        self.archive_bucket = archive_bucket
        self.vault_bucket = vault_bucket

    async def objects(
        self, name: LogName, from_leaf: int, end_leaf: int
    ) -> AsyncIterator[ArchivedLeaves | Finding]:
        """The objects that hold leaves from ``from_leaf`` on and begin before ``end_leaf``, in order, and
        what is wrong with keys.

        Raises:
            Unavailable: Go on later, from the leaf after the last object.
        """
        ahead: deque[asyncio.Task[ArchivedLeaves | Finding]] = deque()
        try:
            async for found in self._holding(name, from_leaf, end_leaf):
                for problem in _put_over(name, found):
                    yield problem
                if found.first is not None:
                    ahead.append(asyncio.ensure_future(self._load(name, found)))
                while len(ahead) > READ_AHEAD:
                    yield await ahead.popleft()
            while ahead:
                yield await ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _holding(
        self, name: LogName, from_leaf: int, end_leaf: int
    ) -> AsyncIterator[KeyVersions]:
        """The keys of objects that hold these leaves: an object reaches up to the next one."""
        before: KeyVersions | None = None  # the last key at or before the first leaf
        async for found in key_versions(self.s3, self.archive_bucket, archive_prefix(name)):
            if found.key <= archive_key(name, from_leaf):
                before = found if found.first is not None else before
                continue
            if before is not None:
                yield before
                before = None
            if found.key >= archive_key(name, end_leaf):
                return
            yield found
        if before is not None:
            yield before

    async def end(self, name: LogName, from_leaf: int) -> int:
        """The leaf after the last one that the archive has, as its newest object says; 0: none from
        ``from_leaf`` on. Raises as ``objects``.
        """
        newest: KeyVersions | None = None
        after = archive_key(name, from_leaf - 1) if from_leaf else ""
        async for found in key_versions(
            self.s3, self.archive_bucket, archive_prefix(name), after=after
        ):
            newest = found if found.first is not None else newest
        if newest is None:
            return 0
        stored = await self.s3.head(self.archive_bucket, newest.key, version=newest.first)
        info = _info(stored) if stored is not None else None
        return info.next_leaf if info is not None and info.name == name else 0

    async def spare_blobs(self, name: LogName, *, archived: int) -> AsyncIterator[Finding]:
        """Vault objects of a log that belong to no object of the archive. From leaf ``archived`` on they
        may be on their way: blobs are put first. Raises as ``objects``.
        """
        prefix = blobs_key(name, 0).rpartition("/")[0] + "/"
        keys = key_versions(self.s3, self.archive_bucket, archive_prefix(name))
        newest = await anext(keys, None)
        async for key in self.s3.keys(self.vault_bucket, prefix):
            digits = key.removeprefix(prefix).removesuffix(".avro")
            first = int(digits) if digits.isdecimal() else -1
            belongs = archive_key(name, max(first, 0))
            while newest is not None and newest.key < belongs:
                newest = await anext(keys, None)
            has = newest is not None and newest.key == belongs
            if (not has and first < archived) or key != blobs_key(name, first):
                what = "an object of blobs that belongs to no object of the archive"
                yield Finding(Kind.ADDED, Store.VAULT, str(name), what, place=key)

    async def blob_starts(self, name: LogName, first: int, end: int) -> list[int]:
        """Which leaves from ``first`` to before ``end`` a vault object begins with. Raises as ``objects``."""
        after, found = blobs_key(name, first - 1), list[int]()
        async for key in self.s3.keys(
            self.vault_bucket, after.rpartition("/")[0] + "/", after=after
        ):
            digits = key.rpartition("/")[2].removesuffix(".avro")
            if key >= blobs_key(name, end):
                break
            if digits.isdecimal():
                found.append(int(digits))
        return found

    async def _load(self, name: LogName, found: KeyVersions) -> ArchivedLeaves | Finding:
        stored = await self.s3.get(self.archive_bucket, found.key, version=found.first)
        if stored is None:
            what = "is listed and cannot be read"
            return Finding(Kind.MISSING, Store.ARCHIVE, str(name), what, place=found.key)
        info = _info(stored)
        if info is None or info.name != name or archive_key(name, info.first_leaf) != found.key:
            what = "is no object of this log: its metadata and its key disagree"
            return Finding(Kind.CHANGED, Store.ARCHIVE, str(name), what, place=found.key)
        blobs = await self.s3.get(self.vault_bucket, blobs_key(name, info.first_leaf))
        vaulted = _info(blobs) if blobs is not None else None
        body = blobs.body if blobs is not None else b""
        return await asyncio.to_thread(check_object, info, stored.body, vaulted, body)


def _put_over(name: LogName, found: KeyVersions) -> list[Finding]:
    log, problems = str(name), []
    if found.first is None:
        what = "has delete markers and no version: it was destroyed"
        return [Finding(Kind.MISSING, Store.ARCHIVE, log, what, place=found.key)]
    if found.later:
        what = f"{found.later} later version(s) stand over the first one, which counts"
        problems.append(Finding(Kind.ADDED, Store.ARCHIVE, log, what, place=found.key))
    if found.markers:
        what = f"{found.markers} delete marker(s) hide it; its first version counts"
        problems.append(Finding(Kind.ADDED, Store.ARCHIVE, log, what, place=found.key))
    return problems


def _info(stored: Stored) -> ObjectInfo | None:
    try:
        return ObjectInfo.from_metadata(stored.metadata)
    except ValueError:
        return None
