"""A hold counts from the moment that it is placed: what removes comes before it, or is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from sinks.holds import LegalHold
from tests.ledger_support import anyio_backend, database, template
from tests.removal_support import FAR, Removing, removing
from tests.trail_support import a_trail

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

REMOVALS = {
    "a blob": "UPDATE audit_blobs SET nonce = nonce WHERE leaf_index = 4",
    "a key": "UPDATE audit_user SET wrapped_key = wrapped_key",
}


@pytest.fixture
async def made(database: Any) -> AsyncIterator[Removing]:
    async with a_trail(database) as trail, removing(trail, now=FAR) as everything:
        yield everything


def a_hold() -> LegalHold:
    return LegalHold(
        uuid4(),
        "acme",
        None,
        None,
        None,
        None,
        None,
        "a lawsuit",
        "legal",
        "ann",
        datetime.now(UTC),
    )


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS.keys())
async def test_a_hold_waits_for_what_is_being_removed_and_refuses_what_follows(
    made: Removing, removal: str
) -> None:
    url = made.trail.database.urls["admin"]
    with psycopg.connect(url) as session:
        session.execute(removal)  # it has looked for holds, and is not committed
        placing = asyncio.create_task(made.keeping.holds.place(a_hold()))
        await asyncio.wait([placing], timeout=0.5)
        assert not placing.done()

    assert await asyncio.wait_for(placing, 10)
    with psycopg.connect(url) as session, pytest.raises(psycopg.errors.ObjectInUse):
        session.execute(removal)
