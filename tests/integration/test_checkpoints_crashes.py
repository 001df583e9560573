"""A signer that dies anywhere, and stores that lose something: the next run makes it good."""

from __future__ import annotations

import pytest

from pipeline.compliance.checkpoint_store import (
    published_key,
)
from pipeline.compliance.tile_store import TileReader, tile_key
from pipeline.domain.merkle import merkle_root
from pipeline.domain.tiles import Tile
from pipeline.keys.note_keys import sign_note
from tests.archive_support import Gateway
from tests.ledger_support import (
    Database,
    anyio_backend,
    database,
    template,
)
from tests.signing_support import (
    ANOTHER_KEY,
    ORIGIN,
    GrowingLog,
    SignerOf,
    a_log,
    a_name,
    a_signer,
    dropped,
    gateway,
    leaf_hashes,
    signed,
)

__all__ = ["anyio_backend", "database", "dropped", "gateway", "signed", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


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
