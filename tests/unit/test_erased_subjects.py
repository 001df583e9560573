"""Keys of erased subjects leave the memory, and what happened before an erasure is sealed to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from pipeline.codec.redaction_command import decode_command, encode_command
from pipeline.domain.erasure import LeafPlace, RedactionCommand, Step, first_open, subjects_digest
from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.domain.escrow import EscrowEntry
from pipeline.domain.logs import LogName
from pipeline.domain.records import LogHead, PreparedBatch
from pipeline.keys.provider import LocalKeyProvider
from pipeline.keys.subjects import Erased, StoredKey, Subject, SubjectKeys, subject_message
from pipeline.native import native
from pipeline.testing import OCCURRED_AT_US, TENANTS, an_actor, an_event
from sinks.base import ReusedIds
from sinks.flight import Flight, Lane, merge
from sinks.leases import LEASE_S, Lease
from sinks.ledger_plan import portions, restored_head, sift
from tests.unit.follower_support import an_event as a_sealed
from tests.unit.native_support import Store, World, value_of

NOBODY = UUID(int=0).bytes
PERSON = Subject("acme", "user_id", "u-1")
PROVIDER = LocalKeyProvider(bytes(range(32)))
HASH = PROVIDER.mac(subject_message(PERSON))


def keys_over(
    store: Store,
    tombstone_of: Callable[[bytes], int | None] = lambda _: None,
    epoch_of: Callable[[], Awaitable[int]] | None = None,
) -> SubjectKeys:
    async def journal(_entries: Sequence[EscrowEntry]) -> None: ...

    ring = native.KeyRing() if native else None
    keys = SubjectKeys(
        PROVIDER,
        store,
        journal,
        cache_size=100,
        ring=ring,
        tombstone_of=tombstone_of,
        epoch_of=epoch_of,
    )
    keys.know_tenants({t: PROVIDER.wrap(bytes(32), b"tenant:" + t.encode()) for t in TENANTS})
    return keys


def resolve(keys: SubjectKeys, at_us: int = OCCURRED_AT_US) -> StoredKey | None:
    return asyncio.run(keys.resolve({PERSON: at_us})).get(PERSON)  # type: ignore[return-value]


def test_a_key_that_was_erased_leaves_every_cache() -> None:
    store = Store()
    keys = keys_over(store)
    found = asyncio.run(keys.resolve({PERSON: OCCURRED_AT_US}))[PERSON]
    asyncio.run(keys.by_ref([UUID(bytes=found.ref)]))

    dropped = keys.erase([Erased(HASH, found.ref, OCCURRED_AT_US)])

    assert dropped == 2  # by subject and by reference
    assert keys.known([(PERSON, {})]) is None
    assert keys.ring is None or len(keys.ring) == 0
    store.erased.add(HASH)
    store.rows.clear()
    assert asyncio.run(keys.by_ref([UUID(bytes=found.ref)])) == {}
    assert resolve(keys) is None


@pytest.mark.parametrize("how", ["resolve", "by_ref"])
def test_a_key_that_was_on_its_way_when_it_was_erased_is_asked_for_again(how: str) -> None:
    class Slow(Store):
        async def subject_keys(self, proposed: Sequence[EscrowEntry]) -> Sequence[StoredKey]:
            rows = await super().subject_keys(proposed)
            self._erase(rows)
            return rows

        async def keys_by_ref(self, refs: Sequence[UUID]) -> Sequence[StoredKey]:
            rows = await super().keys_by_ref(refs)
            self._erase(rows)
            return [row for row in rows if row.subject_hash not in gone]

        def _erase(self, rows: Sequence[StoredKey]) -> None:
            if rows and not self.erased:
                self.erased.add(HASH)
                gone_after.append(rows[0].subject_hash)
                keys.erase([Erased(HASH, rows[0].subject_ref.bytes, OCCURRED_AT_US)])
            elif gone_after:
                gone.update(gone_after)

    gone: set[bytes] = set()
    gone_after: list[bytes] = []
    store = Slow()
    keys = keys_over(store)
    if how == "by_ref":
        store.erased.add(b"not yet")
        ref = asyncio.run(keys.resolve({PERSON: OCCURRED_AT_US}))[PERSON].ref
        store.erased.clear()
        assert asyncio.run(keys.by_ref([UUID(bytes=ref)])) == {}
    else:
        assert resolve(keys) is None
    assert keys.known([(PERSON, {})]) is None


def test_who_holds_no_lease_asks_whether_somebody_was_erased() -> None:
    store, epoch = Store(), [1]

    async def epoch_of() -> int:
        return epoch[0]

    keys = keys_over(store, epoch_of=epoch_of)
    key = resolve(keys)
    assert key is not None
    ref = UUID(bytes=key.ref)
    assert asyncio.run(keys.by_ref([ref])) != {}
    store.rows.clear()
    assert asyncio.run(keys.by_ref([ref])) != {}  # in memory

    epoch[0] = 2

    assert asyncio.run(keys.by_ref([ref])) == {}


def test_a_tombstone_spares_the_database_the_question() -> None:
    store = Store()
    keys = keys_over(store, lambda digest: OCCURRED_AT_US if digest == HASH else None)

    assert resolve(keys, OCCURRED_AT_US) is None
    assert store.rows == {}
    assert resolve(keys, OCCURRED_AT_US + 1) is not None


@pytest.mark.skipif(native is None, reason="the compiled form is not built")
@pytest.mark.parametrize("form", ["compiled", "plain"])
def test_a_person_who_came_back_owns_nothing_from_before(form: str) -> None:
    world = World()

    class Back(Store):
        async def subject_keys(self, proposed: Sequence[EscrowEntry]) -> Sequence[StoredKey]:
            rows = await super().subject_keys(proposed)
            return [replace(row, erased_until_us=OCCURRED_AT_US) for row in rows]

    world = World()
    back = Back()
    world.compiled._keys._store = back
    world.plain._keys._store = back
    events = [
        an_event(
            "authentication",
            event_id=str(uuid4()),
            actor=an_actor("u-back", tenant="acme"),
            occurred_at=OCCURRED_AT_US + later,
        )
        for later in (-5, 1, 0, 2, -1)
    ]

    prepared = world.prepare(
        getattr(world, form), "authentication", *[value_of("authentication", e) for e in events]
    )

    late = [b'"00000000-0000-0000-0000-000000000000"' in e.canonical for e in prepared.events]
    assert late == [True, False, True, False, True]
    assert [bool(e.blobs) for e in prepared.events] == [False, True, False, True, False]
    assert [e.actor_ref is None for e in prepared.events] == late


# --- leases ---


class Leases:
    def __init__(self) -> None:
        self.epoch = 0
        self.erased: list[Erased] = []
        self.down = False
        self.shown: list[int] = []

    async def current_epoch(self) -> int:
        if self.down:
            raise Unavailable("postgres")
        return self.epoch

    async def erasures_since(self, epoch: int) -> Sequence[Erased]:
        assert epoch < self.epoch
        return self.erased

    async def renew(self, worker: UUID, epoch: int, lease_s: float) -> None:
        self.shown.append(epoch)

    async def end(self, worker: UUID) -> None: ...


def test_a_lease_shows_an_erasure_only_once_it_is_applied() -> None:
    store, applied = Leases(), []

    def apply(erased: Sequence[Erased]) -> None:
        assert 1 not in store.shown
        applied.extend(erased)

    lease = Lease(store, apply, monotonic=lambda: 0.0)
    asyncio.run(lease.renew())
    assert (lease.epoch, store.shown) == (0, [0])

    store.epoch, store.erased = 1, [Erased(HASH, bytes(16), 5)]
    asyncio.run(lease.renew())

    assert applied == store.erased
    assert (lease.epoch, store.shown) == (1, [0, 1])


def test_keys_are_unusable_once_the_lease_ended_by_the_monotonic_clock() -> None:
    now = [0.0]
    store = Leases()
    lease = Lease(store, lambda _: None, monotonic=lambda: now[0])
    with pytest.raises(Unavailable):
        lease.check()
    asyncio.run(lease.renew())
    lease.check()

    now[0] = LEASE_S  # as after SIGSTOP

    with pytest.raises(Unavailable):
        lease.check()
    store.down = True
    with pytest.raises(Unavailable):
        asyncio.run(lease.renew())
    assert not lease.holds


def test_a_database_with_fewer_erasures_than_were_applied_was_restored() -> None:
    store = Leases()
    store.epoch = 2
    lease = Lease(store, lambda _: None, monotonic=lambda: 0.0)
    asyncio.run(lease.renew())
    store.epoch = 1

    with pytest.raises(ConfigurationError, match="erase reapply"):
        asyncio.run(lease.renew())
    assert not lease.holds


# --- the ledger's side ---


def test_an_equal_id_alone_is_a_duplicate_of_an_event_of_somebody_erased() -> None:
    name = LogName("audit.raw.authentication", 0)
    head = restored_head(1, name, next_offset=0, size=0, frontier=b"", root=_empty_root())
    event = a_sealed(0, 0)
    held = {event.event_id: b"another hash"}

    def planned() -> list[object]:
        return list(portions([PreparedBatch(1, name, 0, 1, [event])], {1: head}))

    with pytest.raises(ReusedIds):
        sift(planned(), held)  # type: ignore[arg-type]
    (portion,) = planned()
    sift([portion], held, {event.event_id})  # type: ignore[list-item]

    assert portion.duplicates == 1  # type: ignore[attr-defined]
    assert portion.events == []  # type: ignore[attr-defined]


def test_batches_that_are_written_together_are_of_the_older_epoch() -> None:
    name = LogName("audit.raw.authentication", 0)
    lane = Lane(LogHead(1, name, 0, 0))
    flights = [
        Flight(None, lane, PreparedBatch(1, name, at, at + 1, [], [], epoch))  # type: ignore[arg-type]
        for at, epoch in enumerate((3, 2, None))
    ]

    ((_lane, batch),) = merge(flights)

    assert batch.erasure_epoch == 2


def _empty_root() -> bytes:
    from hashlib import sha256

    return sha256(b"").digest()


# --- commands ---

MAC = LocalKeyProvider(b"p" * 32).mac


def a_command() -> RedactionCommand:
    return RedactionCommand(
        uuid4(), "acme", ("user_id", "email"), (b"a" * 32, b"b" * 32), 5, 7,
        LeafPlace("audit.raw.system/0/1", 3), {"audit.raw.authentication/0": 9}, (uuid4(), uuid4()),
        (b"c" * 32, b"d" * 32),
    )  # fmt: skip


def test_a_command_comes_back_as_it_was() -> None:
    command = a_command()

    assert decode_command(encode_command(command, MAC), MAC) == command


def test_a_command_of_whoever_cannot_ask_the_key_provider_is_none() -> None:
    forged = encode_command(a_command(), LocalKeyProvider(b"o" * 32).mac)

    with pytest.raises(ValueError, match="key provider"):
        decode_command(forged, MAC)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: None,
        lambda value: b"",
        lambda value: b"\xc3\x01" + value[2:10][::-1] + value[10:],
        lambda value: value[:-1],
        lambda value: value + b"\x00",
        lambda value: value[:10] + b"\xff" * 40,
        lambda value: value[:40] + bytes([value[40] ^ 1]) + value[41:],
    ],
)
def test_anything_else_is_no_command(spoil: Callable[[bytes], bytes | None]) -> None:
    with pytest.raises(ValueError, match="not a command"):
        decode_command(spoil(encode_command(a_command(), MAC)), MAC)


def test_the_leaf_commits_to_just_these_subjects_in_any_order() -> None:
    assert subjects_digest([b"a" * 32, b"b" * 32]) == subjects_digest([b"b" * 32, b"a" * 32])
    assert subjects_digest([b"a" * 32]) != subjects_digest([b"a" * 32, b"b" * 32])


def test_a_crash_goes_on_with_the_first_step_that_is_not_noted() -> None:
    assert first_open([]) is Step.LEAF
    assert first_open([Step.LEAF, Step.KEYS]) is Step.ORDERED
    assert first_open(list(Step)) is None
