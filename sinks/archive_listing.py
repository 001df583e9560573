"""What stands in a bucket, whole: every key with its first version, and what was put over it.

The first version is what was stored; a later one or a delete marker changes nothing for readers, and
somebody must have meant it to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple

from pipeline.domain.errors import Unavailable
from pipeline.domain.logs import LogName
from sinks.s3 import S3


class KeyVersions(NamedTuple):
    """A key; ``first``: its oldest version, None where there are delete markers alone."""

    key: str
    first: str | None
    later: int  # versions beyond the first
    markers: int


async def key_versions(
    s3: S3, bucket: str, prefix: str, *, after: str = ""
) -> AsyncIterator[KeyVersions]:
    """Every key under a prefix, beyond ``after``, in order.

    Raises:
        Unavailable: Ask again later.
        ConfigurationError: No such bucket, or no permission to list versions.
    """
    found: dict[str, tuple[str | None, int, int]] = {}
    async for page in _pages(s3, bucket, prefix, after=after):
        for version in page.get("Versions", []):  # the newest of a key comes first
            first, later, markers = found.get(version["Key"], (None, 0, 0))
            found[version["Key"]] = version["VersionId"], later + (first is not None), markers
        for marker in page.get("DeleteMarkers", []):
            first, later, markers = found.get(marker["Key"], (None, 0, 0))
            found[marker["Key"]] = first, later, markers + 1
        # The last key may go on in the next page.
        whole = sorted(found)[:-1] if page["IsTruncated"] else sorted(found)
        for key in whole:
            yield KeyVersions(key, *found.pop(key))


async def logs_below(s3: S3, bucket: str, prefix: str) -> list[LogName]:
    """The logs that have keys ``<prefix><topic>/<partition>/<epoch>/…``, hidden ones too.

    Raises as ``key_versions``.
    """
    level = [prefix]
    for _part in ("topic", "partition", "epoch"):
        level = [below async for below in _below(s3, bucket, level)]
    names = []
    for found in level:
        try:
            names.append(LogName.parse(found.removeprefix(prefix).rstrip("/")))
        except ValueError:
            continue  # nobody's log; whoever lists it under a log's name finds it by its key
    return names


async def _below(s3: S3, bucket: str, prefixes: list[str]) -> AsyncIterator[str]:
    for prefix in prefixes:
        seen: set[str] = set()
        async for page in _pages(s3, bucket, prefix, delimiter="/"):
            seen.update(found["Prefix"] for found in page.get("CommonPrefixes", []))
        for found in sorted(seen):
            yield found


async def _pages(
    s3: S3, bucket: str, prefix: str, *, after: str = "", delimiter: str = ""
) -> AsyncIterator[Any]:
    chosen: dict[str, Any] = {"KeyMarker": after} if after else {}
    if delimiter:
        chosen["Delimiter"] = delimiter
    while True:
        ask = partial(s3.client.list_object_versions, Bucket=bucket, Prefix=prefix, **chosen)
        page = await s3.call(ask)
        if page is None:
            raise Unavailable("s3", "an empty answer")
        yield page
        if not page["IsTruncated"]:
            return
        chosen["KeyMarker"] = page["NextKeyMarker"]
        chosen.pop("VersionIdMarker", None)
        if page.get("NextVersionIdMarker"):
            chosen["VersionIdMarker"] = page["NextVersionIdMarker"]
