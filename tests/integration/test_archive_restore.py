"""Reading the archive and the key escrow back, after tampering and after a rollback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pipeline.domain.errors import ChainBroken, ConfigurationError, Unavailable
from pipeline.domain.escrow import NOBODY, TenantEntry
from pipeline.domain.records import LeafRange
from sinks.archive_format import archive_key, blobs_key
from sinks.key_escrow import KeyEscrow
from sinks.restore import restore_keys, restore_log
from sinks.vault import Vault
from tests.archive_support import (
    Gateway,
    LedgerLog,
    Subjects,
    a_ref,
    an_entry,
    an_event,
    facts,
    new_log,
    open_gateway,
)

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


@pytest.fixture
async def ledger(gateway: Gateway) -> LedgerLog:
    """Twenty leaves, archived as four objects of five."""
    ledger = LedgerLog(new_log(), 20)
    await gateway.destination(ledger, max_events=5).write([ledger.range(0)])
    return ledger


async def test_the_archive_says_where_a_log_began(gateway: Gateway, ledger: LedgerLog) -> None:
    assert await gateway.reader.first_offset(ledger.name) == ledger.events[0].offset
    assert await gateway.reader.first_offset(new_log()) is None


def rolled_back(ledger: LedgerLog, size: int) -> LedgerLog:
    return LedgerLog(ledger.name, size)


@pytest.mark.parametrize("size", [0, 3, 5, 12, 20])
async def test_a_rolled_back_log_comes_back_as_it_was(
    gateway: Gateway, ledger: LedgerLog, size: int
) -> None:
    after = rolled_back(ledger, size)

    head = await restore_log(after, gateway.reader, after.log_head)

    assert [facts(event) for event in after.events] == [facts(event) for event in ledger.events]
    assert head.size == 20
    assert head.next_offset == (49 if size < 20 else 50)


async def test_a_log_that_went_on_differently_is_not_restored(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    after = rolled_back(ledger, 12)
    after.events.append(an_event(12, seed="another future"))

    with pytest.raises(ChainBroken, match="leaf 12 differs"):
        await restore_log(after, gateway.reader, after.log_head)

    assert after.restored == []


async def test_leaves_that_are_nowhere_stop_the_restore(gateway: Gateway) -> None:
    ledger = LedgerLog(new_log(), 20)
    await gateway.destination(ledger).write([ledger.range(10)])
    after = rolled_back(ledger, 4)

    with pytest.raises(ChainBroken, match="the leaves between are in neither"):
        await restore_log(after, gateway.reader, after.log_head)


async def test_the_worker_goes_on_after_a_restore(gateway: Gateway, ledger: LedgerLog) -> None:
    after = rolled_back(ledger, 3)
    await restore_log(after, gateway.reader, after.log_head)
    after.events += [an_event(leaf) for leaf in range(20, 25)]

    durable: dict[int, int] = {}
    destination = gateway.destination(after)
    while durable.get(1) != 25:
        durable = dict(await destination.write([after.range(durable.get(1, 0))]))

    assert await gateway.cuts(ledger.name) == [(0, 5), (5, 10), (10, 15), (15, 20), (20, 25)]


async def test_ranges_begin_with_the_object_that_holds_the_leaf(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    far = LedgerLog(new_log())
    destination = gateway.destination(far)
    first = 10**7
    for leaf in range(first, first + 3):
        far.events = [an_event(leaf)]
        await destination.write([LeafRange(1, far.name, leaf, far.events)])

    near = [found.info.first_leaf async for found in gateway.reader.ranges(ledger.name, 7)]
    late = [found.info.first_leaf async for found in gateway.reader.ranges(far.name, first + 1)]

    assert near == [5, 10, 15]
    assert late == [first + 1, first + 2]


async def test_the_first_version_is_read_whatever_comes_after(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    hidden, overwritten = archive_key(ledger.name, 5), archive_key(ledger.name, 10)
    gateway.s3.client.delete_object(Bucket=gateway.archive, Key=hidden)
    await gateway.s3.put(gateway.archive, overwritten, b"nothing")

    assert await gateway.cuts(ledger.name) == [(0, 5), (5, 10), (10, 15), (15, 20)]


async def test_a_hidden_object_is_still_taken_over(gateway: Gateway, ledger: LedgerLog) -> None:
    gateway.s3.client.delete_object(Bucket=gateway.archive, Key=archive_key(ledger.name, 0))

    durable = await gateway.destination(ledger, max_events=5).write([ledger.range(0, 5)])

    assert durable == {1: 5}
    assert (await gateway.cuts(ledger.name))[0] == (0, 5)


@pytest.mark.parametrize("damage", ["changed", "of another range", "missing"])
async def test_blobs_that_are_not_the_stored_ones_are_told(
    gateway: Gateway, ledger: LedgerLog, damage: str
) -> None:
    key = blobs_key(ledger.name, 5)
    found = await gateway.s3.get(gateway.vault, key)
    other = await gateway.s3.get(gateway.vault, blobs_key(ledger.name, 10))
    assert found is not None
    assert other is not None
    if damage == "changed":
        changed = found.body[:-20] + bytes([found.body[-20] ^ 1]) + found.body[-19:]
        await gateway.s3.put(gateway.vault, key, changed, metadata=found.metadata)
    elif damage == "of another range":
        await gateway.s3.put(gateway.vault, key, other.body, metadata=other.metadata)
    else:
        gateway.s3.client.delete_object(Bucket=gateway.vault, Key=key)

    with pytest.raises(ChainBroken):
        await gateway.stored(ledger.name)


async def test_blobs_of_another_range_are_mended_from_the_ledger(
    gateway: Gateway, ledger: LedgerLog
) -> None:
    other = await gateway.s3.get(gateway.vault, blobs_key(ledger.name, 10))
    assert other is not None
    key = blobs_key(ledger.name, 0)
    await gateway.s3.put(gateway.vault, key, other.body, metadata=other.metadata)

    await gateway.destination(ledger).write([ledger.range(0, 5)])

    stored = await gateway.stored(ledger.name)
    assert [event.blobs for event in stored[0].events] == [e.blobs for e in ledger.events[:5]]


async def test_keys_are_escrowed_once_and_restored(gateway: Gateway) -> None:
    subjects = Subjects(range(10))
    vault = Vault(gateway.s3, gateway.vault)
    escrow = KeyEscrow(subjects, vault, batch_keys=4)

    await escrow.ensure({a_ref(number) for number in range(6)} | {NOBODY})
    asked = subjects.asked
    await escrow.ensure({a_ref(number) for number in range(6)})

    assert subjects.asked == asked
    assert set(subjects.escrowed) == {a_ref(number) for number in range(6)}
    read = [(name, entries) async for name, entries in vault.read_escrow()]
    assert {entry.subject_ref: name for name, entries in read for entry in entries} == (
        subjects.escrowed
    )
    after = Subjects([1])
    assert await restore_keys(vault, after) == 5
    assert after.rows == {a_ref(number): an_entry(number) for number in range(6)}


async def test_the_escrow_is_read_on_from_an_object(gateway: Gateway) -> None:
    clock_s = [10_000.0]
    vault = Vault(gateway.s3, gateway.vault, now_us=lambda: int(clock_s[0] * 1e6))
    names = []
    for number, written_at_s in enumerate([10_000.0, 20_000.0, 19_000.0, 30_000.0]):
        clock_s[0] = written_at_s  # the third worker's clock is slow
        names.append(await vault.escrow([an_entry(number)]))

    read = [name async for name, _ in vault.read_escrow(names[1])]

    assert read == [names[2], names[1], names[3]]


async def test_keys_seen_long_ago_are_asked_for_again(gateway: Gateway) -> None:
    subjects = Subjects(range(10))
    escrow = KeyEscrow(subjects, Vault(gateway.s3, gateway.vault), remembered=4)

    for number in range(10):
        await escrow.ensure({a_ref(number)})
    await escrow.ensure({a_ref(0)})

    assert subjects.asked == 11


async def test_a_batch_whose_answer_was_lost_is_stored_once(gateway: Gateway) -> None:
    clock_us = iter(range(1, 100))
    vault = Vault(gateway.s3, gateway.vault, now_us=lambda: next(clock_us))
    lost = iter(["after"])
    gateway.s3.lose = lambda: next(lost, "")
    with pytest.raises(Unavailable):
        await vault.escrow([an_entry(1)])

    name = await vault.escrow([an_entry(1)])

    assert [found async for found, _ in vault.read_escrow()] == [name]


async def test_a_tenant_made_again_gets_its_key_back(gateway: Gateway) -> None:
    vault = Vault(gateway.s3, gateway.vault)
    first = TenantEntry("acme/é", "Acme", b"\x01" * 60, 400)

    made = await vault.escrow_tenant(first)
    again = await vault.escrow_tenant(TenantEntry("acme/é", "Acme", b"\x02" * 60))
    other = await vault.escrow_tenant(TenantEntry("acme", "Other", b"\x03" * 60))

    assert (made, again) == (first, first)
    read = [entry async for entry in vault.read_tenants()]
    assert sorted(read, key=lambda entry: entry.tenant) == [other, first]


async def test_a_foreign_object_in_the_escrow_is_told(gateway: Gateway) -> None:
    await gateway.s3.put(gateway.vault, "escrow/0-x.jsonl", b"no")

    with pytest.raises(ConfigurationError, match=r"escrow/0-x\.jsonl"):
        await restore_keys(Vault(gateway.s3, gateway.vault), Subjects([]))
