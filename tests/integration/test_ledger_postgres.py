"""The PostgreSQL ledger where it is more than the contract: concurrency, outages, months, proof."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pipeline.domain.errors import ChainBroken, ConfigurationError, Unavailable
from pipeline.domain.merkle import merkle_root
from pipeline.domain.records import LogHead, SealedEvent
from sinks.ledger import PostgresLedger
from tests.ledger_support import (
    OCCURRED_AT_US,
    Database,
    Proxy,
    a_batch,
    a_sealed_event,
    anyio_backend,
    database,
    empty_database,
    server_urls,
    template,
)

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[PostgresLedger]:
    made = PostgresLedger(database.urls["writer"])
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def other(database: Database) -> AsyncIterator[PostgresLedger]:
    """A second worker."""
    made = PostgresLedger(database.urls["writer"])
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def proxy(database: Database) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy and the writer's URL through it."""
    parts = conninfo_to_dict(database.urls["writer"])
    made = Proxy(str(parts["host"]), int(str(parts["port"])))
    port = await made.open()
    yield made, make_conninfo(database.urls["writer"], port=port, sslmode="disable")
    await made.close()


async def open_log(ledger: PostgresLedger, partition: int = 0) -> LogHead:
    return await ledger.open_log(
        "audit.raw.authentication", partition, cluster_id="c-1", topic_id="t-1"
    )


async def assert_sound(ledger: PostgresLedger, head: LogHead) -> Sequence[SealedEvent]:
    """Root equals the root over all leaves, and leaves have no hole; the leaves."""
    now = await ledger.head(head.log_id)
    stored: list[SealedEvent] = []
    while found := (await ledger.read(head.log_id, len(stored), limit=100_000)).events:
        stored += found
    assert len(stored) == now.size
    assert now.root == merkle_root([event.leaf_hash for event in stored])
    return stored


async def test_two_writers_of_one_log_cannot_fork_it(
    ledger: PostgresLedger, other: PostgresLedger
) -> None:
    head = await open_log(ledger)

    async def write_all(writer: PostgresLedger, size: int) -> int:
        accepted = 0
        for start in range(0, 300, size):
            events = [a_sealed_event(offset) for offset in range(start, min(start + size, 300))]
            [outcome] = await writer.write([a_batch(head, events, start=start)])
            accepted += len(outcome.accepted.events)
        return accepted

    taken = await asyncio.gather(write_all(ledger, 7), write_all(other, 11))

    stored = await assert_sound(ledger, head)
    assert [event.offset for event in stored] == list(range(300))
    assert sum(taken) == 300


async def test_logs_with_crossed_ids_end_without_loss(
    database: Database, ledger: PostgresLedger, other: PostgresLedger
) -> None:
    here, there = await open_log(ledger, 0), await open_log(ledger, 1)
    count = 3000
    forward = [a_sealed_event(offset) for offset in range(count)]
    backward = [
        a_sealed_event(offset, event_id=UUID(int=count - offset),
                       occurred_at_us=OCCURRED_AT_US + count - 1 - offset)
        for offset in range(count)
    ]  # fmt: skip

    outcomes = await asyncio.gather(
        ledger.write([a_batch(here, forward)]), other.write([a_batch(there, backward)])
    )

    ids = [e.event_id for head in (here, there) for e in await assert_sound(ledger, head)]
    assert sorted(ids) == sorted(event.event_id for event in forward)
    assert sum(outcome[0].duplicates for outcome in outcomes) == count


async def test_a_deadlock_is_retried_with_the_same_batches(
    database: Database, ledger: PostgresLedger
) -> None:
    head = await open_log(ledger)
    event = a_sealed_event(0)
    with psycopg.connect(database.urls["admin"]) as rival:
        # Holds the event's id, then waits for the head: PostgreSQL ends one of the two.
        rival.execute("SET deadlock_timeout = '10s'")
        rival.execute(
            "INSERT INTO leaves VALUES (0, now(), 99, %s, %s)",
            [UUID(bytes=event.event_id), event.leaf_hash],
        )
        writing = asyncio.create_task(ledger.write([a_batch(head, [event])]))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(
            rival.execute, "SELECT FROM log_heads WHERE log_id = %s FOR UPDATE", [head.log_id]
        )
        rival.rollback()

    [outcome] = await writing

    assert (outcome.head.size, outcome.duplicates) == (1, 0)
    [(deadlocks,)] = database.run(
        "admin", "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == 1


@pytest.mark.parametrize("lost", ["drop_before", "drop_after"])
async def test_a_lost_commit_loses_and_doubles_nothing(
    database: Database, proxy: tuple[Proxy, str], lost: str
) -> None:
    fault, url = proxy
    ledger = PostgresLedger(url)
    await ledger.open()
    head = await open_log(ledger)
    batch = a_batch(head, [a_sealed_event(offset) for offset in range(3)])
    setattr(fault, lost, b"COMMIT")

    with pytest.raises(Unavailable):
        await ledger.write([batch])
    [(committed,)] = database.run("admin", "SELECT size FROM log_heads")
    [again] = await ledger.write([batch])

    assert committed == (3 if lost == "drop_after" else 0)
    assert again.skipped == committed
    assert (again.head.size, again.head.next_offset) == (3, 3)
    await assert_sound(ledger, head)
    await ledger.close()


async def test_a_killed_connection_is_an_outage_and_the_next_call_goes_on(
    database: Database, ledger: PostgresLedger
) -> None:
    head = await open_log(ledger)
    database.run(
        "admin",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND usename = 'audit_writer'",
    )

    with pytest.raises(Unavailable):
        await ledger.write([a_batch(head, [a_sealed_event(0)])])
    with pytest.raises(Unavailable):
        await ledger.head(head.log_id)
    [outcome] = await ledger.write([a_batch(head, [a_sealed_event(0)])])

    assert outcome.head == await ledger.head(head.log_id)
    assert outcome.head.size == 1


async def test_a_silent_server_is_an_outage_after_a_bounded_time(
    proxy: tuple[Proxy, str],
) -> None:
    fault, url = proxy
    ledger = PostgresLedger(url, timeout_s=0.5)
    await ledger.open()
    head = await open_log(ledger)
    fault.freeze()

    async with asyncio.timeout(5):
        with pytest.raises(Unavailable):
            await ledger.write([a_batch(head, [a_sealed_event(0)])])
    fault.thaw()
    [outcome] = await ledger.write([a_batch(head, [a_sealed_event(0)])])

    assert outcome.head.size == 1
    await ledger.close()


async def test_a_server_that_is_not_there_is_an_outage() -> None:
    ledger = PostgresLedger("postgresql://audit_writer@127.0.0.1:1/nowhere")

    with pytest.raises(Unavailable):
        await ledger.open()


async def test_a_cancelled_write_leaves_no_transaction_behind(
    database: Database, ledger: PostgresLedger
) -> None:
    head = await open_log(ledger)
    with psycopg.connect(database.urls["admin"]) as rival:
        rival.execute("SELECT FROM log_heads FOR UPDATE")
        writing = asyncio.create_task(ledger.write([a_batch(head, [a_sealed_event(0)])]))
        await asyncio.sleep(0.2)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing

    [outcome] = await ledger.write([a_batch(head, [a_sealed_event(0)])])

    assert outcome.head.size == 1


async def test_a_head_that_stays_locked_is_an_outage(
    database: Database,
) -> None:
    async def no_wait(_seconds: float) -> None:
        return

    ledger = PostgresLedger(database.urls["writer"], timeout_s=0.1, sleep=no_wait)
    head = await open_log(ledger)
    with psycopg.connect(database.urls["admin"]) as rival:
        rival.execute("SELECT FROM log_heads FOR UPDATE")

        with pytest.raises(Unavailable):
            await ledger.write([a_batch(head, [a_sealed_event(0)])])

    await ledger.close()


async def test_a_missing_month_is_made_and_nothing_is_refused(
    database: Database, ledger: PostgresLedger, other: PostgresLedger
) -> None:
    here, there = await open_log(ledger, 0), await open_log(ledger, 1)
    days = [1_100_000_000_000_000 + day * 86_400_000_000 for day in range(0, 200, 20)]
    first = [a_sealed_event(offset, occurred_at_us=us) for offset, us in enumerate(days)]
    second = [a_sealed_event(offset, occurred_at_us=us, event_id=UUID(int=500 + offset))
              for offset, us in enumerate(days)]  # fmt: skip

    await asyncio.gather(
        ledger.write([a_batch(here, first)]), other.write([a_batch(there, second)])
    )

    assert len(await assert_sound(ledger, here)) == len(days)
    assert len(await assert_sound(ledger, there)) == len(days)


@pytest.mark.parametrize("occurred_at_us", [-1, 4_000_000_000_000_000, 10**18])
async def test_an_absurd_month_stops_the_log_that_names_it(
    ledger: PostgresLedger, occurred_at_us: int
) -> None:
    head = await open_log(ledger)

    with pytest.raises(ChainBroken) as caught:
        await ledger.write([a_batch(head, [a_sealed_event(0, occurred_at_us=occurred_at_us)])])

    assert caught.value.log == str(head.name)
    [fine] = await ledger.write([a_batch(head, [a_sealed_event(0)])])
    assert fine.head.size == 1


async def test_a_changed_row_is_found_when_it_is_read(
    database: Database, ledger: PostgresLedger
) -> None:
    head = await open_log(ledger)
    await ledger.write([a_batch(head, [a_sealed_event(0), a_sealed_event(1)])])
    with psycopg.connect(database.urls["admin"]) as superuser:
        superuser.execute("ALTER TABLE audit_logs DISABLE TRIGGER ALL")
        superuser.execute(
            "UPDATE audit_logs SET event = replace(event::text, 'T-1', 'T-2')::json"
            " WHERE leaf_index = 1"
        )

    with pytest.raises(ChainBroken, match="leaf 1"):
        await ledger.read(head.log_id, 0, limit=2)


async def test_a_row_that_is_gone_is_found_when_it_is_read(
    database: Database, ledger: PostgresLedger
) -> None:
    head = await open_log(ledger)
    await ledger.write([a_batch(head, [a_sealed_event(0), a_sealed_event(1)])])
    with psycopg.connect(database.urls["admin"]) as superuser:
        superuser.execute("ALTER TABLE audit_logs DISABLE TRIGGER ALL")
        superuser.execute("DELETE FROM audit_logs WHERE leaf_index = 0")

    with pytest.raises(ChainBroken, match="leaf 0"):
        await ledger.read(head.log_id, 0, limit=2)


@pytest.mark.parametrize("change", ["root = sha256('x')", "size = 1", "size = 3", "frontier = ''"])
async def test_a_changed_head_stops_the_log(
    database: Database, ledger: PostgresLedger, change: str
) -> None:
    head = await open_log(ledger)
    batch = a_batch(head, [a_sealed_event(0), a_sealed_event(1)])
    await ledger.write([batch])
    database.run("admin", f"UPDATE log_heads SET {change}")

    with pytest.raises(ChainBroken):
        await ledger.write([a_batch(head, [a_sealed_event(2)], start=2)])


async def test_a_leaf_beyond_its_head_stops_the_log(
    database: Database, ledger: PostgresLedger
) -> None:
    head = await open_log(ledger)
    database.run(
        "admin",
        "INSERT INTO leaves VALUES (0, now(), %s, gen_random_uuid(), sha256('x'))",
        [head.log_id],
    )

    with pytest.raises(ChainBroken):
        await ledger.write([a_batch(head, [a_sealed_event(0)])])


async def test_intake_ranges_abut_and_their_sums_are_the_leaves(
    database: Database, ledger: PostgresLedger
) -> None:
    head = await open_log(ledger)
    await ledger.write([a_batch(head, [a_sealed_event(0), a_sealed_event(3)], dead=[1], end=6)])
    again = a_sealed_event(6, event_id=UUID(int=1), occurred_at_us=OCCURRED_AT_US)
    await ledger.write([a_batch(head, [again, a_sealed_event(8)], start=6, dead=[7])])
    await ledger.write([a_batch(head, [], start=9, end=12)])

    rows = database.run(
        "writer",
        "SELECT first_offset, next_offset, first_leaf, accepted, duplicates, dead_lettered, holes"
        " FROM intake ORDER BY first_offset",
    )

    assert rows == [(0, 6, 0, 2, 0, 1, 3), (6, 9, 2, 1, 1, 1, 0), (9, 12, 3, 0, 0, 0, 3)]


async def test_server_columns_stand_beside_the_canonical_bytes(
    database: Database, ledger: PostgresLedger
) -> None:
    head = await open_log(ledger)
    event = a_sealed_event(0, clear={"imported": True, "outcome": "failure"})

    await ledger.write([a_batch(head, [event])])

    [row] = database.run(
        "writer",
        "SELECT event::text, event_id, (extract(epoch FROM occurred_at) * 1000000)::bigint,"
        " (extract(epoch FROM stored_at) * 1000000)::bigint,"
        " (extract(epoch FROM broker_timestamp) * 1000)::bigint, schema_id, source_offset, late,"
        " imported, family, tenant, action, outcome, severity, actor_type, actor_ref"
        " FROM audit_logs",
    )
    assert row == (
        event.canonical.decode(), UUID(bytes=event.event_id), event.occurred_at_us,
        event.stored_at_us, event.broker_timestamp_ms, 1, 0, True, True, "authentication", "acme",
        "session.start", "failure", "informational", "user", UUID(int=7),
    )  # fmt: skip


async def test_commits_that_are_not_durable_are_refused(database: Database) -> None:
    database.run("admin", f"ALTER DATABASE {database.name} SET synchronous_commit = off")
    ledger = PostgresLedger(database.urls["writer"])

    with pytest.raises(ConfigurationError):
        await ledger.open()
    await ledger.close()


async def test_a_database_without_the_schema_says_so() -> None:
    urls = server_urls()
    if not urls:
        pytest.skip("no PostgreSQL")
    with empty_database(urls) as bare:
        ledger = PostgresLedger(bare.urls["writer"])

        with pytest.raises(ConfigurationError, match="audit-trail migrate"):
            await ledger.open()
        await ledger.close()
