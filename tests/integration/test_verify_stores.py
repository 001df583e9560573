"""Whoever can write to the buckets or the index can spoil them; verification finds and names it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from pipeline.compliance.findings import Kind, Store
from pipeline.domain.checkpoints import Checkpoint, origin_of
from pipeline.keys.note_keys import NoteSigner, sign_note
from sinks.archive_format import archive_key, blobs_key
from tests.index_support import sign_ins
from tests.ledger_support import a_batch, anyio_backend, database, template
from tests.trail_support import ORIGIN, SIGNER, Trail, a_trail, found, of

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
async def trail(database: Any) -> AsyncIterator[Trail]:
    async with a_trail(database) as made:
        yield made


def destroy(trail: Trail, bucket: str, key: str) -> None:
    """Every version of a key, by who may bypass GOVERNANCE."""
    client = trail.gateway.s3.client
    listed = client.list_object_versions(Bucket=bucket, Prefix=key)
    for version in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]:
        client.delete_object(
            Bucket=bucket, Key=key, VersionId=version["VersionId"], BypassGovernanceRetention=True
        )


def archived(trail: Trail, leaf: int) -> str:
    return archive_key(trail.head.name, leaf)


async def test_a_newer_version_over_an_object(trail: Trail) -> None:
    key = archived(trail, 6)
    trail.gateway.s3.client.put_object(Bucket=trail.gateway.archive, Key=key, Body=b"forged")

    (finding,) = (await trail.verify()).findings.listed

    assert (finding.kind, finding.store, finding.place) == (Kind.ADDED, Store.ARCHIVE, key)
    assert "first one" in finding.what


async def test_a_delete_marker(trail: Trail) -> None:
    key = archived(trail, 6)
    trail.gateway.s3.client.delete_object(Bucket=trail.gateway.archive, Key=key)

    (finding,) = (await trail.verify()).findings.listed

    assert (finding.kind, finding.store, finding.place) == (Kind.ADDED, Store.ARCHIVE, key)
    assert "delete marker" in finding.what


async def test_an_object_that_was_destroyed(trail: Trail) -> None:
    destroy(trail, trail.gateway.archive, archived(trail, 6))

    progress = await trail.verify()

    (finding,) = of(progress, Kind.MISSING, Store.ARCHIVE)
    assert finding.place == "6-11"
    assert "without authority" in finding.what
    # Its blobs now belong to nothing.
    assert [one.place for one in of(progress, Kind.ADDED, Store.VAULT)] == [
        blobs_key(trail.head.name, 6)
    ]


async def test_an_object_that_was_destroyed_and_replaced(trail: Trail) -> None:
    key, client = archived(trail, 6), trail.gateway.s3.client
    stored = client.get_object(Bucket=trail.gateway.archive, Key=key)
    body = bytearray(stored["Body"].read())
    body[len(body) // 2] ^= 1
    destroy(trail, trail.gateway.archive, key)
    client.put_object(
        Bucket=trail.gateway.archive, Key=key, Body=bytes(body), Metadata=stored["Metadata"]
    )

    progress = await trail.verify()

    changed = of(progress, Kind.CHANGED, Store.ARCHIVE)
    assert {one.place for one in changed} >= {key}
    assert not of(progress, Kind.CHANGED, Store.LEDGER)


async def test_a_vault_object_that_was_changed(trail: Trail) -> None:
    key, client = blobs_key(trail.head.name, 0), trail.gateway.s3.client
    stored = client.get_object(Bucket=trail.gateway.vault, Key=key)
    body = bytearray(stored["Body"].read())
    body[-20] ^= 1
    client.put_object(
        Bucket=trail.gateway.vault, Key=key, Body=bytes(body), Metadata=stored["Metadata"]
    )

    progress = await trail.verify()

    assert {one.store for one in progress.findings.listed} == {Store.VAULT}
    assert any(one.place == key for one in of(progress, Kind.CHANGED, Store.VAULT))


async def test_a_vault_object_of_other_blobs(trail: Trail) -> None:
    """Whole in itself: another range's, under this one's key."""
    client, vault = trail.gateway.s3.client, trail.gateway.vault
    stored = client.get_object(Bucket=vault, Key=blobs_key(trail.head.name, 6))
    client.put_object(
        Bucket=vault,
        Key=blobs_key(trail.head.name, 0),
        Body=stored["Body"].read(),
        Metadata=stored["Metadata"],
    )

    progress = await trail.verify()

    assert [one.leaf for one in of(progress, Kind.MISSING, Store.VAULT)] == list(range(6))
    assert of(progress, Kind.CHANGED, Store.VAULT)


async def test_a_vault_object_that_is_gone(trail: Trail) -> None:
    trail.gateway.s3.client.delete_object(
        Bucket=trail.gateway.vault, Key=blobs_key(trail.head.name, 0)
    )

    assert found(await trail.verify()) == [(Kind.MISSING, Store.VAULT, 0)]


async def test_a_checkpoint_that_another_key_signed(trail: Trail) -> None:
    head = await trail.ledger.head(trail.head.log_id)
    text = Checkpoint(origin_of(ORIGIN, head.name), 20, bytes(32)).text
    note = sign_note(text, [NoteSigner(ORIGIN, b"x" * 32)])
    key = f"checkpoints/{trail.log}/{20:019d}"
    trail.gateway.s3.client.put_object(Bucket=trail.gateway.archive, Key=key, Body=note.encode())

    (finding,) = (await trail.verify()).findings.listed

    assert (finding.kind, finding.store, finding.place) == (Kind.UNSIGNED, Store.CHECKPOINTS, key)


async def test_a_checkpoint_of_another_root(trail: Trail) -> None:
    """Signed with the right key: whoever holds that cannot make the leaves fit."""
    head = await trail.ledger.head(trail.head.log_id)
    text = Checkpoint(origin_of(ORIGIN, head.name), 20, bytes(32)).text
    key = f"checkpoints/{trail.log}/{20:019d}"
    trail.gateway.s3.client.put_object(
        Bucket=trail.gateway.archive, Key=key, Body=sign_note(text, [SIGNER]).encode()
    )

    progress = await trail.verify()

    assert found(progress) == [
        (Kind.INCONSISTENT, Store.ARCHIVE, 19),
        (Kind.INCONSISTENT, Store.LEAVES, 19),
        (Kind.MISSING, Store.CHECKPOINTS, None),  # the table does not have it
    ]


async def test_a_document_that_was_edited(trail: Trail) -> None:
    (document,) = [d for d in await trail.server.documents() if d["_id"] == trail.event_id(4)]
    await trail.server.client.index(
        index=document["_index"],
        id=document["_id"],
        document={**document["_source"], "user.name": "Nobody", "event.outcome": "failure"},
    )

    (finding,) = (await trail.verify()).findings.listed

    assert (finding.kind, finding.store, finding.leaf) == (Kind.CHANGED, Store.INDEX, 4)
    assert finding.event_id == trail.event_id(4)
    assert "event.outcome, user.name" in finding.what
    assert "Nobody" not in finding.what


async def test_a_clear_field_that_was_edited_is_found_without_keys(trail: Trail) -> None:
    (document,) = [d for d in await trail.server.documents() if d["_id"] == trail.event_id(4)]
    await trail.server.client.index(
        index=document["_index"],
        id=document["_id"],
        document={**document["_source"], "event.outcome": "failure"},
    )

    with_documents = await trail.verify(keys={})
    ids_alone = await trail.verify(keys={}, sources=False)

    assert found(with_documents) == [(Kind.CHANGED, Store.INDEX, 4)]
    assert found(ids_alone) == []


async def test_a_document_that_was_deleted(trail: Trail) -> None:
    (document,) = [d for d in await trail.server.documents() if d["_id"] == trail.event_id(4)]
    await trail.server.client.delete(index=document["_index"], id=document["_id"])

    progress = await trail.verify()
    ids_alone = await trail.verify(sources=False)

    assert found(progress) == [(Kind.MISSING, Store.INDEX, 4)] == found(ids_alone)
    assert [(row["store"], row["leaves"], row["events"]) for row in progress.logs[0].differing] == [
        ("index", 12, 11)
    ]


async def test_documents_that_were_added(trail: Trail) -> None:
    (document,) = [d for d in await trail.server.documents() if d["_id"] == trail.event_id(4)]
    strange = sign_ins(3)
    for event, changes in zip(
        strange,
        ({}, {"audit.leaf_index": 900}, {"audit.log": "audit.raw.authentication/9/1"}),
        strict=True,
    ):
        await trail.server.client.index(
            index=document["_index"],
            id=event.clear["event_id"],
            document={**document["_source"], **changes},
        )

    progress = await trail.verify()

    added = of(progress, Kind.ADDED, Store.INDEX)
    assert {one.event_id for one in added} == {event.clear["event_id"] for event in strange}
    assert progress.findings.total == 3


async def test_a_document_in_the_index_of_another_month(trail: Trail) -> None:
    (document,) = [d for d in await trail.server.documents() if d["_id"] == trail.event_id(4)]
    later = next(
        d["_index"] for d in await trail.server.documents() if d["_index"] != document["_index"]
    )
    await trail.server.client.delete(index=document["_index"], id=document["_id"])
    await trail.server.client.index(index=later, id=document["_id"], document=document["_source"])

    assert found(await trail.verify()) == [(Kind.CHANGED, Store.INDEX, 4)]


async def test_a_stub_is_counted_and_no_finding(trail: Trail) -> None:
    documents = trail.server.destination()._documents
    event = trail.events[4]
    (document,) = [d for d in await trail.server.documents() if d["_id"] == trail.event_id(4)]
    event.stored_at_us = (
        (await trail.ledger.read(trail.head.log_id, 4, limit=1)).events[0].stored_at_us
    )
    stub = documents.stub(event, trail.log, 4, refused="mapper_parsing_exception")
    await trail.server.client.index(
        index=document["_index"], id=document["_id"], document=orjson.loads(stub)
    )

    progress = await trail.verify()

    assert found(progress) == []
    assert progress.stubs == 1


async def test_a_trail_that_grows_meanwhile_is_verified_as_it_was(trail: Trail) -> None:
    async def grow() -> None:
        for _ in range(4):
            await trail.grow(10)
            await trail.sign()

    progresses = [trail.verify(), trail.verify(), trail.verify()]

    first, second, third, _ = await asyncio.gather(*progresses, grow())

    for progress in (first, second, third):
        assert found(progress) == []
        assert progress.logs[0].next_leaf == progress.logs[0].state.size >= 25


async def test_followers_that_lag_are_no_hole(trail: Trail) -> None:
    fresh = sign_ins(5)

    for number, event in enumerate(fresh, trail.head.next_offset):
        event.offset = number
    await trail.ledger.write([a_batch(trail.head, fresh)])

    progress = await trail.verify()

    assert found(progress) == []
    assert progress.logs[0].next_leaf == 30
