"""Key escrow: a copy of every wrapped subject key outside the database, and how it is written.

A new key goes to the journal topic before the ledger transaction that first uses it, and to the
vault bucket before the archive object that first uses it: a rolled-back database finds every key
again. Keys are already wrapped; nothing here can be decrypted without the key provider.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from pipeline.domain.errors import ConfigurationError

FORMAT_VERSION = 1
ESCROW_PREFIX = "escrow/"
TENANTS_PREFIX = "tenants/"
NOBODY = bytes(16)  # the fixed subject_ref that has no key


@dataclass(frozen=True, slots=True)
class EscrowEntry:
    """One row of ``audit_user`` as it must come back: no clear identifier, the key wrapped."""

    subject_hash: bytes  # 32 bytes, HMAC-SHA-256 of the subject triple
    generation: int
    subject_ref: bytes  # 16 bytes
    tenant: str
    id_type: str
    wrapped_key: bytes  # 60 bytes
    first_occurred_at_us: int


@dataclass(frozen=True, slots=True)
class TenantEntry:
    """One row of ``tenants``: without its key, no subject key of the tenant can be unwrapped."""

    tenant: str
    name: str
    wrapped_key: bytes
    retention_days: int | None = None


class EscrowSource(Protocol):
    """Who knows which keys are in the vault already: ``audit_user``."""

    async def unescrowed(self, refs: Collection[bytes]) -> Sequence[EscrowEntry]:
        """The entries, of those asked for, that no vault object is remembered for.

        Raises:
            Unavailable: Ask again later.
        """
        ...

    async def mark(self, refs: Collection[bytes], name: str) -> Collection[bytes]:
        """Remember durably that the vault object ``name`` holds these keys; may be repeated. Those that
        were erased since they were read: the object must be rewritten without them.

        Raises:
            Unavailable: Nothing is known; the keys may be escrowed again, which is harmless.
        """
        ...


class KeyStore(Protocol):
    """Where restored keys go: ``audit_user``."""

    async def restore(self, entries: Sequence[EscrowEntry]) -> int:
        """Insert the rows that are missing, as they were; how many were. Existing rows stay.

        Raises:
            Unavailable: Nothing is known; restore the same entries again later.
        """
        ...


def encode_entries(entries: Iterable[EscrowEntry]) -> bytes:
    """JSON lines, one entry each with its format version; binary values as standard base64."""
    return b"".join(_encode(entry) for entry in entries)


class OtherVersion(ValueError):
    """An entry that another release wrote: it holds a key, and this release cannot read it."""


def decode_entries(encoded: bytes) -> list[EscrowEntry]:
    """Read back what ``encode_entries`` gave; several encodings in a row are one.

    Raises:
        OtherVersion: Of a later version.
        ValueError: Not this format; the message holds no value.
    """
    return [_decode(line) for line in encoded.splitlines() if line]


def journal_entries(
    value: bytes | None, place: str, foreign: Callable[[str], None]
) -> list[EscrowEntry]:
    """The entries of the journal's record at ``place`` (topic:partition:offset). A record that is none of
    the trail's is told to ``foreign`` and passed over: it holds no key, and a topic that is kept for
    ever would otherwise keep every worker from starting. That it is not one of ours damaged, the
    checksum of its batch has said.

    Raises:
        ConfigurationError: It holds keys that this release cannot read: passed over, they would be lost
            without a word when the database was rolled back.
    """
    try:
        return decode_entries(value or b"")
    except OtherVersion as error:
        raise ConfigurationError(f"{place}: {error}; run the release that wrote it") from None
    except ValueError:
        foreign(place)
        return []


def escrow_name(encoded: bytes, *, written_at_us: int) -> str:
    """The vault key of one batch: names sort by the time of writing."""
    return f"{ESCROW_PREFIX}{written_at_us:019d}-{sha256(encoded).hexdigest()[:16]}.jsonl"


def tenant_object_name(tenant: str) -> str:
    """The vault key of a tenant's entry; any text may be a tenant id, so it is hashed."""
    return f"{TENANTS_PREFIX}{sha256(tenant.encode()).hexdigest()}.json"


def encode_tenant(entry: TenantEntry) -> bytes:
    """One JSON object with its format version."""
    found = {
        "v": FORMAT_VERSION,
        "tenant": entry.tenant,
        "name": entry.name,
        "wrapped_key": b64encode(entry.wrapped_key).decode(),
        "retention_days": entry.retention_days,
    }
    return json.dumps(found, ensure_ascii=True, separators=(",", ":")).encode()


def decode_tenant(encoded: bytes) -> TenantEntry:
    """Read back what ``encode_tenant`` gave.

    Raises:
        ValueError: Not this format, or of a later version; the message holds no value.
    """
    refusal = ValueError(f"not a tenant entry of version {FORMAT_VERSION}")
    try:
        found = json.loads(encoded)
        version, days = found["v"], found["retention_days"]
        entry = TenantEntry(
            tenant=str(found["tenant"]),
            name=str(found["name"]),
            wrapped_key=b64decode(found["wrapped_key"], validate=True),
            retention_days=None if days is None else int(days),
        )
    except (KeyError, TypeError, ValueError):
        raise refusal from None
    if version != FORMAT_VERSION:
        raise refusal
    return entry


def escrow_start(at_us: int) -> str:
    """What sorts before every name written at that time or later."""
    return f"{ESCROW_PREFIX}{max(at_us, 0):019d}"


def written_at_us(name: str) -> int:
    """When the batch of that name was written, by the clock of who wrote it.

    Raises:
        ValueError: Not such a name.
    """
    return int(name.removeprefix(ESCROW_PREFIX).partition("-")[0])


def _encode(entry: EscrowEntry) -> bytes:
    line = {
        "v": FORMAT_VERSION,
        "subject_hash": b64encode(entry.subject_hash).decode(),
        "generation": entry.generation,
        "subject_ref": b64encode(entry.subject_ref).decode(),
        "tenant": entry.tenant,
        "id_type": entry.id_type,
        "wrapped_key": b64encode(entry.wrapped_key).decode(),
        "first_occurred_at": entry.first_occurred_at_us,
    }
    # ASCII: a line separator inside a tenant's name cannot cut a line in two.
    return json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _decode(line: bytes) -> EscrowEntry:
    refusal = ValueError(f"not an escrow entry of version {FORMAT_VERSION}")
    try:
        found = json.loads(line)
        version = found["v"]
        if version != FORMAT_VERSION:
            raise OtherVersion(str(refusal)) if isinstance(version, int) else refusal
        return EscrowEntry(
            subject_hash=b64decode(found["subject_hash"], validate=True),
            generation=int(found["generation"]),
            subject_ref=b64decode(found["subject_ref"], validate=True),
            tenant=str(found["tenant"]),
            id_type=str(found["id_type"]),
            wrapped_key=b64decode(found["wrapped_key"], validate=True),
            first_occurred_at_us=int(found["first_occurred_at"]),
        )
    except OtherVersion:
        raise
    except (KeyError, TypeError, ValueError):
        # Not JSON, UTF-8, base64 or a number: none of it is repeated here.
        raise refusal from None
