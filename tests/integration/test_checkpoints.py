"""Checkpoints on real servers: what is signed, what is refused, and what survives whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest

from pipeline.compliance.checkpoint_store import (
    checkpoint_key,
    published_key,
)
from pipeline.compliance.tile_store import TileReader, tile_key
from pipeline.domain.merkle import merkle_root
from pipeline.domain.proofs import verify_consistency, verify_inclusion
from pipeline.domain.tiles import Tile, tiles_between
from pipeline.keys.note_keys import sign_note
from sinks.ledger import PostgresLedger
from tests.archive_support import Gateway, open_gateway
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
    SignerOf,
    a_log,
    a_name,
    a_signer,
    the_keys,
)

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@pytest.fixture
async def gateway(anyio_backend: str) -> AsyncIterator[Gateway]:
    async with open_gateway() as gateway:
        yield gateway


def leaf_hashes(log: GrowingLog) -> list[bytes]:
    rows = log.database.run(
        "writer",
        "SELECT leaf_hash FROM leaves WHERE log_id = %s ORDER BY leaf_index",
        [log.head.log_id],
    )
    return [row[0] for row in rows]


def copy_of(database: Database) -> Database:
    """What a backup of now would give: another database with the same content."""
    with psycopg.connect(database.urls["admin"], dbname="postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {database.name}_copy TEMPLATE {database.name}")
    urls = {
        role: psycopg.conninfo.make_conninfo(url, dbname=f"{database.name}_copy")
        for role, url in database.urls.items()
    }
    return Database(f"{database.name}_copy", urls)


@pytest.fixture
def dropped(database: Database) -> AsyncIterator[None]:
    """A copy is dropped after the test."""
    yield
    with psycopg.connect(database.urls["admin"], dbname="postgres", autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {database.name}_copy WITH (FORCE)")


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


# --- contradictions: each is refused, the other logs go on ---


async def refused(of: SignerOf, log: GrowingLog, other: GrowingLog) -> str:
    """Why a log is refused while another one is signed; nothing of it was given out."""
    before = await of.sizes(log.name)
    published = await of.objects.published(log.name)
    await other.grow(1)

    done = await of.signer.round()

    assert done.refused == [str(log.name)]
    assert (await of.sizes(other.name))[-1] == other.head.size
    assert await of.sizes(log.name) == before
    assert await of.objects.published(log.name) == published
    assert of.metrics.registry.get_sample_value("audit_signer_refused_logs") == 1
    return of.signer.states[log.name].refused


@pytest.fixture
async def signed(
    database: Database, gateway: Gateway
) -> AsyncIterator[tuple[SignerOf, GrowingLog, GrowingLog]]:
    """A signer, a log with a checkpoint of 300 leaves, and another log."""
    log = await a_log(database, 300, name=a_name())
    other = await a_log(database, 2, name=a_name())
    async with a_signer(database, gateway) as of:
        await of.signer.round()
        yield of, log, other


def superuser(database: Database, table: str, *statements: str) -> None:
    """What no role may: the triggers are switched off first."""
    with psycopg.connect(database.urls["admin"], autocommit=True) as admin:
        admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        for statement in statements:
            admin.execute(statement)


async def test_a_changed_head_is_refused_and_accepted_again_once_it_is_mended(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], database: Database
) -> None:
    of, log, other = signed
    root = log.head.root
    database.run(
        "admin",
        "UPDATE log_heads SET root = sha256('x') WHERE log_id = %s",
        [log.head.log_id],
    )

    why = await refused(of, log, other)
    database.run(
        "admin", "UPDATE log_heads SET root = %s WHERE log_id = %s", [root, log.head.log_id]
    )
    done = await of.signer.round()

    assert "does not follow" in why
    assert done.refused == []
    assert of.metrics.registry.get_sample_value("audit_signer_refused_logs") == 0


async def test_a_new_leaf_whose_hash_was_changed_is_refused(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], database: Database
) -> None:
    of, log, other = signed
    await log.grow(50)
    superuser(
        database,
        "leaves",
        f"UPDATE leaves SET leaf_hash = sha256('x') WHERE log_id = {log.head.log_id}"
        " AND leaf_index = 320",
    )

    assert "does not follow" in await refused(of, log, other)


async def test_a_missing_new_leaf_is_named(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], database: Database
) -> None:
    of, log, other = signed
    await log.grow(50)
    superuser(
        database,
        "leaves",
        f"DELETE FROM leaves WHERE log_id = {log.head.log_id} AND leaf_index = 320",
    )

    assert "leaf 320 is missing" in await refused(of, log, other)


async def test_a_history_that_was_rewritten_whole_is_refused(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], database: Database
) -> None:
    of, log, other = signed
    superuser(
        database,
        "leaves",
        f"DELETE FROM leaves WHERE log_id = {log.head.log_id}",
    )
    database.run(
        "admin",
        "UPDATE log_heads SET size = 0, root = sha256(''), frontier = '' WHERE log_id = %s",
        [log.head.log_id],
    )
    ledger = PostgresLedger(database.urls["writer"])
    log.head = await ledger.head(log.head.log_id)
    await ledger.close()
    await log.grow(350)  # consistent in itself: root, frontier, leaves

    assert "does not follow" in await refused(of, log, other)


async def test_a_checkpoint_that_the_ledger_knows_and_the_bucket_lost_is_refused(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], gateway: Gateway
) -> None:
    of, log, other = signed
    await log.grow(1)
    key = checkpoint_key(log.name, 300)
    version = gateway.s3.client.head_object(Bucket=gateway.archive, Key=key)["VersionId"]
    gateway.s3.client.delete_object(
        Bucket=gateway.archive, Key=key, VersionId=version, BypassGovernanceRetention=True
    )

    before = await of.objects.published(log.name)
    await other.grow(1)
    done = await of.signer.round()

    assert done.refused == [str(log.name)]
    assert "does not have it" in of.signer.states[log.name].refused
    assert await of.objects.published(log.name) == before


async def test_another_root_in_the_table_is_refused(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], database: Database
) -> None:
    of, log, other = signed
    await log.grow(1)
    superuser(
        database,
        "checkpoints",
        f"UPDATE checkpoints SET root = sha256('x') WHERE log_id = {log.head.log_id}",
    )

    assert "another root" in await refused(of, log, other)


async def test_what_is_put_over_a_checkpoint_or_deletes_it_changes_nothing(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], gateway: Gateway
) -> None:
    of, log, _ = signed
    key = checkpoint_key(log.name, 300)
    gateway.s3.client.put_object(Bucket=gateway.archive, Key=key, Body=b"forged")
    gateway.s3.client.delete_object(Bucket=gateway.archive, Key=key)
    await log.grow(1)

    done = await of.signer.round()

    assert done.refused == []
    assert await of.sizes(log.name) == [300, 301]


# --- a database that went back, or has a twin ---


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


# --- crashes ---


class Crash(Exception):
    """The process ends here."""


async def test_a_crash_between_publishing_and_the_lock_is_made_good_before_anything_else(
    signed: tuple[SignerOf, GrowingLog, GrowingLog],
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of, log, _ = signed
    await log.grow(10)

    async def crash(*_arguments: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(of.objects, "put", crash)
        with pytest.raises(Crash):
            await of.signer.round()
    published = await of.objects.published(log.name)
    await log.grow(10)
    async with a_signer(log.database, gateway) as another:
        await another.signer.round()
        await another.signer.round()
        stored = await another.stored(log.name)

    assert [one.size for one in stored] == [300, 310, 320]
    assert published
    assert stored[1].note.encode() == published.encoded


async def test_a_crash_between_the_lock_and_the_table_is_taken_over(
    signed: tuple[SignerOf, GrowingLog, GrowingLog],
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of, log, _ = signed
    await log.grow(10)

    async def crash(*_arguments: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(of.table, "insert", crash)
        with pytest.raises(Crash):
            await of.signer.round()
    async with a_signer(log.database, gateway) as another:
        done = await another.signer.round()
        rows = [row.size async for row in another.table.all(log.head.log_id)]
        sizes = await another.sizes(log.name)

    assert done.signed == 0  # that checkpoint was signed before
    assert rows == sizes == [300, 310]


@pytest.mark.parametrize("lost", ["before", "after"])
async def test_puts_whose_answers_are_lost_are_made_again(
    database: Database, gateway: Gateway, lost: str
) -> None:
    log = await a_log(database, 300, name=a_name())
    puts = 0

    def lose() -> str:
        nonlocal puts
        puts += 1
        return lost if puts in (1, 3, 6, 10, 15, 21, 28) else ""  # each gap is longer

    async with a_signer(database, gateway) as of:
        gateway.s3.lose = lose
        rounds = 0
        while of.signer.states.get(log.name) is None or of.signer.states[log.name].signed < 300:
            rounds += 1
            assert rounds < 20
            done = await of.signer.round()
            assert done.refused == []
        gateway.s3.lose = lambda: ""
        sizes = await of.sizes(log.name)
        root = await TileReader(of.tiles, log.name).root(300)

    assert sizes == [300]
    assert rounds > 1
    assert root == log.head.root


async def test_tiles_that_were_lost_or_changed_are_made_again_from_the_leaves(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], gateway: Gateway
) -> None:
    of, log, _ = signed
    client = gateway.s3.client
    full, edge = tile_key(log.name, Tile(0, 0)), tile_key(log.name, Tile(0, 1, 44))
    client.put_object(Bucket=gateway.archive, Key=full, Body=bytes(8192))
    client.delete_object(Bucket=gateway.archive, Key=edge)
    await log.grow(1)

    done = await of.signer.round()
    root = await TileReader(of.tiles, log.name).root(300)

    assert done.refused == []
    assert root == merkle_root(leaf_hashes(log)[:300])


async def test_a_published_note_that_nobody_signed_is_replaced(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], gateway: Gateway
) -> None:
    of, log, _ = signed
    forged = sign_note(f"{ORIGIN}/{log.name}\n999\n{'A' * 43}=\n", [ANOTHER_KEY]).encode()
    gateway.s3.client.put_object(Bucket=gateway.archive, Key=published_key(log.name), Body=forged)
    await log.grow(1)

    done = await of.signer.round()
    published = await of.objects.published(log.name)

    assert done.refused == []
    assert published
    assert b"\n301\n" in published.encoded


async def test_a_published_note_that_was_deleted_is_published_again(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], gateway: Gateway
) -> None:
    of, log, _ = signed
    gateway.s3.client.delete_object(Bucket=gateway.archive, Key=published_key(log.name))
    await log.grow(1)

    done = await of.signer.round()
    published = await of.objects.published(log.name)

    assert done.signed == 1
    assert published
    assert b"\n301\n" in published.encoded


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


async def test_the_signer_may_do_its_task_and_no_more(database: Database) -> None:
    for statement in (
        "SELECT * FROM audit_logs",
        "SELECT * FROM audit_blobs",
        "SELECT event_id FROM leaves",
        "SELECT wrapped_key FROM tenants",
        "SELECT * FROM audit_user",
        "SELECT * FROM dead_letter_key",
        "UPDATE log_heads SET size = 0",
        "UPDATE checkpoints SET size = 1",
        "DELETE FROM checkpoints",
        "INSERT INTO leaves SELECT",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run("signer", statement)


async def test_the_auditor_reads_what_is_sealed_and_no_key(database: Database) -> None:
    for table in ("audit_logs", "audit_blobs", "leaves", "intake", "log_heads", "checkpoints"):
        database.run("auditor", f"SELECT count(*) FROM {table}")
    for statement in (
        "SELECT wrapped_key FROM tenants",
        "SELECT wrapped_key FROM audit_user",
        "SELECT subject_hash FROM audit_user",
        "SELECT wrapped_key FROM dead_letter_key",
        "SELECT raw_key_hash FROM dead_letter_key",
        "INSERT INTO checkpoints SELECT",
        "DELETE FROM audit_blobs",
        "SELECT subject_keys_by_ref('{}')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run("auditor", statement)


@pytest.mark.parametrize("role", ["writer", "redactor", "reader", "auditor"])
async def test_nobody_but_the_signer_adds_a_checkpoint(database: Database, role: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run(role, "INSERT INTO checkpoints SELECT")
