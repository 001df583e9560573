"""Two who rewrite the same copies at once: what one has taken out, the other does not put back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import psycopg
import pytest

from pipeline.compliance.redaction import Redaction
from pipeline.domain.records import SealedBlob
from pipeline.keys.seal import open_blob
from sinks.archive_format import ObjectInfo, blobs_key
from sinks.archive_reader import read_blobs
from sinks.index_rewrite import Place
from tests.index_support import KEY
from tests.ledger_support import anyio_backend, database, template
from tests.removal_support import FAR, Removing, removing
from tests.trail_support import a_trail, found

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

LEAF = 4
PATH = "actor.id"


@pytest.fixture
async def made(database: Any) -> AsyncIterator[Removing]:
    async with a_trail(database) as trail, removing(trail, now=FAR) as everything:
        yield everything


async def user_id(made: Removing) -> str | None:
    """Who the document of the leaf says acted."""
    wanted = made.trail.event_id(LEAF)
    documents = await made.trail.server.documents()
    [shown] = [one["_source"] for one in documents if one["_id"] == wanted]
    name: str | None = shown.get("user.id")
    return name


def reading(
    made: Removing, then: Callable[[], Awaitable[object]]
) -> Callable[[], Awaitable[list[Place]]]:
    """Reads the leaf and opens its values; the first time, ``then`` happens before it is written."""
    again = False

    async def read() -> list[Place]:
        nonlocal again
        name, leaves = await made.tools.ledger.read_some(made.trail.head.log_id, [LEAF])
        await made.tools.opener.open_some(name, leaves)
        if not again:
            again = True
            await then()
        return [Place(str(name), leaf, event) for leaf, event in leaves]

    return read


async def test_a_document_that_was_read_before_a_redaction_does_not_show_its_value_again(
    made: Removing,
) -> None:
    assert await user_id(made)

    written = await made.tools.overwriter.overwrite(reading(made, lambda: made.redact(LEAF, PATH)))

    assert written.documents == 1
    assert await user_id(made) is None
    assert found(await made.verify()) == []


async def test_a_document_that_was_read_before_an_erasure_does_not_show_the_person_again(
    made: Removing,
) -> None:
    assert await user_id(made)

    await made.keeping.index.overwrite(reading(made, lambda: made.erase(KEY)))

    assert await user_id(made) is None
    assert found(await made.verify()) == []


async def test_blobs_that_were_read_before_a_redaction_do_not_come_back_into_the_vault(
    made: Removing,
) -> None:
    log_id, name = made.trail.head.log_id, made.trail.head.name
    asked = 0

    async def blobs_of(leaves: Sequence[int]) -> dict[int, Sequence[SealedBlob]]:
        nonlocal asked
        _name, rows = await made.tools.ledger.read_some(log_id, leaves)
        asked += 1
        if asked == 1:
            await made.redact(LEAF, PATH)
            return dict.fromkeys(leaves, ())  # what it had in mind to write
        return {leaf: event.blobs for leaf, event in rows}

    [log] = [one for one in await made.keeping.candidates.logs() if one.log_id == log_id]
    [(holder, _leaves)] = [one async for one in made.keeping.objects(log, [LEAF])]
    await made.keeping.vault.rewrite(log_id, name, holder.info.first_leaf, [LEAF], blobs_of)

    gateway = made.trail.gateway
    stored = await gateway.s3.get(gateway.vault, blobs_key(name, holder.info.first_leaf))
    assert stored is not None
    [row] = made.trail.database.run(
        "admin",
        "SELECT ciphertext FROM audit_blobs WHERE log_id = %s AND leaf_index = %s",
        [log_id, LEAF],
    )
    [blob] = read_blobs(ObjectInfo.from_metadata(stored.metadata), stored)[LEAF]
    assert (asked, blob.ciphertext) == (2, row[0])
    assert found(await made.verify()) == []


async def test_two_requests_that_cut_the_same_blob_at_once_both_take_effect(made: Removing) -> None:
    """Each read the blob before the other wrote."""
    request = await made.order(LEAF, "labels")
    events = made.keeping.candidates.events
    asked = 0

    async def late(log: Any, indexes: Sequence[int]) -> AsyncIterator[Any]:
        nonlocal asked
        async for one in events(log, indexes):
            yield one
        asked += 1
        if asked == 1:
            made.keeping.candidates.events = events  # type: ignore[method-assign]
            await made.redact(LEAF, PATH)

    made.keeping.candidates.events = late  # type: ignore[method-assign]
    assert (await Redaction(made.keeping).carry_out(request)).state == "done"

    _name, [(_leaf, event)] = await made.tools.ledger.read_some(made.trail.head.log_id, [LEAF])
    opened = open_blob(KEY, event.event_id, event.blobs[0])
    assert PATH not in opened
    assert not [path for path in opened if path.startswith("labels")]
    assert opened
    assert found(await made.verify()) == []


async def test_numbers_grow_whoever_asks_and_over_a_restore(made: Removing) -> None:
    asked = await asyncio.gather(
        *[
            store.next_rewrite()
            for _ in range(20)
            for store in (made.keeping.removals, made.tools.store)
        ]
    )
    made.trail.database.run("admin", "SELECT setval('rewrite_number', 1)")
    after = await made.tools.store.next_rewrite()

    assert len(set(asked)) == len(asked)
    assert after > max(asked)


@pytest.mark.parametrize("role", ["writer", "reader"])
async def test_only_who_removes_takes_numbers(made: Removing, role: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        made.trail.database.run(role, "SELECT next_rewrite()")
