"""Keys in PostgreSQL: one winner for each, whoever proposes at the same moment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
import pytest

from pipeline.domain.escrow import EscrowEntry
from pipeline.entrypoints.letter_keys import letter_keys
from pipeline.keys.provider import LocalKeyProvider
from sinks.subject_store import DeadLetterKey, SubjectStore
from tests.ledger_support import Database, a_dead_letter, anyio_backend, database, template

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

AT_US = 1_760_000_000_123_457


@pytest.fixture
async def store(database: Database) -> AsyncIterator[SubjectStore]:
    made = SubjectStore(database.urls["writer"])
    yield made
    await made.close()


def a_proposal(person: int, at_us: int = AT_US, generation: int = 1) -> EscrowEntry:
    return EscrowEntry(
        subject_hash=person.to_bytes(32, "big"),
        generation=generation,
        subject_ref=os.urandom(16),
        tenant="acme",
        id_type="user_id",
        wrapped_key=os.urandom(60),
        first_occurred_at_us=at_us,
    )


async def test_the_same_new_subjects_at_once_get_one_key_each(database: Database) -> None:
    stores = [SubjectStore(database.urls["writer"]) for _topic in range(5)]
    orders = [[person * step % 41 for person in range(1, 41)] for step in range(3, 8)]

    answers = await asyncio.gather(
        *(
            store.subject_keys([a_proposal(person) for person in order])
            for store, order in zip(stores, orders, strict=True)
        )
    )

    for answer in answers:
        assert len(answer) == 40
    keys = {(key.subject_hash, key.subject_ref, key.wrapped_key) for a in answers for key in a}
    assert len(keys) == 40
    assert sum(key.created for answer in answers for key in answer) == 40
    for store in stores:
        await store.close()


async def test_a_key_is_found_again_by_subject_and_by_ref(store: SubjectStore) -> None:
    first = a_proposal(1)
    [made] = await store.subject_keys([first])

    [found] = await store.subject_keys([a_proposal(1)])
    by_ref = await store.keys_by_ref([UUID(bytes=first.subject_ref), UUID(int=404)])

    assert made.created
    assert not found.created
    assert (found.subject_ref.bytes, found.wrapped_key) == (first.subject_ref, first.wrapped_key)
    assert [(key.subject_ref, key.wrapped_key) for key in by_ref] == [
        (made.subject_ref, made.wrapped_key)
    ]


async def test_an_erased_subject_opens_a_generation_for_what_it_does_later(
    database: Database, store: SubjectStore
) -> None:
    [old] = await store.subject_keys([a_proposal(1)])
    database.run(
        "admin",
        "UPDATE audit_user SET wrapped_key = NULL, erased_at = to_timestamp(%s)",
        [AT_US / 1e6 + 10],
    )

    before = await store.subject_keys([a_proposal(1, AT_US + 9_000_000)])
    [after] = await store.subject_keys([a_proposal(1, AT_US + 11_000_000)])

    assert list(before) == []
    assert (after.generation, after.created) == (2, True)
    assert after.subject_ref != old.subject_ref
    assert list(await store.keys_by_ref([old.subject_ref])) == []


async def test_keys_wait_for_an_erasure_under_way(database: Database, store: SubjectStore) -> None:
    with psycopg.connect(database.urls["admin"]) as erasure:
        erasure.execute("UPDATE erasure_state SET epoch = epoch + 1")
        making = asyncio.create_task(store.subject_keys([a_proposal(1)]))
        await asyncio.sleep(0.2)
        waited = not making.done()

    assert waited
    assert len(await making) == 1


async def test_escrow_is_remembered_per_key(store: SubjectStore) -> None:
    proposals = [a_proposal(person) for person in range(3)]
    await store.subject_keys(proposals)
    refs = [proposal.subject_ref for proposal in proposals]

    before = await store.unescrowed(refs)
    await store.mark(refs[:2], "escrow/1")
    await store.mark(refs, "escrow/2")
    after = await store.unescrowed(refs)
    found = await store.subject_keys([a_proposal(0), a_proposal(9)])

    assert sorted(before, key=lambda e: e.subject_hash) == proposals
    assert list(after) == []
    assert {key.subject_hash[-1]: key.escrowed for key in found} == {0: True, 9: False}


async def test_the_newest_vault_object_is_known_for_restores(store: SubjectStore) -> None:
    proposals = [a_proposal(person) for person in range(3)]
    await store.subject_keys(proposals)

    before = await store.newest_escrow()
    await store.mark([proposals[1].subject_ref], "escrow/0000000000000000002-b.jsonl")
    await store.mark([proposals[0].subject_ref], "escrow/0000000000000000001-a.jsonl")

    assert before is None
    assert await store.newest_escrow() == "escrow/0000000000000000002-b.jsonl"


async def test_keys_come_back_from_escrow_as_they_were(
    database: Database, store: SubjectStore
) -> None:
    held = a_proposal(1)
    lost = a_proposal(2, generation=3)
    await store.subject_keys([held])

    restored = await store.restore([held, lost])
    again = await store.restore([lost, held])

    assert (restored, again) == (1, 0)
    refs = [held.subject_ref, lost.subject_ref]
    assert sorted(await store.unescrowed(refs), key=lambda e: e.generation) == [held, lost]


async def test_a_key_that_comes_back_beside_a_newer_one_opens_its_blobs(
    store: SubjectStore,
) -> None:
    newer, lost = a_proposal(1), a_proposal(1)
    await store.subject_keys([newer])

    restored = await store.restore([lost])

    found = await store.keys_by_ref([UUID(bytes=newer.subject_ref), UUID(bytes=lost.subject_ref)])
    assert restored == 1
    assert sorted(key.generation for key in found) == [1, 2]


async def test_a_tenant_is_added_once_and_keeps_its_key(store: SubjectStore) -> None:
    added = await store.create_tenant("acme", name="Acme", wrapped_key=b"1", retention_days=400)
    again = await store.create_tenant("acme", name="Other", wrapped_key=b"2")

    assert (added, again) == (True, False)
    assert await store.tenants() == {"acme": b"1"}
    [tenant] = await store.list_tenants()
    assert (tenant.name, tenant.retention_days) == ("Acme", 400)


async def test_a_dead_letter_keeps_its_first_key(store: SubjectStore) -> None:
    first = [DeadLetterKey("t", 0, offset, 1, b"a%d" % offset, "malformed") for offset in (5, 3)]
    second = [
        DeadLetterKey("t", 0, 3, 1, b"b3", "expired", b"h"),
        DeadLetterKey("t", 0, 4, 1, b"b4", "expired", b"h"),
        DeadLetterKey("t", 0, 3, 2, b"c3", "expired", b"h"),  # of the topic that replaced it
    ]

    await store.dead_letter_keys(first)
    held = await store.dead_letter_keys(second)

    assert held == {("t", 0, 3, 1): b"a3", ("t", 0, 4, 1): b"b4", ("t", 0, 3, 2): b"c3"}
    known = await store.stored_dead_letter_keys([("t", 0, 5, 1), ("t", 0, 5, 2), ("t", 1, 5, 1)])
    assert known == {("t", 0, 5, 1): b"a5"}
    assert await store.stored_dead_letter_keys([]) == {}


async def test_letters_that_are_made_again_have_the_keys_that_they_had(store: SubjectStore) -> None:
    keys_of = letter_keys(store, LocalKeyProvider(bytes(32)))
    letters = [a_dead_letter(offset) for offset in range(4)]

    first = await keys_of(letters[:2])
    again = await keys_of(letters)
    alone = await keys_of(letters[3:])

    assert again[:2] == first
    assert alone == again[3:]
    assert len(set(again)) == 4
