"""Exports from a real ledger, as the roles of production: what is let in, opened, withheld and refused."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pipeline import verifier
from pipeline.compliance.absence import Absence
from pipeline.compliance.authority import Judged
from pipeline.compliance.checkpoint_store import CheckpointTable
from pipeline.compliance.export import Exporter, ExportRequest, ExportSummary, Judge
from pipeline.compliance.export_filters import ExportFilters
from pipeline.compliance.export_opening import KEY_GONE, VALUES_GONE, ExportOpener, NoOpener
from pipeline.compliance.export_read import CHECKPOINTS_MAX, ExportReader
from pipeline.compliance.prove import prove_event
from pipeline.compliance.tile_store import Growth, TileReader, TileStore, tile_key
from pipeline.db.connection import Connection
from pipeline.domain.checkpoints import Checkpoint, origin_of
from pipeline.domain.errors import ChainBroken, ConfigurationError
from pipeline.domain.merkle import Frontier
from pipeline.domain.records import LogHead, SealedBlob, SealedEvent
from pipeline.domain.tiles import Tile
from pipeline.keys.note_keys import sign_note
from pipeline.keys.provider import LocalKeyProvider
from pipeline.keys.seal import seal
from pipeline.keys.subjects import Subject, SubjectKeys, subject_message
from sinks.ledger import PostgresLedger
from sinks.recorded_schemas import RecordedSchema
from sinks.subject_store import SubjectStore
from tests.archive_support import Gateway, open_gateway
from tests.export_support import KEYS, ORIGIN, SIGNER, no_authority
from tests.ledger_support import (
    OCCURRED_AT_US,
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
PROVIDER = LocalKeyProvider(bytes(range(32)))
PERSON = Subject("acme", "user_id", "u-1001")
EVERYTHING = ExportFilters(all_tenants=True)
SCHEMA = RecordedSchema(1, f"{TOPIC}-value", 1, "authentication", "{}", "", "t")


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_gateway() as made:
        yield made


@dataclass
class Trail:
    """A ledger with events of two tenants in one log, a checkpoint over all of them, and who reads it."""

    database: Database
    head: LogHead
    events: Sequence[SealedEvent]

    @asynccontextmanager
    async def reader(self, role: str = "auditor") -> AsyncIterator[ExportReader]:
        connection = Connection(self.database.urls[role], name="test")
        try:
            yield ExportReader(connection)
        finally:
            await connection.close()

    async def export(
        self,
        filters: ExportFilters = EVERYTHING,
        *,
        role: str = "auditor",
        opener: Callable[[ExportReader], Any] = lambda _reader: NoOpener(),
        tiles: Callable[[Any], TileReader | None] = lambda _name: None,
        judge: Judge = no_authority,
    ) -> tuple[bytes, verifier.Report]:
        async def announce(summary: ExportSummary) -> dict[str, str]:
            return dict.fromkeys(summary.events, "told")

        request = ExportRequest(filters, "ndjson", ORIGIN, "t", OCCURRED_AT_US, "test")
        file = io.BytesIO()
        async with self.reader(role) as reader:
            exporter = Exporter(
                reader,
                tiles,
                opener(reader),
                schemas=[SCHEMA],
                keys=[SIGNER.verifier],
                signers=[SIGNER],
                judge=judge,
                announce=announce,
            )
            await exporter.write(file, request)
        return file.getvalue(), verifier.verify_bundle(file, KEYS)

    def as_superuser(self, *statements: str) -> None:
        """Change what nobody may change."""
        with psycopg.connect(self.database.urls["admin"], autocommit=True) as connection:
            tables = connection.execute(
                "SELECT tableoid::regclass::text FROM audit_logs LIMIT 1"
            ).fetchall()
            for table in ("audit_logs", "leaves", *(row[0] for row in tables)):
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
            for statement in statements:
                connection.execute(statement)


async def a_trail(
    database: Database, events: Sequence[SealedEvent], sizes: Sequence[int] = ()
) -> Trail:
    ledger = PostgresLedger(database.urls["writer"])
    head = await ledger.open_log(TOPIC, 0, cluster_id="c", topic_id="t")
    for at in range(0, len(events), 1_000):
        [outcome] = await ledger.write([a_batch(head, events[at : at + 1_000])])
        head = outcome.head
    await ledger.close()
    connection = Connection(database.urls["signer"], name="test")
    for size in sizes or [len(events)]:
        root = Frontier().append([event.leaf_hash for event in events[:size]]).root()
        checkpoint = Checkpoint(origin_of(ORIGIN, head.name), size, root)
        note = sign_note(checkpoint.text, [SIGNER]).encode()
        await CheckpointTable(connection).insert(
            head.log_id, head.name, checkpoint, note, datetime.now(UTC)
        )
    await connection.close()
    return Trail(database, head, events)


@pytest.fixture
async def trail(database: Database) -> Trail:
    """40 leaves: every third is globex's, one of ten is about another person, and ends another way."""
    events = [
        a_sealed_event(
            offset,
            clear={
                "tenant": "globex" if offset % 3 == 2 else "acme",
                "action": "session.end" if offset % 10 == 4 else "session.start",
            },
            subject_ref=UUID(int=8 if offset % 10 == 4 else 7),
        )
        for offset in range(40)
    ]
    return await a_trail(database, events, [9, 25, 40])


def tenants_of(bundle: bytes) -> Counter[str]:
    found = verifier.Bundle(io.BytesIO(bundle))
    entries = [
        verifier.read_json("", event.entry)
        for name in found.names
        if name.startswith("events/")
        for event in verifier.json_events(found, name)
    ]
    return Counter(entry["clear"]["tenant"] for entry in entries)


async def test_an_export_of_everything_is_complete_as_a_role_that_decrypts_nothing(
    trail: Trail,
) -> None:
    bundle, report = await trail.export()

    assert report.problems == []
    assert report.statements == [f"{trail.head.name}: 40 events, complete from leaf 0 to 39 of 40"]
    assert tenants_of(bundle) == {"acme": 27, "globex": 13}
    assert report.manifest["logs"][0]["checkpoints"] == [9, 25, 40]
    assert report.manifest["personal_data"]["withheld"] == {"not_asked": 40}


async def test_an_export_of_one_tenant_holds_its_events_and_no_others(trail: Trail) -> None:
    bundle, report = await trail.export(ExportFilters(tenants=("globex",)))

    assert report.problems == []
    assert tenants_of(bundle) == {"globex": 13}
    assert "complete" not in report.statements[0]


@pytest.mark.parametrize(
    ("filters", "leaves"),
    [
        ({"from_us": OCCURRED_AT_US + 5, "to_us": OCCURRED_AT_US + 9}, [5, 6, 7, 8]),
        ({"actions": ("session.end",)}, [4, 14, 24, 34]),
        ({"subjects": (UUID(int=8),)}, [4, 14, 24, 34]),
        ({"families": ("data-access",)}, []),
        ({"families": ("authentication",), "to_us": OCCURRED_AT_US + 2}, [0, 1]),
    ],
)
async def test_each_filter_lets_in_what_it_says(
    trail: Trail, filters: dict[str, Any], leaves: list[int]
) -> None:
    _, report = await trail.export(ExportFilters(all_tenants=True, **filters))

    async with trail.reader() as reader:
        pages = reader.events(
            trail.head.log_id, trail.head.name, ExportFilters(all_tenants=True, **filters), 40
        )
        found = [one.leaf_index async for page in pages for one in page.events]
    assert found == leaves
    assert report.problems == []


async def test_leaves_of_one_log_may_be_asked_for(trail: Trail) -> None:
    filters = ExportFilters(all_tenants=True, logs=(trail.head.name,), from_leaf=7, to_leaf=31)

    _, report = await trail.export(filters)

    assert report.statements == [f"{trail.head.name}: 24 events, complete from leaf 7 to 30 of 40"]


async def test_pages_that_are_full_of_bytes_skip_nothing(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.compliance.export_read.READ_BYTES", 1_000)
    monkeypatch.setattr("pipeline.compliance.export_read.WINDOW_LEAVES", 7)

    _, report = await trail.export()

    assert report.statements == [f"{trail.head.name}: 40 events, complete from leaf 0 to 39 of 40"]


async def test_an_export_passes_over_no_leaf_whose_row_is_gone(trail: Trail) -> None:
    trail.as_superuser("DELETE FROM audit_logs WHERE leaf_index = 11")

    with pytest.raises(ChainBroken, match="leaf 11 has no row"):
        await trail.export(ExportFilters(tenants=("globex",)))


async def test_an_export_goes_on_over_what_is_expired_and_counts_it(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.compliance.export_read.READ_BYTES", 1_000)
    trail.as_superuser("DELETE FROM audit_logs WHERE leaf_index IN (3, 11, 12)")
    asked: list[tuple[int, int | None]] = []

    async def by_right(log_id: int, absences: Sequence[Absence]) -> Judged:
        asked.extend((one.leaf, one.occurred_at_us) for one in absences)
        return Judged(expired={one.leaf for one in absences})

    _, report = await trail.export(judge=by_right)

    assert report.problems == []
    assert report.statements == [
        f"{trail.head.name}: 37 events, others may be left out, from leaf 0 to 39 of 40"
    ]
    assert report.manifest["logs"][0]["expired"] == 3
    assert asked == [(leaf, OCCURRED_AT_US + leaf) for leaf in (3, 11, 12)]


async def test_an_export_gives_no_row_that_was_changed(trail: Trail) -> None:
    trail.as_superuser(
        "UPDATE audit_logs SET event = replace(event::text, 'T-1', 'T-2')::json WHERE leaf_index = 8"
    )

    with pytest.raises(ChainBroken, match="leaf 8: the row in audit_logs is not what was hashed"):
        await trail.export()


async def test_a_row_that_was_moved_to_another_tenant_leaves_by_no_export(trail: Trail) -> None:
    trail.as_superuser("UPDATE audit_logs SET tenant = 'globex' WHERE leaf_index = 0")

    with pytest.raises(ChainBroken, match="leaf 0 is of another tenant than its row"):
        await trail.export(ExportFilters(tenants=("globex",)))


async def test_of_many_checkpoints_a_bounded_number_is_given(database: Database) -> None:
    events = [a_sealed_event(offset) for offset in range(300)]
    trail = await a_trail(database, events, range(1, 301))

    _, report = await trail.export()

    sizes = report.manifest["logs"][0]["checkpoints"]
    assert report.problems == []
    assert len(sizes) <= CHECKPOINTS_MAX
    assert (sizes[0], sizes[-1]) == (1, 300)
    assert max(b - a for a, b in pairwise(sizes)) <= 10


async def test_the_auditors_role_finds_no_person_and_opens_nothing(trail: Trail) -> None:
    hashed = PROVIDER.mac(subject_message(PERSON))

    async with trail.reader() as reader:
        with pytest.raises(ConfigurationError):
            await reader.subject_refs([hashed])
    store = SubjectStore(trail.database.urls["auditor"])
    with pytest.raises(ConfigurationError):
        await store.keys_by_ref([UUID(int=7)])
    await store.close()


# ---- Personal data -------------------------------------------------------------------------------


@dataclass
class SealedTrail:
    """A trail with real keys and blobs; ``values`` are those of leaf 0."""

    trail: Trail
    ref: UUID
    blob: SealedBlob
    keys: SubjectKeys
    store: SubjectStore
    openers: list[ExportOpener]

    def opener(self, reader: ExportReader) -> ExportOpener:
        self.openers.append(ExportOpener(reader, self.keys))
        return self.openers[-1]


VALUES = {
    "actor.id": "u-1001",
    "actor.name": 'Zoë "Z" Quinn',
    "labels": {"card": "4111-1111-1111-1111"},
}


@pytest.fixture
async def sealed(database: Database) -> AsyncIterator[SealedTrail]:
    store = SubjectStore(database.urls["writer"])
    wrapped = PROVIDER.wrap(os.urandom(32), b"tenant:acme")
    await store.create_tenant("acme", name="Acme", wrapped_key=wrapped)

    async def journal(_entries: Any) -> None:
        return

    keys = SubjectKeys(PROVIDER, store, journal, cache_size=10)
    keys.know_tenants(await store.tenants())
    key = (await keys.resolve({PERSON: OCCURRED_AT_US}))[PERSON]
    events = []
    for offset in range(5):
        event = a_sealed_event(offset, sealed={}, blobs=[], actor_ref=key.ref)
        made = seal("authentication", event.event_id, event.clear, [(key, VALUES)])
        event.canonical, event.leaf_hash, event.blobs = made.canonical, made.leaf_hash, made.blobs
        events.append(event)
    trail = await a_trail(database, events)
    yield SealedTrail(trail, UUID(bytes=key.ref), events[0].blobs[0], keys, store, [])
    await store.close()


async def test_opened_values_come_with_what_checks_them_and_opens_nothing_else(
    sealed: SealedTrail,
) -> None:
    bundle, report = await sealed.trail.export(role="writer", opener=sealed.opener)

    assert report.problems == []
    assert report.values == 15
    found = verifier.Bundle(io.BytesIO(bundle))
    (name,) = [name for name in found.names if name.startswith("opened/")]
    rows = [verifier.read_json(name, line) for line in found.lines(name)]
    assert rows[0]["subjects"][str(sealed.ref)]["values"] == VALUES
    event_keys = {row["subjects"][str(sealed.ref)]["event_key"] for row in rows}
    assert len(event_keys) == 5  # one for each event: none is the person's


async def test_nothing_of_a_person_stands_in_an_export_without_personal_data(
    sealed: SealedTrail,
) -> None:
    bundle, report = await sealed.trail.export()

    found = verifier.Bundle(io.BytesIO(bundle))
    texts = [
        b"\n".join(found.lines(name)) if name.endswith(".gz") else found.read(name)
        for name in found.names
    ]
    assert report.problems == []
    assert not any(text in part for part in texts for text in (b"u-1001", b"Quinn", b"4111-1111"))
    assert not any(name.startswith("opened/") for name in found.names)


async def test_what_was_cut_from_a_blob_cannot_be_guessed_from_an_export(
    sealed: SealedTrail,
) -> None:
    """Ke and the commitment of a card number tell it to whoever tries all of them."""
    key = (await sealed.keys.by_ref([sealed.ref]))[sealed.ref]
    event_id = sealed.trail.events[0].event_id
    left = {path: value for path, value in VALUES.items() if path != "labels"}
    cut = seal("authentication", event_id, {}, [(key, left)]).blobs[0]
    sealed.trail.database.run(
        "redactor",
        "UPDATE audit_blobs SET nonce = %s, ciphertext = %s WHERE leaf_index = 0",
        [cut.nonce, cut.ciphertext],
    )

    bundle, report = await sealed.trail.export(role="writer", opener=sealed.opener)

    assert report.problems == []
    assert report.values == 12
    assert report.manifest["personal_data"]["withheld"] == {VALUES_GONE: 1}
    found = verifier.Bundle(io.BytesIO(bundle))
    (name,) = [name for name in found.names if name.startswith("opened/")]
    assert [verifier.read_json(name, line)["leaf_index"] for line in found.lines(name)] == [
        1,
        2,
        3,
        4,
    ]


async def test_values_whose_key_is_gone_are_withheld_and_said(sealed: SealedTrail) -> None:
    sealed.trail.as_superuser("UPDATE audit_user SET wrapped_key = NULL, erased_at = now()")
    sealed.keys.forget()

    _, report = await sealed.trail.export(role="writer", opener=sealed.opener)

    assert report.problems == []
    assert report.values == 0
    assert report.manifest["personal_data"]["withheld"] == {KEY_GONE: 5}


async def test_a_blob_that_is_not_what_was_sealed_is_not_given(sealed: SealedTrail) -> None:
    key = (await sealed.keys.by_ref([sealed.ref]))[sealed.ref]
    other = seal(
        "authentication",
        sealed.trail.events[2].event_id,
        {},
        [(key, {**VALUES, "actor.id": "u-1002"})],
    ).blobs[0]
    sealed.trail.database.run(
        "redactor",
        "UPDATE audit_blobs SET nonce = %s, ciphertext = %s WHERE leaf_index = 2",
        [other.nonce, other.ciphertext],
    )

    with pytest.raises(ChainBroken, match="leaf 2: its blob is not what was sealed"):
        await sealed.trail.export(role="writer", opener=sealed.opener)


async def test_a_person_is_found_without_a_key_being_made(sealed: SealedTrail) -> None:
    somebody = PROVIDER.mac(subject_message(Subject("acme", "user_id", "nobody-at-all")))
    hashed = PROVIDER.mac(subject_message(PERSON))
    count = "SELECT count(*) FROM audit_user"
    before = sealed.trail.database.run("admin", count)

    async with sealed.trail.reader("writer") as reader:
        found = await reader.subject_refs([somebody, hashed])

    assert found == [sealed.ref]
    assert sealed.trail.database.run("admin", count) == before


# ---- Tiles ---------------------------------------------------------------------------------------


async def with_tiles(trail: Trail, gateway: Gateway) -> TileStore:
    async def pages() -> AsyncIterator[list[bytes]]:
        yield [event.leaf_hash for event in trail.events]

    store = TileStore(gateway.s3, bucket=gateway.archive)
    await store.write_growth(trail.head.name, Growth(), pages())
    return store


async def test_a_proof_is_made_from_tiles_and_from_leaves_where_tiles_are_wrong(
    database: Database, gateway: Gateway
) -> None:
    trail = await a_trail(database, [a_sealed_event(offset) for offset in range(600)])
    store = await with_tiles(trail, gateway)
    name, event = trail.head.name, trail.events[300]

    async def proven() -> tuple[bytes, ...]:
        async with trail.reader() as reader:
            found = await prove_event(
                reader,
                lambda log: TileReader(store, log),
                UUID(bytes=event.event_id),
                keys=[SIGNER.verifier],
                origin=ORIGIN,
                interval_s=30,
            )
        assert verifier.verify_proof(found.proof.encode(), event.canonical, KEYS).problems == []
        return found.proof.hashes

    from_tiles = await proven()
    await gateway.s3.put(gateway.archive, tile_key(name, Tile(0, 0)), bytes(8192))
    from_wrong_tiles = await proven()

    assert from_tiles == from_wrong_tiles


async def test_a_sparse_export_from_tiles_is_that_from_leaves(
    database: Database, gateway: Gateway
) -> None:
    events = [
        a_sealed_event(offset, clear={"tenant": "globex" if offset % 97 == 5 else "acme"})
        for offset in range(1_500)
    ]
    trail = await a_trail(database, events, [300, 1_500])
    store = await with_tiles(trail, gateway)
    # The tiles of the size that the older checkpoint has.
    filters = ExportFilters(tenants=("globex",))

    from_leaves, report = await trail.export(filters)
    from_tiles, _ = await trail.export(filters, tiles=lambda log: TileReader(store, log))

    assert report.problems == []
    assert from_tiles == from_leaves
