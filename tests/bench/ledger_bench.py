"""What the ledger costs: worker CPU and rate of writes and reads, and the ways not taken.

Run from the repository root, with the servers of AUDIT_ENV_FILE:
``python -m tests.bench.ledger_bench [events] [batch]``. Prints a table; changes only a scratch database.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import uvloop

from pipeline.db.connection import Connection
from pipeline.domain.canonical import Value, canonical_json
from pipeline.domain.merkle import leaf_hash
from pipeline.domain.records import PreparedBatch, SealedBlob, SealedEvent
from sinks import rows
from sinks.ledger import PostgresLedger
from tests.ledger_support import empty_database, migrated_template, server_urls

OCCURRED_AT_US = 1_760_000_000_000_000
ACTIONS = ("session.start", "session.end", "record.read", "record.export", "role.grant")


def made_events(count: int) -> list[SealedEvent]:
    """Events of about 800 canonical bytes with two blobs, as two subjects give them."""
    events = []
    for offset in range(count):
        actor, target, event_id = os.urandom(16), os.urandom(16), os.urandom(16)
        clear: dict[str, Value] = {
            "action": ACTIONS[offset % 5], "actor.id_type": "user_id", "actor.tenant": "acme",
            "actor.type": "user", "event_id": str(UUID(bytes=event_id)), "imported": False,
            "occurred_at": OCCURRED_AT_US + offset, "outcome": "success",
            "producer.service": "accounts", "request.id": os.urandom(8).hex(),
            "severity": "informational", "tenant": "acme",
        }  # fmt: skip
        sealed: dict[str, Value] = {
            str(UUID(bytes=actor)): {f"actor.{n}": os.urandom(32) for n in ("id", "email", "name")},
            str(UUID(bytes=target)): {f"targets.0.{n}": os.urandom(32) for n in ("id", "name")},
        }
        canonical = canonical_json(
            {"clear": clear, "family": "authentication", "sealed": sealed, "v": 1}
        )
        events.append(
            SealedEvent(
                event_id=event_id, family="authentication",
                occurred_at_us=OCCURRED_AT_US + offset, offset=offset,
                broker_timestamp_ms=OCCURRED_AT_US // 1000, schema_id=1, clear=clear, opened={},
                canonical=canonical, leaf_hash=leaf_hash(canonical),
                blobs=[SealedBlob(actor, os.urandom(12), os.urandom(140)),
                       SealedBlob(target, os.urandom(12), os.urandom(90))],
                actor_ref=actor,
            )
        )  # fmt: skip
    return events


async def measured(what: str, count: int, work: Callable[[], Awaitable[object]]) -> None:
    cpu, wall = time.process_time(), time.perf_counter()
    await work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{what:<46}{cpu / count * 1e6:>8.2f} µs CPU/event{count / wall:>12,.0f} events/s")


async def write(ledger: PostgresLedger, events: Sequence[SealedEvent], size: int) -> int:
    head = await ledger.open_log("bench", 0, cluster_id="c", topic_id="t")
    for start in range(0, len(events), size):
        part = list(events[start : start + size])
        batch = PreparedBatch(head.log_id, head.name, start, start + len(part), part)
        [outcome] = await ledger.write([batch])
        assert len(outcome.accepted.events) == len(part)
    return head.log_id


async def read(ledger: PostgresLedger, log_id: int, size: int) -> None:
    leaf = 0
    while found := (await ledger.read(log_id, leaf, limit=size)).events:
        leaf += len(found)


async def pack(events: Sequence[SealedEvent]) -> None:
    packer = rows.RowPacker(late_after_s=86_400)
    for start in range(0, len(events), 5000):
        part = events[start : start + 5000]
        rows.stream(packer.events(1, start, part, OCCURRED_AT_US))
        rows.stream(rows.leaves(1, start, part))
        rows.stream(rows.blobs(1, start, part))


async def text_copy(url: str, events: Sequence[SealedEvent]) -> None:
    """audit_logs alone, as text lines joined by hand."""
    connection = Connection(url, name="bench")
    at = datetime.fromtimestamp(OCCURRED_AT_US / 1e6, UTC).isoformat()
    columns = rows.COPY_EVENTS.replace("(FORMAT BINARY)", "")
    async with connection.session() as session, session.transaction():
        for start in range(0, len(events), 5000):
            lines = []
            for leaf, event in enumerate(events[start : start + 5000], start):
                clear = event.clear
                text = event.canonical.decode().replace("\\", "\\\\")
                lines.append(
                    f"{leaf}\t{event.offset}\t{at}\t{at}\t{at}\t{event.event_id.hex()}\t1\t1\tf\tf\t"
                    f"{(event.actor_ref or b'').hex()}\t{event.family}\t{clear['tenant']}\t"
                    f"{clear['action']}\t{clear['outcome']}\t{clear['severity']}\t"
                    f"{clear['actor.type']}\t{text}\n"
                )
            async with session.cursor() as cursor, cursor.copy(columns) as copy:
                await copy.write("".join(lines))
    await connection.close()


async def driver_rows(url: str, events: Sequence[SealedEvent]) -> None:
    """audit_logs alone, as the driver's own binary row writer packs it."""
    connection = Connection(url, name="bench")
    at = datetime.fromtimestamp(OCCURRED_AT_US / 1e6, UTC)
    types = ["int8", "int8", "timestamptz", "timestamptz", "timestamptz", "uuid", "int4", "int4",
             "bool", "bool", "uuid", *["text"] * 6, "json"]  # fmt: skip
    async with (
        connection.session() as session,
        session.transaction(),
        session.cursor() as cursor,
        cursor.copy(rows.COPY_EVENTS) as copy,
    ):
        copy.set_types(types)
        for leaf, event in enumerate(events):
            clear = event.clear
            await copy.write_row(
                (leaf, event.offset, at, at, at, UUID(bytes=event.event_id), 1, 1, False, False,
                 UUID(bytes=event.actor_ref), event.family, clear["tenant"], clear["action"],
                 clear["outcome"], clear["severity"], clear["actor.type"],
                 event.canonical.decode())
            )  # fmt: skip
    await connection.close()


async def binary_copy(url: str, events: Sequence[SealedEvent]) -> None:
    """audit_logs alone, packed by hand."""
    connection = Connection(url, name="bench")
    packer = rows.RowPacker(late_after_s=86_400)
    async with connection.session() as session, session.transaction():
        for start in range(0, len(events), 5000):
            part = events[start : start + 5000]
            async with session.cursor() as cursor, cursor.copy(rows.COPY_EVENTS) as copy:
                await copy.write(rows.stream(packer.events(1, start, part, OCCURRED_AT_US)))
    await connection.close()


async def main(count: int, size: int) -> None:
    urls = server_urls()
    events = made_events(count)
    mean = sum(len(event.canonical) for event in events) // count
    print(f"{count:,} events of {mean} canonical bytes and two blobs, {size:,} a transaction")
    with migrated_template(urls) as template:
        for what, way in (
            ("audit_logs alone: binary, packed by hand", binary_copy),
            ("audit_logs alone: text", text_copy),
            ("audit_logs alone: driver's write_row, binary", driver_rows),
        ):
            with empty_database(urls, template) as database:
                await measured(what, count, partial(way, database.urls["writer"], events))
        await measured("packing of all three tables", count, lambda: pack(events))
        with empty_database(urls, template) as database:
            ledger = PostgresLedger(database.urls["writer"])
            await ledger.open()
            await measured("PostgresLedger.write", count, lambda: write(ledger, events, size))
            head = await ledger.open_log("bench", 0, cluster_id="c", topic_id="t")
            await measured("PostgresLedger.read", count, lambda: read(ledger, head.log_id, size))
            again = PreparedBatch(head.log_id, head.name, count, 2 * count, [])
            for event in events:
                event.offset += count
            again.events = events
            await measured(
                "the same events again: duplicates", count, lambda: ledger.write([again])
            )
            await ledger.close()


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    uvloop.run(main(*(arguments + [40_000, 5_000][len(arguments) :])))
