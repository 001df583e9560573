"""Operators' tables: pauses, lag, schema versions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from sinks.ledger import PostgresLedger
from sinks.operations import Operations
from sinks.recorded_schemas import RecordedSchema
from tests.ledger_support import (
    Database,
    a_batch,
    a_sealed_event,
    anyio_backend,
    database,
    template,
)

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

TOPIC = "audit.raw.authentication"


@pytest.fixture
async def operations(database: Database) -> AsyncIterator[Operations]:
    made = Operations(database.urls["writer"])
    yield made
    await made.close()


async def test_a_pause_stands_until_it_is_lifted(operations: Operations) -> None:
    first = await operations.pause(
        TOPIC, 0, reason="dead_letters", detail="more than half", first_offset=5, next_offset=9
    )
    second = await operations.pause(TOPIC, 0, reason="dead_letters", detail="all")
    [standing] = await operations.pauses()
    lifted = [await operations.resume(TOPIC, 0), await operations.resume(TOPIC, 0)]

    assert (first, second, lifted) == (True, False, [True, False])
    assert (standing.reason, standing.detail) == ("dead_letters", "more than half")
    assert (standing.first_offset, standing.next_offset) == (5, 9)
    assert await operations.pauses() == []
    assert await operations.pause(TOPIC, 0, reason="dead_letters", detail="again")


async def test_heads_and_positions_are_listed(database: Database, operations: Operations) -> None:
    ledger = PostgresLedger(database.urls["writer"])
    head = await ledger.open_log(TOPIC, 0, cluster_id="c", topic_id="t")
    [outcome] = await ledger.write([a_batch(head, [a_sealed_event(0)], end=4)])
    await ledger.advance("index", {head.log_id: 1})
    await ledger.close()

    [row] = await operations.heads()
    [position] = await operations.positions()

    assert (row.name, row.size, row.next_offset, row.root) == (head.name, 1, 4, outcome.head.root)
    assert (position.follower, position.log_id, position.next_leaf) == ("index", head.log_id, 1)


async def test_a_schema_is_noted_once(database: Database, operations: Operations) -> None:
    text = '{"type": "record",  "name": "A"}'
    row = RecordedSchema(3, f"{TOPIC}-value", 1, "authentication", text, "0" * 64, "ada@desk")
    noted = [await operations.schemas.record(row) for _time in range(2)]

    assert noted == [True, False]
    (kept,) = await operations.schemas.all()
    assert replace(kept, registered_at=None) == row
    assert kept.registered_at is not None
    assert database.run("reader", "SELECT schema::text FROM schema_versions") == [(text,)]
