"""The two buckets: made by the command line, checked by every worker before it consumes anything."""

from __future__ import annotations

from functools import partial
from typing import Any

from pipeline.domain.errors import ConfigurationError
from sinks.s3 import S3

_NO_BUCKET = frozenset({"404", "NoSuchBucket"})
_NO_LOCK = frozenset({"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"})
_THERE_ALREADY = frozenset({"BucketAlreadyOwnedByYou"})


async def ensure_buckets(s3: S3, *, archive: str, vault: str) -> None:
    """Make what is missing, then check both; may be repeated. Needs ``s3:CreateBucket``.

    Raises:
        ConfigurationError: A bucket is there and not as needed: a lock cannot be added to it
            by this command.
        Unavailable: Ask again later.
    """
    if archive == vault:
        raise ConfigurationError("archive and vault are one bucket: blobs must stay erasable")
    if not await _exists(s3, archive):
        await _create(s3, archive, locked=True)
    if not await _exists(s3, vault):
        await _create(s3, vault, locked=False)
    await check_buckets(s3, archive=archive, vault=vault)


async def check_buckets(s3: S3, *, archive: str, vault: str) -> None:
    """Both are there; the archive keeps versions and locks them, the vault does neither.

    Raises:
        ConfigurationError: Says which bucket lacks what.
        Unavailable: Ask again later.
    """
    for bucket in (archive, vault):
        if not await _exists(s3, bucket):
            raise ConfigurationError(f"bucket {bucket} does not exist: run `audit-trail migrate`")
    if not await _versioned(s3, archive):
        raise ConfigurationError(f"bucket {archive} keeps no versions: the archive needs them")
    if not await _locked(s3, archive):
        raise ConfigurationError(f"bucket {archive} has no Object Lock: the archive needs it")
    if await _versioned(s3, vault):
        raise ConfigurationError(
            f"bucket {vault} keeps versions: erased personal data would stay in them"
        )


async def _exists(s3: S3, bucket: str) -> bool:
    head = partial(s3.client.head_bucket, Bucket=bucket)
    return await s3.call(head, missing=_NO_BUCKET) is not None


async def _versioned(s3: S3, bucket: str) -> bool:
    # A suspended bucket keeps the versions that it has; only "never enabled" counts as none.
    answer = await s3.call(partial(s3.client.get_bucket_versioning, Bucket=bucket))
    return bool(answer and answer.get("Status"))


async def _locked(s3: S3, bucket: str) -> bool:
    ask = partial(s3.client.get_object_lock_configuration, Bucket=bucket)
    answer = await s3.call(ask, missing=_NO_LOCK)
    lock = answer["ObjectLockConfiguration"] if answer else {}
    return lock.get("ObjectLockEnabled") == "Enabled"


async def _create(s3: S3, bucket: str, *, locked: bool) -> None:
    region = s3.client.meta.region_name
    request: dict[str, Any] = {"Bucket": bucket, "ObjectLockEnabledForBucket": locked}
    # us-east-1 is the one region that S3 refuses to be told.
    if region != "us-east-1":
        request["CreateBucketConfiguration"] = {"LocationConstraint": region}
    await s3.call(partial(s3.client.create_bucket, **request), missing=_THERE_ALREADY)
