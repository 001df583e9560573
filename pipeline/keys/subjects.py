"""Subjects and their keys: from (tenant, id type, id) to what seals and opens their values.

Ids never leave this process: the database knows a subject by its keyed hash. Keys stay in a
bounded cache; what is not in it is asked for once per batch, for all of the batch's subjects.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, Protocol
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.domain.escrow import EscrowEntry
from pipeline.keys.provider import KEY_BYTES, KeyProvider, unwrap_key, wrap_key

if TYPE_CHECKING:
    from pipeline.native.audit_native import KeyRing

UNATTRIBUTED = "\0unattributed"  # no event can name it: control characters are refused
NOBODY = UUID(int=0)
NEVER_ERASED = -1  # before every occurred_at


class Subject(NamedTuple):
    """A data subject as events name it: home tenant, id type, id."""

    tenant: str
    id_type: str
    id: str


class SubjectKey:
    """What one subject's values are sealed with: Kc for commitments, Kb for blobs.

    ``erased_until_us``: events up to then are sealed to nobody; the subject came back afterwards.
    """

    __slots__ = ("_cipher", "blob_key", "commit_key", "erased_until_us", "ref", "ref_name")

    def __init__(self, ref: UUID, key: bytes, erased_until_us: int = NEVER_ERASED) -> None:
        self.erased_until_us = erased_until_us
        self.ref = ref.bytes
        self.ref_name = b'"%b":' % str(ref).encode()  # as the name of a JSON member
        self.commit_key = blake2b(key=key, person=b"commit", digest_size=KEY_BYTES).digest()
        self.blob_key = blake2b(key=key, person=b"blob", digest_size=KEY_BYTES).digest()
        self._cipher: AESGCM | None = None

    @property
    def blob_cipher(self) -> AESGCM:
        """AES-256-GCM under Kb; made when it is first wanted."""
        if self._cipher is None:
            self._cipher = AESGCM(self.blob_key)
        return self._cipher


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A row of ``audit_user``: the winner for a subject hash. ``escrowed``: the vault has it too.
    ``erased_until_us``: when an earlier generation was erased.
    """

    subject_hash: bytes
    generation: int
    subject_ref: UUID
    tenant: str
    wrapped_key: bytes
    created: bool = False
    escrowed: bool = False
    erased_until_us: int = NEVER_ERASED


class Erased(NamedTuple):
    """A subject whose key was destroyed: events up to ``erased_at_us`` are nobody's."""

    subject_hash: bytes
    subject_ref: bytes  # of the key that was destroyed
    erased_at_us: int


class KeyStore(Protocol):
    """The ledger's side of subject keys."""

    async def subject_keys(self, proposed: Sequence[EscrowEntry]) -> Sequence[StoredKey]:
        """Find or make the key of each subject; a proposal is used only where there is none.

        Durable on return, in a transaction of its own, under the erasure lock. Whoever proposes at
        the same moment gets the same winner. Raises ``Unavailable``.
        """
        ...

    async def keys_by_ref(self, refs: Sequence[UUID]) -> Sequence[StoredKey]:
        """The keys of subjects by ref; refs whose key is gone are left out. Raises ``Unavailable``."""
        ...

    async def tenants(self) -> Mapping[str, bytes]:
        """The wrapped key of each tenant. Raises ``Unavailable``."""
        ...


# subject hash → when the subject was erased, as far as this worker heard; None: it did not.
TombstoneOf = Callable[[bytes], int | None]

# Appends keys to the journal topic; returns once all in-sync replicas have them.
Journal = Callable[[Sequence[EscrowEntry]], Awaitable[None]]


def unattributed(tenant: str, occurred_at_us: int) -> Subject:
    """The tenant's key of a month for values of no known subject."""
    month = datetime.fromtimestamp(occurred_at_us / 1_000_000, UTC)
    return Subject(tenant, UNATTRIBUTED, f"{month.year:04}-{month.month:02}")


def subject_message(subject: Subject) -> bytes:
    """Each part with its length (4 bytes, big-endian), so that no two triples run together."""
    parts = [part.encode() for part in subject]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class SubjectKeys:
    """The keys of the subjects that events name, cached.

    Invariant: a key is in ``audit_user`` and, if it is new, in the journal topic before
    ``resolve`` returns it; so a ledger transaction never uses a key that a database loss takes.
    ``ring`` has the same keys by subject, for the compiled sealer. ``tombstone_of`` spares the
    database the question for late events of people who did not come back; it may lag behind, since
    whatever it does not know the database does.

    An erasure is applied on the event loop, without an await: no key of an erased subject is in memory
    once ``erase`` has returned, nor is one that was on its way from the database then kept. Who holds no
    lease, and so is not told, gives ``epoch_of``: it says how many erasures there were, is asked whenever
    keys are, and drops what is cached when there were more.
    """

    def __init__(
        self,
        provider: KeyProvider,
        store: KeyStore,
        journal: Journal,
        *,
        cache_size: int,
        on_created: Callable[[int], None] = lambda _: None,
        ring: KeyRing | None = None,
        tombstone_of: TombstoneOf = lambda _hash: None,
        epoch_of: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._provider = provider
        self._store = store
        self._journal = journal
        self._cache_size = cache_size
        self._on_created = on_created
        self.ring = ring
        self._tenant_ciphers: dict[str, AESGCM] = {}
        self._tombstone_of = tombstone_of
        self._epoch_of = epoch_of
        self._epoch = -1
        self._erasures = 0  # how often keys were dropped
        self._by_subject: OrderedDict[Subject, SubjectKey] = OrderedDict()
        self._subject_of: dict[bytes, Subject] = {}  # by the ref of its cached key
        self._by_ref: OrderedDict[UUID, SubjectKey] = OrderedDict()

    def know_tenants(self, wrapped: Mapping[str, bytes]) -> None:
        """Take the wrapping keys of tenants (table ``tenants``) as they are now."""
        for tenant, key in wrapped.items():
            if tenant not in self._tenant_ciphers:
                plain = self._provider.unwrap(key, b"tenant:" + tenant.encode())
                self._tenant_ciphers[tenant] = AESGCM(plain)

    def forget(self) -> None:
        """Drop every cached key."""
        self._erasures += 1
        self._by_subject.clear()
        self._subject_of.clear()
        self._by_ref.clear()
        if self.ring is not None:
            self.ring.clear()

    def erase(self, erased: Iterable[Erased]) -> int:
        """Drop the keys of subjects that were erased; how many there were. Any number of times."""
        self._erasures += 1
        dropped = 0
        for one in erased:
            dropped += self._by_ref.pop(UUID(bytes=one.subject_ref), None) is not None
            subject = self._subject_of.pop(one.subject_ref, None)
            if subject is not None:
                dropped += 1
                self._by_subject.pop(subject, None)
                if self.ring is not None:
                    self.ring.drop_key(subject)
        return dropped

    def known(self, owned: Sequence[tuple[Subject, object]]) -> list[SubjectKey] | None:
        """The keys of some subjects, in their order, if every one of them is in memory."""
        cache = self._by_subject
        keys = []
        for subject, _values in owned:
            key = cache.get(subject)
            if key is None:
                return None
            cache.move_to_end(subject)
            keys.append(key)
        return keys

    async def resolve(self, wanted: Mapping[Subject, int]) -> dict[Subject, SubjectKey]:
        """The key of each subject; made where it has none. Values are an ``occurred_at`` in µs.

        Raises:
            Unavailable: The database or the journal does not answer; ask again later.
        """
        while True:
            found: dict[Subject, SubjectKey] = {}
            missing: dict[bytes, tuple[Subject, EscrowEntry]] = {}
            cache, erasures = self._by_subject, self._erasures
            for subject, occurred_at_us in wanted.items():
                key = cache.get(subject)
                if key is None:
                    proposal = self._propose(subject, occurred_at_us)
                    erased_at_us = self._tombstone_of(proposal.subject_hash)
                    if erased_at_us is None or occurred_at_us > erased_at_us:
                        missing[proposal.subject_hash] = (subject, proposal)
                else:
                    cache.move_to_end(subject)
                    found[subject] = key
            if not missing:
                return found
            made = await self._find_or_make(missing, erasures)
            if made is not None:
                found.update(made)
                return found

    async def by_ref(self, refs: Iterable[UUID]) -> dict[UUID, SubjectKey]:
        """The keys of subjects by ref, for opening blobs; refs whose key is gone are left out.

        Raises:
            Unavailable: The database does not answer; ask again later.
        """
        wanted = set(refs)
        if self._epoch_of is not None and (epoch := await self._epoch_of()) != self._epoch:
            self._epoch = epoch
            self.forget()
        while True:
            erasures = self._erasures
            found = {ref: key for ref in wanted if (key := self._by_ref.get(ref)) is not None}
            missing = [ref for ref in wanted if ref not in found]
            if not missing:
                return found
            rows = await self._store.keys_by_ref(missing)
            if any(row.tenant not in self._tenant_ciphers for row in rows):
                # Let in, or restored from the vault, since this worker last looked.
                self.know_tenants(await self._store.tenants())
            if erasures != self._erasures:
                continue  # one of these may have been on its way while it was destroyed
            for stored in rows:
                key = self._unwrap(stored)
                found[stored.subject_ref] = key
                self._remember_ref(stored.subject_ref, key)
            return found

    async def _find_or_make(
        self, missing: Mapping[bytes, tuple[Subject, EscrowEntry]], erasures: int
    ) -> dict[Subject, SubjectKey] | None:
        """None: keys were dropped meanwhile, and one of these may be among them; ask again."""
        rows = await self._store.subject_keys([entry for _subject, entry in missing.values()])
        # Journalled unless the vault has it, even when the row was there: an earlier worker may have
        # died between its transaction and its journal record. Duplicates there are harmless.
        fresh = [_as_stored(missing[row.subject_hash][1], row) for row in rows if not row.escrowed]
        if erasures != self._erasures:
            return None
        if fresh:
            await self._journal(fresh)
        self._on_created(sum(row.created for row in rows))
        if erasures != self._erasures:
            return None
        made = {}
        for row in rows:
            subject = missing[row.subject_hash][0]
            key = self._unwrap(row)
            made[subject] = key
            self._by_subject[subject] = key
            self._subject_of[key.ref] = subject
            if self.ring is not None:
                self.ring.put(subject, key.ref, key.commit_key, key.blob_key, key.erased_until_us)
        self._forget_the_longest_unused()
        return made

    def _propose(self, subject: Subject, occurred_at_us: int) -> EscrowEntry:
        ref = UUID(bytes=os.urandom(16), version=4)
        cipher = self._tenant_ciphers[subject.tenant]
        return EscrowEntry(
            subject_hash=self._provider.mac(subject_message(subject)),
            generation=1,
            subject_ref=ref.bytes,
            tenant=subject.tenant,
            id_type=subject.id_type.lstrip("\0"),
            wrapped_key=wrap_key(cipher, os.urandom(KEY_BYTES), ref.bytes),
            first_occurred_at_us=occurred_at_us,
        )

    def _unwrap(self, row: StoredKey) -> SubjectKey:
        plain = unwrap_key(self._tenant_ciphers[row.tenant], row.wrapped_key, row.subject_ref.bytes)
        return SubjectKey(row.subject_ref, plain, row.erased_until_us)

    def _remember_ref(self, ref: UUID, key: SubjectKey) -> None:
        self._by_ref[ref] = key
        while len(self._by_ref) > self._cache_size:
            self._by_ref.popitem(last=False)

    def _forget_the_longest_unused(self) -> None:
        """A key that the compiled sealer used since this last looked stays once more."""
        cache = self._by_subject
        while len(cache) > self._cache_size:
            subject, key = cache.popitem(last=False)
            if self.ring is not None and self.ring.take_used(subject):
                cache[subject] = key
                continue
            self._subject_of.pop(key.ref, None)
            if self.ring is not None:
                self.ring.drop_key(subject)


def _as_stored(proposal: EscrowEntry, row: StoredKey) -> EscrowEntry:
    """The journal's entry of a row: what the database holds, whoever proposed it."""
    return EscrowEntry(
        subject_hash=row.subject_hash,
        generation=row.generation,
        subject_ref=row.subject_ref.bytes,
        tenant=row.tenant,
        id_type=proposal.id_type,
        wrapped_key=row.wrapped_key,
        first_occurred_at_us=proposal.first_occurred_at_us,
    )
