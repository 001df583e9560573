"""Databases that went back or have a twin, and signers beside each other: one history is signed."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.compliance.tile_store import TileReader
from sinks.ledger import PostgresLedger
from tests.archive_support import Gateway
from tests.ledger_support import (
    Database,
    anyio_backend,
    database,
    template,
)
from tests.signing_support import (
    GrowingLog,
    a_log,
    a_name,
    a_signer,
    copy_of,
    dropped,
    gateway,
    signed,
)

__all__ = ["anyio_backend", "database", "dropped", "gateway", "signed", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


async def test_a_database_that_was_rolled_back_gets_no_second_root_however_it_grows(
    database: Database, gateway: Gateway, dropped: None
) -> None:
    log = await a_log(database, 100, name=a_name())
    async with a_signer(database, gateway) as of:
        await of.signer.round()
    backup = copy_of(database)
    await log.grow(100)
    async with a_signer(database, gateway) as of:
        await of.signer.round()
        before = await of.stored(log.name)
    restored = GrowingLog(backup, log.head)
    ledger = PostgresLedger(backup.urls["writer"])
    restored.head = await ledger.head(log.head.log_id)
    await ledger.close()

    whys = []
    async with a_signer(backup, gateway) as of:
        for more in (0, 50, 50, 50):  # behind the newest checkpoint, at its size, beyond it
            await restored.grow(more)
            done = await of.signer.round()
            assert done.refused == [str(log.name)]
            whys.append(of.signer.states[log.name].refused)
        after = await of.stored(log.name)

    assert after == before
    assert "rolled back" in whys[0]
    assert "rolled back" in whys[1]
    assert "does not follow" in whys[2]
    assert "does not follow" in whys[3]


async def test_a_database_that_was_rolled_back_and_got_its_leaves_back_goes_on(
    database: Database, gateway: Gateway, dropped: None
) -> None:
    log = await a_log(database, 100, name=a_name())
    backup = copy_of(database)
    await log.grow(100)
    async with a_signer(database, gateway) as of:
        await of.signer.round()
    ledger, restoring = (PostgresLedger(one.urls["writer"]) for one in (database, backup))
    leaves = await ledger.read(log.head.log_id, 100, limit=100)

    async with a_signer(backup, gateway) as of:
        refused_first = (await of.signer.round()).refused
        head = await restoring.restore(leaves, next_offset=log.head.next_offset)
        restored = GrowingLog(backup, head)
        await restored.grow(10)
        done = await of.signer.round()
        sizes = await of.sizes(log.name)
        rows = [row.size async for row in of.table.all(log.head.log_id)]
    await ledger.close()
    await restoring.close()

    assert refused_first == [str(log.name)]
    assert (done.refused, sizes) == ([], [200, 210])
    assert rows == sizes  # the note that the backup had lost was taken over


async def test_of_two_databases_that_part_only_one_is_signed(
    database: Database, gateway: Gateway, dropped: None
) -> None:
    log = await a_log(database, 300, name=a_name())
    async with a_signer(database, gateway) as of:
        await of.signer.round()
    twin = GrowingLog(copy_of(database), log.head)
    await log.grow(20)
    await twin.grow(30)  # another size, so If-None-Match alone would let both through

    async with a_signer(database, gateway) as first, a_signer(twin.database, gateway) as second:
        done = await asyncio.gather(first.signer.round(), second.signer.round())
        again = await asyncio.gather(first.signer.round(), second.signer.round())
        stored = await first.stored(log.name)
        winner = log if stored[-1].size == 320 else twin
        published = await first.objects.published(log.name)
        # Whatever the loser wrote into the tiles, the winner's next checkpoint mends.
        await winner.grow(5)
        of = first if winner is log else second
        last = await of.signer.round()
        reader = TileReader(of.tiles, log.name)
        roots = [await reader.root(size) for size in await of.sizes(log.name)]
        final = await of.stored(log.name)

    assert sum(one.signed for one in done) == 1
    assert sum(len(one.refused) for one in again) == 1
    assert [one.size for one in stored] in ([300, 320], [300, 330])
    assert published
    assert published.encoded == stored[-1].note.encode()
    assert last.signed == 1
    assert roots[-1] == final[-1].root == winner.head.root


async def test_two_signers_of_one_database_give_out_one_history(
    database: Database, gateway: Gateway
) -> None:
    log = await a_log(database, 10, name=a_name())

    async with a_signer(database, gateway) as first, a_signer(database, gateway) as second:
        for more in (7, 250, 11, 3):
            done = await asyncio.gather(first.signer.round(), second.signer.round())
            assert [one.refused for one in done] == [[], []]
            await log.grow(more)
        await first.signer.round()
        sizes = await first.sizes(log.name)
        rows = [row.size async for row in first.table.all(log.head.log_id)]

    assert sizes == [10, 17, 267, 278, 281] == rows
