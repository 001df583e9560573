"""Checkpoints on real servers: what is signed, with which keys, and what its tiles prove."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.compliance.checkpoint_store import (
    checkpoint_key,
)
from pipeline.compliance.tile_store import TileReader, tile_key
from pipeline.domain.merkle import merkle_root
from pipeline.domain.proofs import verify_consistency, verify_inclusion
from pipeline.domain.tiles import Tile, tiles_between
from sinks.ledger import PostgresLedger
from tests.archive_support import Gateway
from tests.ledger_support import (
    Database,
    anyio_backend,
    database,
    template,
)
from tests.signing_support import (
    A_KEY,
    ANOTHER_KEY,
    LOCKED_UNTIL,
    NOW,
    ORIGIN,
    GrowingLog,
    a_log,
    a_name,
    a_signer,
    dropped,
    gateway,
    leaf_hashes,
    signed,
    the_keys,
)

__all__ = ["anyio_backend", "database", "dropped", "gateway", "signed", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


async def test_a_log_that_grew_gets_a_checkpoint_under_lock_in_the_table_and_published(
    database: Database, gateway: Gateway
) -> None:
    log = await a_log(database, 700, name=a_name())

    async with a_signer(database, gateway) as of:
        done = await of.signer.round()
        (stored,) = await of.stored(log.name)
        row = await of.table.newest(log.head.log_id)
        published = await of.objects.published(log.name)

    assert (done.signed, done.refused, done.waiting_for) == (1, [], [])
    assert stored.checkpoint.text.startswith(f"{ORIGIN}/{log.name}\n700\n")
    assert stored.root == merkle_root(leaf_hashes(log)) == log.head.root
    assert row
    assert published
    assert (row.size, row.root, row.signed_at) == (700, stored.root, NOW)
    assert row.note.encode() == published.encoded == stored.note.encode()
    lock = gateway.s3.client.get_object_retention(
        Bucket=gateway.archive, Key=checkpoint_key(log.name, 700)
    )["Retention"]
    assert lock["Mode"] == "GOVERNANCE"
    assert abs(lock["RetainUntilDate"] - LOCKED_UNTIL) < timedelta(seconds=2)


async def test_nothing_is_signed_twice_and_an_empty_log_not_at_all(
    database: Database, gateway: Gateway
) -> None:
    log = await a_log(database, 3, name=a_name())
    empty = await a_log(database, name=a_name())

    async with a_signer(database, gateway) as of:
        first = await of.signer.round()
        second = await of.signer.round()
        await log.grow(1)
        third = await of.signer.round()
        sizes = await of.sizes(log.name)
        of_empty = await of.sizes(empty.name)
    async with a_signer(database, gateway) as another:
        fourth = await another.signer.round()

    assert not of.signer.states[log.name].refused
    assert [done.signed for done in (first, second, third, fourth)] == [1, 0, 1, 0]
    assert (sizes, of_empty) == ([3, 4], [])


async def test_the_lock_lasts_as_long_as_the_longest_retention_of_a_tenant(
    database: Database, gateway: Gateway
) -> None:
    log = await a_log(database, 1, name=a_name())
    database.run(
        "writer",
        "INSERT INTO tenants (tenant, name, wrapped_key, retention_days) VALUES ('t', 't', '', 90)",
    )

    async with a_signer(database, gateway) as of:
        await of.signer.round()

    lock = gateway.s3.client.get_object_retention(
        Bucket=gateway.archive, Key=checkpoint_key(log.name, 1)
    )["Retention"]
    assert abs(lock["RetainUntilDate"] - (NOW + timedelta(days=90))) < timedelta(seconds=2)


async def test_tiles_of_every_checkpoint_prove_inclusion_and_consistency(
    database: Database, gateway: Gateway
) -> None:
    log = await a_log(database, 100, name=a_name())

    async with a_signer(database, gateway) as of:
        for more in (200, 1, 400):
            await of.signer.round()
            await log.grow(more)
        await of.signer.round()
        checkpoints = await of.stored(log.name)
        leaves = leaf_hashes(log)
        reader = TileReader(of.tiles, log.name, cached_tiles=2)
        for newer in checkpoints:
            for tile in tiles_between(0, newer.size):
                assert len(await of.tiles.get(log.name, tile)) == 32 * tile.width
            for index in range(0, newer.size, 37):
                proof = await reader.inclusion(index, newer.size)
                verify_inclusion(leaves[index], index, newer.size, newer.root, proof)
            for older in checkpoints:
                if older.size <= newer.size:
                    proof = await reader.consistency(older.size, newer.size)
                    verify_consistency(older.size, older.root, newer.size, newer.root, proof)
            assert await reader.root(newer.size) == newer.root

    assert [one.size for one in checkpoints] == [100, 300, 301, 701]


async def test_a_partial_tile_that_is_gone_is_read_from_the_full_one(
    database: Database, gateway: Gateway
) -> None:
    log = await a_log(database, 100, name=a_name())

    async with a_signer(database, gateway) as of:
        await of.signer.round()
        await log.grow(200)
        await of.signer.round()
        before = await of.tiles.get(log.name, Tile(0, 0, 100))
        gateway.s3.client.delete_object(
            Bucket=gateway.archive, Key=tile_key(log.name, Tile(0, 0, 100))
        )

        assert await of.tiles.get(log.name, Tile(0, 0, 100)) == before
        assert await TileReader(of.tiles, log.name).root(100) == merkle_root(leaf_hashes(log)[:100])


async def test_what_the_archive_does_not_have_is_not_signed_yet(
    database: Database, gateway: Gateway
) -> None:
    log = await a_log(database, 5, name=a_name())
    await log.grow(4, archived=False)

    async with a_signer(database, gateway) as of:
        await of.signer.round()
        of_archived = await of.sizes(log.name)
        waits = of.signer.states[log.name].age_s(float("inf")) > 0
        await log.grow(0)
        await of.signer.round()
        of_all = await of.sizes(log.name)
        waits_no_more = of.signer.states[log.name].age_s(float("inf")) == 0

    assert (of_archived, waits) == ([5], True)
    assert (of_all, waits_no_more) == ([5, 9], True)


async def test_two_keys_sign_and_a_retired_ones_checkpoint_still_leads_on(
    database: Database, gateway: Gateway
) -> None:
    log = await a_log(database, 3, name=a_name())

    async with a_signer(database, gateway) as of:
        await of.signer.round()
        of.keys = the_keys(A_KEY, ANOTHER_KEY)
        await log.grow(3)
        await of.signer.round()
        of.keys = the_keys(ANOTHER_KEY, trusted=[A_KEY])
        await log.grow(3)
        await of.signer.round()
        signers = [[key.key_id for key in one.signers] for one in await of.stored(log.name)]
        of.keys = the_keys(ANOTHER_KEY)
        await log.grow(1)
        done = await of.signer.round()

    first, second = A_KEY.verifier.key_id, ANOTHER_KEY.verifier.key_id
    assert signers == [[first], [first, second], [second]]
    assert (done.signed, done.refused) == (1, [])  # its newest is of the key that is trusted


async def test_a_checkpoint_of_a_key_that_is_not_trusted_leads_nowhere(
    database: Database, gateway: Gateway
) -> None:
    log = await a_log(database, 3, name=a_name())

    async with a_signer(database, gateway) as of:
        await of.signer.round()
        of.keys = the_keys(ANOTHER_KEY)
        await log.grow(1)
        done = await of.signer.round()
        of.keys = the_keys(A_KEY)
        sizes = await of.sizes(log.name)

    assert done.refused == [str(log.name)]
    assert "no trusted key signed" in of.signer.states[log.name].refused
    assert sizes == [3]


async def test_every_epoch_of_a_log_has_its_own_checkpoints(
    database: Database, gateway: Gateway
) -> None:
    log = await a_log(database, 5, name=a_name())
    async with a_signer(database, gateway) as of:
        await of.signer.round()
        ledger = PostgresLedger(database.urls["writer"])
        head = await ledger.open_epoch(
            log.name.topic, log.name.partition, cluster_id="c", topic_id="another"
        )
        await ledger.close()
        newer = GrowingLog(database, head)
        await newer.grow(3)
        done = await of.signer.round()
        old, new = await of.stored(log.name), await of.stored(newer.name)

    assert done.refused == []
    assert [one.size for one in old] == [5]
    assert [one.checkpoint.origin for one in new] == [f"{ORIGIN}/{newer.name}"]
    assert newer.name.epoch == 2


async def test_a_long_log_is_signed_in_pages(database: Database, gateway: Gateway) -> None:
    log = await a_log(database, 20_000, name=a_name())

    async with a_signer(database, gateway) as of:
        done = await of.signer.round()
        root = await TileReader(of.tiles, log.name).root(20_000)

    assert (done.signed, root) == (1, log.head.root)
