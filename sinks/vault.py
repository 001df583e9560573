"""The vault bucket's key escrow: one object per batch of new keys, read again after a rollback.

An object, once ``escrow`` has returned, survives the loss of the database. The same key may lie in
several objects (a crash before it was marked, two workers): restoring it twice changes nothing,
and erasing it must look into all of them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence

from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.domain.escrow import (
    ESCROW_PREFIX,
    TENANTS_PREFIX,
    EscrowEntry,
    TenantEntry,
    decode_entries,
    decode_tenant,
    encode_entries,
    encode_tenant,
    escrow_name,
    escrow_start,
    tenant_object_name,
    written_at_us,
)
from sinks.s3 import S3, Stored

# S3 refuses a caller whose clock is off by more than 15 minutes, so the names of two workers are
# in the wrong order only within 30.
CLOCK_SKEW_US = 30 * 60 * 1_000_000
_REWRITE_TRIES = 5


class Vault:
    """Escrow objects in one bucket; the S3 client belongs to whoever made it."""

    def __init__(
        self,
        s3: S3,
        bucket: str,
        *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._now_us = now_us
        self._unconfirmed: tuple[bytes, str] = (b"", "")

    async def escrow(self, entries: Sequence[EscrowEntry]) -> str:
        """Store a batch (at least one key); the object's name. On return it is durable.

        The same batch after a failed call gets the same name, so it is stored once.

        Raises:
            Unavailable: The object may be there or not; escrow the same batch again later.
            ConfigurationError: No such bucket, or no permission.
        """
        encoded = encode_entries(entries)
        if self._unconfirmed[0] != encoded:
            self._unconfirmed = encoded, escrow_name(encoded, written_at_us=self._now_us())
        name = self._unconfirmed[1]
        # Not there, or there with these very bytes: its name has their hash.
        await self._s3.put(
            self._bucket, name, encoded, content_type="application/jsonl", absent=True
        )
        self._unconfirmed = b"", ""
        return name

    async def escrow_tenant(self, entry: TenantEntry) -> TenantEntry:
        """Store a new tenant's key before the database has it; the entry that the vault holds.

        The first one stays: a tenant that is made again after the database was rolled back gets
        the key back under which its subjects' keys are wrapped. Write the database's row from the
        returned entry.

        Raises:
            Unavailable: Nothing is known; call again with the same entry.
            ConfigurationError: No such bucket, no permission, or a foreign object.
        """
        name = tenant_object_name(entry.tenant)
        stored = await self._s3.put(
            self._bucket, name, encode_tenant(entry), content_type="application/json", absent=True
        )
        if stored:
            return entry
        there = await self._s3.get(self._bucket, name)
        if there is None:
            raise Unavailable("s3", "the tenant's entry came and went")
        return _tenant(there)

    async def read_tenants(self) -> AsyncIterator[TenantEntry]:
        """Every tenant's entry, for a restore; before ``read_escrow``'s keys are used.

        Raises:
            Unavailable, ConfigurationError: As ``read_escrow``.
        """
        async for name in self._s3.keys(self._bucket, TENANTS_PREFIX):
            stored = await self._s3.get(self._bucket, name)
            if stored is not None:
                yield _tenant(stored)

    async def drop(self, name: str, refs: frozenset[bytes]) -> int:
        """Rewrite an escrow object without the keys of these subjects; how many it held. Durable on
        return; an object without keys is removed.

        Raises:
            Unavailable: Call again; what was dropped stays dropped.
            ConfigurationError: No permission, or not an escrow object.
        """
        for _try in range(_REWRITE_TRIES):
            stored = await self._s3.get(self._bucket, name)
            if stored is None:
                return 0
            held = _entries(stored)
            left = [entry for entry in held if entry.subject_ref not in refs]
            if len(left) == len(held):
                return 0
            if left:
                done = await self._s3.put(
                    self._bucket,
                    name,
                    encode_entries(left),
                    content_type="application/jsonl",
                    if_match=stored.etag,
                )
            else:
                await self._s3.delete(self._bucket, name)
                done = True
            if done:
                return len(held) - len(left)
        raise Unavailable("s3", "an escrow object is rewritten by others all the time")

    async def escrow_names(self, *, after_us: int) -> AsyncIterator[str]:
        """The names of the objects that were written since, less ``CLOCK_SKEW_US``. Raises as
        ``read_escrow``.
        """
        start = escrow_start(after_us - CLOCK_SKEW_US)
        async for name in self._s3.keys(self._bucket, ESCROW_PREFIX, after=start):
            yield name

    async def read_escrow(
        self, after: str | None = None
    ) -> AsyncIterator[tuple[str, list[EscrowEntry]]]:
        """(name, keys) of every object written after the object ``after``, in order of names.

        Some that were written before it come too: names carry the clocks of several workers.

        Raises:
            ConfigurationError: An object is not an escrow batch; the message has its name only.
            Unavailable: Go on later, after the last name.
            ValueError: ``after`` is not the name of an escrow object.
        """
        start = ""
        if after is not None:
            start = escrow_start(written_at_us(after) - CLOCK_SKEW_US)
        async for name in self._s3.keys(self._bucket, ESCROW_PREFIX, after=start):
            stored = await self._s3.get(self._bucket, name)
            if stored is None:
                continue  # erased between listing and reading
            yield name, _entries(stored)


def _entries(stored: Stored) -> list[EscrowEntry]:
    try:
        return decode_entries(stored.body)
    except ValueError as error:
        raise ConfigurationError(f"vault object {stored.key}: {error}") from None


def _tenant(stored: Stored) -> TenantEntry:
    try:
        return decode_tenant(stored.body)
    except ValueError as error:
        raise ConfigurationError(f"vault object {stored.key}: {error}") from None
