"""S3 calls as coroutines: conditional puts, locks, checksums, and errors told apart.

boto3 is synchronous: each call runs in a small pool of threads. The SDK's own retries are off,
since whoever calls retries the whole step (``sinks/follower.py``).
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from urllib3.exceptions import HTTPError

from pipeline.domain.errors import AuditTrailError, ConfigurationError, Unavailable
from pipeline.tls import failure

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

Answer = TypeVar("Answer")
LockMode = Literal["GOVERNANCE", "COMPLIANCE"]

# What a person must mend. Everything else that is not understood may pass: try again.
_WRONG_SETTINGS = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "InvalidAccessKeyId",
        "InvalidArgument",
        "InvalidBucketName",
        "InvalidRequest",
        "MethodNotAllowed",
        "NoSuchBucket",
        "NotImplemented",
        "PermanentRedirect",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "403",
    }
)
_NOT_THERE = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchVersion"})
_PRECONDITION = frozenset({"412", "PreconditionFailed"})


@dataclass(frozen=True, slots=True)
class Lock:
    """Object Lock of one version: nobody deletes it before ``retain_until``."""

    mode: LockMode
    retain_until: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it is now; ``body`` only from ``get``."""

    key: str
    etag: str
    metadata: Mapping[str, str]
    body: bytes = b""


class S3:
    """A client and its threads. ``close`` once; a call in flight then ends by its own timeout.

    ``waits_for_permission``: what a person must mend is ``Unavailable``, too. A worker must not end,
    nor its ledger wait, because a credential of the archive ran out.
    """

    def __init__(
        self, client: S3Client, *, threads: int = 4, waits_for_permission: bool = False
    ) -> None:
        self.client = client
        self._waits_for_permission = waits_for_permission
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="s3")

    async def put(
        self,
        bucket: str,
        key: str,
        body: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/avro",
        body_sha256: bytes | None = None,
        absent: bool = False,
        if_match: str | None = None,
        lock: Lock | None = None,
    ) -> bool:
        """Store an object; False when the condition (absent, or this ETag) does not hold.

        On return it is durable, and the server has checked the body's SHA-256 (given, if it is
        known already: the SDK computes it once more for the signature).

        Raises:
            Unavailable: The object may be there or not.
            ConfigurationError: See ``call``.
        """
        request: dict[str, Any] = {
            "Bucket": bucket,
            "Key": key,
            "Body": body,
            "ContentType": content_type,
            "Metadata": metadata or {},
        }
        if absent:
            request["IfNoneMatch"] = "*"
        if if_match is not None:
            request["IfMatch"] = if_match
        if lock is not None:
            request["ObjectLockMode"] = lock.mode
            request["ObjectLockRetainUntilDate"] = lock.retain_until

        def put() -> bool:
            digest = body_sha256 or sha256(body).digest()
            self.client.put_object(ChecksumSHA256=b64encode(digest).decode(), **request)
            return True

        # An ETag asked for on an object that is gone answers "not there", not "condition failed".
        return await self.call(put, missing=_PRECONDITION | _NOT_THERE) or False

    async def head(self, bucket: str, key: str, *, version: str | None = None) -> Stored | None:
        """An object without its body; None if it is not there. Raises as ``call``."""
        chosen: dict[str, Any] = {} if version is None else {"VersionId": version}

        def head() -> Stored:
            found = self.client.head_object(Bucket=bucket, Key=key, **chosen)
            return Stored(key, found["ETag"], found["Metadata"])

        return await self.call(head, missing=_NOT_THERE)

    async def get(self, bucket: str, key: str, *, version: str | None = None) -> Stored | None:
        """An object, whole; None if it is not there. Raises as ``call``."""
        chosen: dict[str, Any] = {} if version is None else {"VersionId": version}

        def get() -> Stored:
            found = self.client.get_object(Bucket=bucket, Key=key, **chosen)
            with found["Body"] as body:
                return Stored(key, found["ETag"], found["Metadata"], body.read())

        return await self.call(get, missing=_NOT_THERE)

    async def delete(self, bucket: str, key: str) -> None:
        """Remove an object of a bucket without versions; one that is gone is fine. Raises as ``call``."""
        await self.call(
            partial(self.client.delete_object, Bucket=bucket, Key=key), missing=_NOT_THERE
        )

    async def keys(self, bucket: str, prefix: str, *, after: str = "") -> AsyncIterator[str]:
        """Keys under a prefix in order, from beyond ``after`` on. Raises as ``call``."""
        last = after
        while True:
            page = await self._required(
                partial(self.client.list_objects_v2, Bucket=bucket, Prefix=prefix, StartAfter=last)
            )
            for found in page.get("Contents", []):
                last = found["Key"]
                yield last
            if not page["IsTruncated"]:
                return

    async def folders(self, bucket: str, prefix: str) -> list[str]:
        """What stands before the next ``/`` beyond a prefix, with it, hidden objects' too. Raises as ``call``."""
        found: dict[str, None] = {}
        markers: dict[str, Any] = {}
        while True:
            page = await self._required(
                partial(
                    self.client.list_object_versions,
                    Bucket=bucket,
                    Prefix=prefix,
                    Delimiter="/",
                    **markers,
                )
            )
            found |= {common["Prefix"]: None for common in page.get("CommonPrefixes", [])}
            if not page["IsTruncated"]:
                return list(found)
            markers = {"KeyMarker": page["NextKeyMarker"]}

    async def oldest_versions(
        self, bucket: str, prefix: str, *, after: str = ""
    ) -> AsyncIterator[tuple[str, str]]:
        """(key, id of its first version), in order of keys, from beyond ``after`` on: what was stored
        first.

        An object that was overwritten or hidden by a delete marker later is still the first one,
        which its lock keeps. Raises as ``call``.
        """
        key_marker, version_marker, pending = after, "", ("", "")
        while True:
            chosen: dict[str, Any] = {"KeyMarker": key_marker} if key_marker else {}
            if version_marker:
                chosen["VersionIdMarker"] = version_marker
            page = await self._required(
                partial(self.client.list_object_versions, Bucket=bucket, Prefix=prefix, **chosen)
            )
            for version in page.get("Versions", []):  # the newest of a key comes first
                if version["Key"] <= after:  # some gateways begin with the marker's own key
                    continue
                if pending[0] not in ("", version["Key"]):
                    yield pending
                pending = (version["Key"], version["VersionId"])
            if not page["IsTruncated"]:
                break
            key_marker = page["NextKeyMarker"]
            version_marker = page.get("NextVersionIdMarker", "")
        if pending[0]:
            yield pending

    async def call(
        self, ask: Callable[[], Answer], *, missing: frozenset[str] = frozenset()
    ) -> Answer | None:
        """One call to the server, in a thread; None for the error codes that mean "no".

        Raises:
            Unavailable: No answer, or one that may change: make the same call again later.
            ConfigurationError: No such bucket, wrong credentials, no permission, or the server
                refuses the request itself.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads, ask)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in missing:
                return None
            where = f"{error.operation_name}: {code}"
            if code in _WRONG_SETTINGS:
                raise self._refused(f"refuses {where}") from None
            raise Unavailable("s3", where) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise self._refused("no credentials (AUDIT_S3_ACCESS_KEY_ID)") from None
        except ParamValidationError:
            raise  # a bug of ours
        except (BotoCoreError, HTTPError, OSError) as error:
            raise Unavailable("s3", failure(error, "AUDIT_S3_CA_FILE")) from None

    def _refused(self, why: str) -> AuditTrailError:
        if self._waits_for_permission:
            return Unavailable("s3", why)
        return ConfigurationError(f"s3 {why}")

    async def close(self) -> None:
        """End the threads, then the connections."""
        # In a thread of its own: calls in flight may take up to their timeout.
        await asyncio.to_thread(self.threads.shutdown, wait=True, cancel_futures=True)
        self.client.close()

    async def _required(self, ask: Callable[[], Answer]) -> Answer:
        answer = await self.call(ask)
        if answer is None:
            raise Unavailable("s3", "an empty answer")
        return answer


def connect(
    *,
    endpoint_url: str = "",
    region: str,
    access_key_id: str = "",
    secret_access_key: str = "",
    ca_file: str | None = None,
    timeout_s: float = 10.0,
    threads: int = 4,
    waits_for_permission: bool = False,
) -> S3:
    """A client without retries; nothing is asked of the server yet.

    An empty endpoint is AWS; an empty key id leaves the SDK's own credential chain; without a CA
    file the SDK's own authorities are trusted.
    """
    config = Config(
        connect_timeout=min(timeout_s, 3.0),
        read_timeout=timeout_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=threads,
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        # Every put carries a SHA-256 already: no second checksum over the same bytes.
        request_checksum_calculation="when_required",
    )
    client = boto3.client(
        "s3",
        endpoint_url=endpoint_url or None,
        region_name=region,
        verify=ca_file,
        aws_access_key_id=access_key_id or None,
        aws_secret_access_key=secret_access_key or None,
        config=config,
    )
    return S3(client, threads=threads, waits_for_permission=waits_for_permission)
