"""Keys are destroyed under an approved request alone, and nothing that was sealed before is stored after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from pipeline.compliance.trail_reader import TrailReader
from pipeline.db.connection import Connection
from pipeline.domain.erasure import State
from pipeline.domain.errors import AuditTrailError, ConfigurationError
from pipeline.domain.escrow import EscrowEntry
from pipeline.domain.logs import LogName
from sinks.base import ReusedIds, StaleKeys
from sinks.erasure_store import ErasureStore
from sinks.leases import PostgresLeases
from sinks.ledger import PostgresLedger
from sinks.subject_store import DeadLetterKey, SubjectStore
from tests.ledger_support import (
    OCCURRED_AT_US,
    Database,
    a_batch,
    a_sealed_event,
    anyio_backend,
    database,
    template,
)

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

HASH = bytes([7]) * 32


@pytest.fixture
async def erasures(database: Database) -> AsyncIterator[ErasureStore]:
    store = ErasureStore(database.urls["redactor"])
    yield store
    await store.close()


@pytest.fixture
async def subjects(database: Database) -> AsyncIterator[SubjectStore]:
    store = SubjectStore(database.urls["writer"])
    yield store
    await store.close()


def an_entry(occurred_at_us: int = OCCURRED_AT_US, **changes: object) -> EscrowEntry:
    facts = {
        "subject_hash": HASH,
        "generation": 1,
        "subject_ref": uuid4().bytes,
        "tenant": "acme",
        "id_type": "user_id",
        "wrapped_key": bytes(60),
        "first_occurred_at_us": occurred_at_us,
    }
    return EscrowEntry(**(facts | changes))  # type: ignore[arg-type]


def now_us(later_s: float = 0.0) -> int:
    return int((datetime.now(UTC) + timedelta(seconds=later_s)).timestamp() * 1e6)


async def a_request(erasures: ErasureStore, *hashes: bytes, four_eyes: bool = True) -> UUID:
    request = uuid4()
    await erasures.create(
        request,
        tenant="acme",
        id_types=["user_id"] * len(hashes or (HASH,)),
        subject_hashes=list(hashes or (HASH,)),
        raw_key_hashes=[bytes(32)],
        reason="GDPR-17",
        requested_by="one",
        four_eyes=four_eyes,
    )
    return request


async def carried_out(erasures: ErasureStore, *hashes: bytes) -> UUID:
    request = await a_request(erasures, *hashes)
    await erasures.approve(request, "two")
    await erasures.move(request, State.RUNNING, of=[State.APPROVED])
    await erasures.erase(request)
    return request


async def test_whoever_asked_does_not_approve_unless_that_is_configured(
    erasures: ErasureStore,
) -> None:
    request = await a_request(erasures)
    with pytest.raises(AuditTrailError, match="another operator"):
        await erasures.approve(request, "one")
    assert (await erasures.get(request)).state == "requested"

    await erasures.approve(request, "two")
    alone = await a_request(erasures, four_eyes=False)
    await erasures.approve(alone, "one")

    assert (await erasures.get(request)).approved_by == "two"
    assert (await erasures.get(alone)).state == "approved"


async def test_nothing_is_destroyed_without_an_approved_request(
    erasures: ErasureStore, subjects: SubjectStore, database: Database
) -> None:
    await subjects.subject_keys([an_entry()])
    request = await a_request(erasures)

    with pytest.raises(ConfigurationError):
        await erasures.erase(request)
    for statement in (
        "UPDATE redaction_request SET approved_by = 'two', approved_at = now()",
        "UPDATE redaction_request SET epoch = 1, erased_at = now()",
        "UPDATE audit_user SET wrapped_key = NULL",
        "SELECT wrapped_key FROM audit_user",
        "SELECT wrapped_key FROM dead_letter_key",
        "SELECT destroy_keys('{}', '', '{}', now(), 1, now())",
        "UPDATE erasure_state SET epoch = 5",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run("redactor", statement)
    with pytest.raises(psycopg.errors.CheckViolation):
        database.run("redactor", "UPDATE redaction_request SET state = 'running'")
    for role in ("writer", "reader", "signer", "auditor"):
        for function in (f"erase_subjects('{request}')", f"approve_redaction('{request}', 'x')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                database.run(role, f"SELECT {function}")

    assert len(await subjects.subject_keys([an_entry()])) == 1


async def test_an_erasure_destroys_every_generation_once(
    erasures: ErasureStore, subjects: SubjectStore
) -> None:
    (first,) = await subjects.subject_keys([an_entry()])
    request = await carried_out(erasures)
    epoch = (await erasures.get(request)).epoch

    assert await erasures.erase(request) == epoch
    assert await subjects.keys_by_ref([first.subject_ref]) == []
    assert await subjects.subject_keys([an_entry()]) == []  # what happened before is nobody's

    (second,) = await subjects.subject_keys([an_entry(now_us(60))])
    assert second.generation == 2
    assert OCCURRED_AT_US < second.erased_until_us <= now_us(1)
    await carried_out(erasures)
    assert await subjects.keys_by_ref([second.subject_ref]) == []
    rows = await erasures.subjects([HASH])
    assert [row.erased_at is not None for row in rows] == [True, True]


async def test_somebody_whom_nobody_has_seen_yet_is_erased_too(
    erasures: ErasureStore, subjects: SubjectStore
) -> None:
    await carried_out(erasures)

    assert await subjects.subject_keys([an_entry()]) == []
    assert len(await subjects.subject_keys([an_entry(now_us(60))])) == 1


async def test_an_erasure_later_moves_what_is_nobodys(
    erasures: ErasureStore, subjects: SubjectStore
) -> None:
    await carried_out(erasures)
    between = now_us()
    await asyncio.sleep(0.01)
    await carried_out(erasures)

    assert await subjects.subject_keys([an_entry(between)]) == []


async def test_no_copy_of_a_key_comes_back_from_escrow(
    erasures: ErasureStore, subjects: SubjectStore
) -> None:
    entry = an_entry()
    await subjects.subject_keys([entry])
    await carried_out(erasures)
    stray = an_entry(subject_ref=uuid4().bytes)

    assert await subjects.restore([entry, stray]) == 0
    assert await subjects.mark([entry.subject_ref], "escrow/x") == [entry.subject_ref]


async def test_workers_hear_of_what_they_have_not_applied(
    erasures: ErasureStore, subjects: SubjectStore, database: Database
) -> None:
    leases = PostgresLeases(database.urls["writer"])
    try:
        worker, before = uuid4(), await leases.current_epoch()
        (row,) = await subjects.subject_keys([an_entry()])
        await leases.renew(worker, before, 5.0)
        request = await carried_out(erasures)
        epoch = (await erasures.get(request)).epoch or 0

        assert await erasures.workers_behind(epoch) == 1
        (erased,) = await leases.erasures_since(before)
        assert (erased.subject_hash, erased.subject_ref) == (HASH, row.subject_ref.bytes)
        await leases.renew(worker, await leases.current_epoch(), 5.0)
        assert await erasures.workers_behind(epoch) == 0
        await leases.renew(worker, before, 0.0)
        assert await erasures.workers_behind(epoch) == 0  # its lease has ended
    finally:
        await leases.close()


async def test_what_was_sealed_before_an_erasure_is_refused(
    erasures: ErasureStore, database: Database
) -> None:
    ledger = PostgresLedger(database.urls["writer"])
    try:
        head = await ledger.open_log("audit.raw.authentication", 0, cluster_id="c", topic_id="t")
        batch = a_batch(head, [a_sealed_event(0)])
        batch.erasure_epoch = 0
        await carried_out(erasures)

        with pytest.raises(StaleKeys):
            await ledger.write([batch])
        assert (await ledger.head(head.log_id)).size == 0
        batch.erasure_epoch = 1
        (outcome,) = await ledger.write([batch])
        assert outcome.head.size == 1
    finally:
        await ledger.close()


async def test_heads_are_noted_only_once_a_transaction_under_way_has_ended(
    erasures: ErasureStore, database: Database
) -> None:
    """One that read the epoch before is in what is noted; one that did not, reads the new one."""
    ledger = PostgresLedger(database.urls["writer"])
    try:
        head = await ledger.open_log("audit.raw.authentication", 0, cluster_id="c", topic_id="t")
        await ledger.write([a_batch(head, [a_sealed_event(0)])])
        with psycopg.connect(database.urls["writer"]) as under_way:
            under_way.execute("SELECT FROM log_heads WHERE log_id = %s FOR UPDATE", [head.log_id])
            await carried_out(erasures)
            noting = asyncio.ensure_future(erasures.heads_after_erasure())
            await asyncio.sleep(0.3)
            assert not noting.done()
            under_way.execute("UPDATE log_heads SET size = 9 WHERE log_id = %s", [head.log_id])
            under_way.commit()
        (noted,) = await noting
        assert noted.size == 9
    finally:
        await ledger.close()


async def test_an_event_of_somebody_erased_that_comes_again_is_a_duplicate(
    erasures: ErasureStore, subjects: SubjectStore, database: Database
) -> None:
    (row,) = await subjects.subject_keys([an_entry()])
    ledger = PostgresLedger(database.urls["writer"])
    try:
        head = await ledger.open_log("audit.raw.authentication", 0, cluster_id="c", topic_id="t")
        named = {str(row.subject_ref): {"actor.id": b"c" * 32}}
        first = a_sealed_event(0, sealed=named)
        other = a_sealed_event(1)
        (outcome,) = await ledger.write([a_batch(head, [first, other])])
        again = a_sealed_event(2, event_id=UUID(bytes=first.event_id), sealed={})
        reused = a_sealed_event(3, event_id=UUID(bytes=other.event_id), text="other")
        with pytest.raises(ReusedIds):
            await ledger.write([a_batch(outcome.head, [again])])
        await carried_out(erasures)

        (duplicate,) = await ledger.write([a_batch(outcome.head, [again])])
        with pytest.raises(ReusedIds):
            await ledger.write([a_batch(duplicate.head, [reused])])

        assert duplicate.duplicates == 1
    finally:
        await ledger.close()


async def test_a_database_that_was_lost_learns_whose_keys_are_gone_and_nobody_elses(
    erasures: ErasureStore, subjects: SubjectStore
) -> None:
    other = an_entry(subject_hash=b"o" * 32)
    await subjects.restore([other])
    request, gone, alive = uuid4(), uuid4(), UUID(bytes=other.subject_ref)

    await erasures.reapply(
        request,
        tenant="acme",
        id_types=["user_id"],
        subject_hashes=[HASH],
        subject_refs=(gone, alive, gone),
        raw_key_hashes=[b"k" * 32],
        erased_at=datetime.now(UTC),
    )

    assert (await erasures.get(request)).raw_key_hashes == [b"k" * 32]
    known = (await erasures.get(request)).subject_refs
    assert gone in known
    assert alive not in known
    assert len(known) == 2  # and the one that was made for the identifier


async def test_after_a_restore_it_is_applied_again_and_a_key_made_since_stays(
    erasures: ErasureStore, subjects: SubjectStore
) -> None:
    old, back = an_entry(), an_entry(now_us(60), generation=2)
    await subjects.restore([old, back])
    request, at = uuid4(), datetime.now(UTC) - timedelta(seconds=10)

    facts = {
        "tenant": "acme", "id_types": ["user_id"], "subject_hashes": [HASH], "subject_refs": (),
        "raw_key_hashes": (), "erased_at": at,
    }  # fmt: skip
    assert await erasures.reapply(request, **facts)  # type: ignore[arg-type]
    assert not await erasures.reapply(request, **facts)  # type: ignore[arg-type]

    refs = [UUID(bytes=entry.subject_ref) for entry in (old, back)]
    assert [row.subject_ref for row in await subjects.keys_by_ref(refs)] == refs[1:]


async def test_a_letter_that_was_destroyed_stays_known_and_never_gets_a_key_again(
    erasures: ErasureStore, subjects: SubjectStore, database: Database
) -> None:
    name = LogName("audit.raw.authentication", 0, 1)
    letters = [
        DeadLetterKey(name.topic, 0, offset, 1, bytes([offset]) * 60, "too_large", raw_key)
        for offset, raw_key in enumerate([b"k" * 32, b"o" * 32, None])
    ]
    await subjects.dead_letter_keys(letters)
    request = await a_request(erasures)

    for _ in range(2):  # a crash before it was noted
        named = [letters[0].position, letters[2].position]
        assert await erasures.destroy_letters(request, [b"k" * 32], named) == 2

    assert await subjects.dead_letter_keys(letters) == {letters[1].position: b"\x01" * 60}
    connection = Connection(database.urls["auditor"], name="test")
    reader = TrailReader(connection)
    assert await reader.letter_keys(name, [(0, 2), (2, 9)]) == {
        0: {None: 1, request: 1},
        2: {request: 1},
    }
    await connection.close()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run("redactor", "DELETE FROM dead_letter_key")
