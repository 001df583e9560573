"""Index, archive and vault come back to the ledger; what is in doubt is left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline.compliance.archive_walk import ArchiveWalk
from pipeline.compliance.findings import Kind, Store
from pipeline.compliance.repair import Done, Repair, Stores
from pipeline.compliance.repair_plan import RepairPlan
from pipeline.domain.merkle import Frontier
from pipeline.domain.records import LeafRange
from pipeline.keys.seal import open_blob
from sinks.archive_format import archive_key, blobs_key
from sinks.bulk import BulkClient
from tests.index_support import KEY, sign_ins
from tests.integration.test_verify_stores import destroy
from tests.ledger_support import anyio_backend, database, template
from tests.trail_support import Trail, a_trail, found

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
async def trail(database: Any) -> AsyncIterator[Trail]:
    async with a_trail(database) as made:
        yield made


async def opened(leaves: LeafRange) -> LeafRange:
    for event in leaves.events:
        event.opened = {
            path: value
            for blob in event.blobs
            for path, value in open_blob(KEY, event.event_id, blob).items()
        }
    return leaves


async def repair(trail: Trail) -> tuple[RepairPlan, list[Done]]:
    plan = RepairPlan()
    progress = await trail.verify()
    for finding in progress.findings.listed:
        plan.note(finding)
    plan.settle()
    index = trail.server.destination()
    stores = Stores(
        trail.ledger,
        opened,
        BulkClient(trail.server.client),
        index,
        lambda: trail.gateway.destination(None, read_ledger=trail.ledger.read, max_events=10),
        ArchiveWalk(
            trail.gateway.s3,
            archive_bucket=trail.gateway.archive,
            vault_bucket=trail.gateway.vault,
        ).blob_starts,
    )
    try:
        return plan, await Repair(stores, {trail.log: trail.head.log_id}).run(plan)
    finally:
        await index.close()


def root_of(trail: Trail, *leaves: int) -> str:
    return Frontier().append([trail.events[leaf].leaf_hash for leaf in leaves]).root().hex()


async def test_documents_come_back_and_foreign_ones_go(trail: Trail) -> None:
    by_id = {hit["_id"]: hit for hit in await trail.server.documents()}
    edited, deleted = by_id[trail.event_id(4)], by_id[trail.event_id(20)]
    client, foreign = trail.server.client, sign_ins(1)[0].clear["event_id"]
    await client.index(
        index=edited["_index"],
        id=edited["_id"],
        document={**edited["_source"], "user.name": "Nobody"},
    )
    await client.delete(index=deleted["_index"], id=deleted["_id"])
    await client.index(index=edited["_index"], id=foreign, document=edited["_source"])

    _plan, done = await repair(trail)

    assert done == [Done(Store.INDEX, trail.log, 2, 4, 20, root_of(trail, 4, 20), 2)]
    assert found(await trail.verify()) == []
    again = {hit["_id"]: hit for hit in await trail.server.documents()}
    assert again.keys() == by_id.keys()
    assert again[edited["_id"]]["_source"] == edited["_source"]


async def test_objects_that_were_destroyed_are_written_again(trail: Trail) -> None:
    destroy(trail, trail.gateway.archive, archive_key(trail.head.name, 6))
    destroy(trail, trail.gateway.archive, archive_key(trail.head.name, 12))
    trail.gateway.s3.client.delete_object(
        Bucket=trail.gateway.vault, Key=blobs_key(trail.head.name, 6)
    )

    _plan, done = await repair(trail)

    assert [(one.store, one.leaves, one.first_leaf, one.last_leaf) for one in done] == [
        (Store.ARCHIVE, 16, 6, 21)
    ]
    assert done[0].root == root_of(trail, *range(6, 22))
    assert found(await trail.verify()) == []


async def test_an_object_of_personal_data_is_written_again(trail: Trail) -> None:
    key, client = blobs_key(trail.head.name, 0), trail.gateway.s3.client
    stored = client.get_object(Bucket=trail.gateway.vault, Key=key)
    body = bytearray(stored["Body"].read())
    body[-20] ^= 1
    client.put_object(
        Bucket=trail.gateway.vault, Key=key, Body=bytes(body), Metadata=stored["Metadata"]
    )
    client.delete_object(Bucket=trail.gateway.vault, Key=blobs_key(trail.head.name, 12))

    _plan, done = await repair(trail)

    assert [(one.store, one.first_leaf, one.last_leaf) for one in done] == [(Store.VAULT, 0, 21)]
    assert found(await trail.verify()) == []


async def test_a_locked_version_cannot_be_replaced(trail: Trail) -> None:
    key = archive_key(trail.head.name, 6)
    trail.gateway.s3.client.put_object(Bucket=trail.gateway.archive, Key=key, Body=b"forged")

    plan, done = await repair(trail)

    assert done == []
    assert [one.place for one in plan.beyond_repair] == [key]


async def test_a_blob_that_the_ledger_has_wrong_is_not_written_over_the_right_one(
    trail: Trail,
) -> None:
    trail.spoil("UPDATE audit_blobs SET ciphertext = ciphertext || '\\x00' WHERE leaf_index = 3")
    before = trail.gateway.s3.client.get_object(
        Bucket=trail.gateway.vault, Key=blobs_key(trail.head.name, 0)
    )["Body"].read()

    plan, done = await repair(trail)

    after = trail.gateway.s3.client.get_object(
        Bucket=trail.gateway.vault, Key=blobs_key(trail.head.name, 0)
    )["Body"].read()
    assert done == []
    assert before == after
    assert {(one.kind, one.store, one.leaf) for one in plan.beyond_repair} == {
        (Kind.CHANGED, Store.LEDGER, 3)
    }


async def test_a_log_whose_leaves_are_in_doubt_is_left_alone(trail: Trail) -> None:
    trail.spoil("UPDATE leaves SET leaf_hash = sha256('x') WHERE leaf_index = 13")
    hit = next(one for one in await trail.server.documents() if one["_id"] == trail.event_id(4))
    await trail.server.client.delete(index=hit["_index"], id=hit["_id"])

    plan, done = await repair(trail)

    assert done == []
    assert "leaves" in plan.logs[trail.log].in_doubt
