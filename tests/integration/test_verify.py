"""A superuser of PostgreSQL can change everything there; verification finds and names what was done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from pipeline.compliance.findings import Kind, Store
from pipeline.compliance.verify import Scope
from pipeline.domain.errors import ConfigurationError, Unavailable
from pipeline.domain.merkle import Frontier, leaf_hash
from pipeline.keys.seal import open_blob
from pipeline.keys.subjects import SubjectKey
from tests.index_support import KEY
from tests.ledger_support import empty_database, server_urls, template
from tests.trail_support import KEY_REF, Trail, a_trail, found, of

__all__ = ["template"]  # fixtures

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def whole(anyio_backend: str, template: str) -> AsyncIterator[Trail]:
    with empty_database(server_urls(), template) as database:
        async with a_trail(database) as trail:
            yield trail


@pytest.fixture
def trail(whole: Trail) -> Iterator[Trail]:
    """The whole trail over a copy of its database: only that may be spoiled."""
    with empty_database(server_urls(), whole.database.name) as copy:
        yield whole.copied(copy)


async def test_a_whole_trail_has_no_findings(trail: Trail) -> None:
    progress = await trail.verify()

    assert found(progress) == []
    (log,) = progress.logs
    assert (log.next_leaf, log.checkpoints, log.signed_size, log.done) == (25, 2, 25, True)
    assert log.archive is not None
    assert log.leaves == log.archive
    assert log.differing == []


async def test_one_byte_of_one_event(trail: Trail) -> None:
    trail.spoil(
        "UPDATE audit_logs SET event = replace(event::text, 'session.start', 'session.stars')::json"
        " WHERE leaf_index = 7"
    )

    progress = await trail.verify()

    assert found(progress) == [(Kind.CHANGED, Store.LEDGER, 7)] * 2  # and the column says otherwise
    assert all(one.event_id == trail.event_id(7) for one in progress.findings.listed)


async def test_white_space_that_json_does_not_mind(trail: Trail) -> None:
    trail.spoil(
        "UPDATE audit_logs SET event = replace(event::text, ',\"family\"', ', \"family\"')::json"
        " WHERE leaf_index = 7"
    )

    assert found(await trail.verify()) == [(Kind.CHANGED, Store.LEDGER, 7)]


async def test_a_column_beside_the_event(trail: Trail) -> None:
    trail.spoil("UPDATE audit_logs SET tenant = 'globex' WHERE leaf_index = 3")

    (finding,) = (await trail.verify()).findings.listed

    assert (finding.kind, finding.store, finding.leaf) == (Kind.CHANGED, Store.LEDGER, 3)
    assert "tenant" in finding.what


async def test_what_the_server_set_is_held_to_the_archive(trail: Trail) -> None:
    trail.spoil("UPDATE audit_logs SET source_offset = source_offset + 100 WHERE leaf_index = 3")

    (finding,) = of(await trail.verify(), Kind.CHANGED, Store.LEDGER)

    assert "source_offset" in finding.what


async def test_a_deleted_row(trail: Trail) -> None:
    trail.spoil("DELETE FROM audit_logs WHERE leaf_index = 11")

    progress = await trail.verify()

    assert found(progress) == [(Kind.MISSING, Store.LEDGER, 11)]
    assert progress.findings.listed[0].event_id == trail.event_id(11)
    assert [(row["store"], row["leaves"], row["events"]) for row in progress.logs[0].differing] == [
        ("ledger", 12, 11)
    ]


async def test_a_second_event_of_a_leaf(trail: Trail) -> None:
    trail.spoil(
        "CREATE TEMP TABLE one AS SELECT * FROM audit_logs WHERE leaf_index = 4",
        "UPDATE one SET occurred_at = occurred_at + interval '1 minute'",
        "INSERT INTO audit_logs SELECT * FROM one",
    )

    kinds = {(one.kind, one.store, one.leaf) for one in (await trail.verify()).findings.listed}

    assert (Kind.ADDED, Store.LEDGER, 4) in kinds
    assert {leaf for _kind, _store, leaf in kinds} == {4}


async def test_a_row_beyond_the_log(trail: Trail) -> None:
    trail.spoil(
        "CREATE TEMP TABLE one AS SELECT * FROM audit_logs WHERE leaf_index = 4",
        "UPDATE one SET leaf_index = 25, event_id = gen_random_uuid()",
        "INSERT INTO audit_logs SELECT * FROM one",
        "INSERT INTO leaves (log_id, leaf_index, event_id, occurred_at, leaf_hash)"
        " SELECT log_id, 25, event_id, occurred_at, sha256('') FROM one",
    )

    assert found(await trail.verify()) == [
        (Kind.ADDED, Store.LEAVES, 25),
        (Kind.ADDED, Store.LEDGER, 25),
    ]


async def test_two_rows_that_changed_places(trail: Trail) -> None:
    trail.spoil(
        "UPDATE audit_logs SET leaf_index = CASE leaf_index WHEN 2 THEN 1002 ELSE 1005 END"
        " WHERE leaf_index IN (2, 5)",
        "UPDATE audit_logs SET leaf_index = CASE leaf_index WHEN 1002 THEN 5 ELSE 2 END"
        " WHERE leaf_index IN (1002, 1005)",
    )

    progress = await trail.verify()

    reordered = of(progress, Kind.REORDERED, Store.LEDGER)
    assert [(one.leaf, one.event_id) for one in reordered] == [
        (2, trail.event_id(5)),
        (5, trail.event_id(2)),
    ]
    assert "of leaf 5" in reordered[0].what


async def test_a_month_that_was_dropped(trail: Trail) -> None:
    trail.spoil("DROP TABLE audit_logs_2025_10")

    progress = await trail.verify()

    missing = of(progress, Kind.MISSING, Store.LEDGER)
    assert [one.leaf for one in missing] == list(range(12))
    assert progress.findings.total == 12
    assert all("without authority" in one.what for one in missing)


async def test_a_leaf_hash(trail: Trail) -> None:
    trail.spoil("UPDATE leaves SET leaf_hash = sha256('x') WHERE leaf_index = 13")

    assert found(await trail.verify()) == [
        (Kind.CHANGED, Store.HEADS, None),
        (Kind.CHANGED, Store.LEAVES, 13),
        (Kind.INCONSISTENT, Store.LEAVES, 24),
    ]


async def test_a_leaf_that_is_gone(trail: Trail) -> None:
    trail.spoil("DELETE FROM leaves WHERE leaf_index = 13")

    progress = await trail.verify()

    assert found(progress) == [(Kind.MISSING, Store.LEAVES, 13)]
    assert progress.findings.listed[0].event_id == trail.event_id(13)


async def test_an_event_rewritten_with_leaf_and_head(trail: Trail) -> None:
    """PostgreSQL then agrees with itself in everything."""
    hashes = [event.leaf_hash for event in trail.events]
    forged = trail.events[6].canonical.replace(b"success", b"failure")
    hashes[6] = leaf_hash(forged)
    tree = Frontier().append(hashes)
    with_values = {
        "UPDATE audit_logs SET event = convert_from(%s, 'UTF8')::json, outcome = 'failure'"
        " WHERE leaf_index = 6": [forged],
        "UPDATE leaves SET leaf_hash = %s WHERE leaf_index = 6": [hashes[6]],
        "UPDATE log_heads SET frontier = %s, root = %s": [tree.to_bytes(), tree.root()],
    }
    for statement, values in with_values.items():
        trail.spoil(statement, values=values)

    progress = await trail.verify()

    assert found(progress) == [
        (Kind.CHANGED, Store.LEAVES, 6),
        (Kind.CHANGED, Store.LEDGER, 6),
        (Kind.INCONSISTENT, Store.LEAVES, 11),
    ]


async def test_a_database_that_was_rolled_back(template: str) -> None:
    with empty_database(server_urls(), template) as database:
        async with a_trail(database) as trail:
            with empty_database(server_urls(), database.name) as earlier:
                await trail.grow(10)
                await trail.sign()
                progress = await trail.copied(earlier).verify()

    missing = of(progress, Kind.MISSING, Store.LEDGER)
    assert {one.leaf for one in missing} == {25}
    assert len(missing) == 2  # the archive has more, and more was signed
    assert all("rolled back" in one.what for one in missing)


async def test_an_intake_row_that_was_dropped(trail: Trail) -> None:
    trail.spoil("DELETE FROM intake WHERE first_offset = 0")

    progress = await trail.verify()

    (finding,) = of(progress, Kind.MISSING, Store.INTAKE)
    assert "leaf 6" in finding.what


async def test_an_intake_row_between_others(trail: Trail) -> None:
    trail.spoil("DELETE FROM intake WHERE first_offset = 6")

    (gap,) = (await trail.verify()).findings.listed

    assert (gap.kind, gap.store, gap.place) == (Kind.MISSING, Store.INTAKE, "6-11")


async def test_an_intake_row_that_accounts_for_less(trail: Trail) -> None:
    trail.spoil("UPDATE intake SET accepted = 12, holes = 1 WHERE first_offset = 12")

    (finding,) = (await trail.verify()).findings.listed

    assert (finding.kind, finding.store) == (Kind.INCONSISTENT, Store.INTAKE)
    assert "24 leaves, the log has 25" in finding.what


async def test_dead_letters_without_their_keys(trail: Trail) -> None:
    trail.spoil("UPDATE intake SET next_offset = 26, dead_lettered = 1 WHERE first_offset = 12",
                "UPDATE log_heads SET next_offset = 26")  # fmt: skip

    (finding,) = (await trail.verify()).findings.listed

    assert (finding.kind, finding.store) == (Kind.MISSING, Store.DEAD_LETTERS)
    assert finding.place == "12-25"


async def test_a_blob_that_is_gone(trail: Trail) -> None:
    trail.spoil("DELETE FROM audit_blobs WHERE leaf_index = 9")

    (finding,) = of(await trail.verify(), Kind.MISSING, Store.LEDGER)

    assert finding.leaf == 9
    assert KEY_REF.hex in finding.what
    assert "without authority" in finding.what


async def test_a_blob_that_was_changed(trail: Trail) -> None:
    trail.spoil("UPDATE audit_blobs SET ciphertext = ciphertext || '\\x00' WHERE leaf_index = 9")

    progress = await trail.verify()

    assert [one.leaf for one in of(progress, Kind.CHANGED, Store.LEDGER)] == [9]  # does not open
    assert [one.leaf for one in of(progress, Kind.CHANGED, Store.VAULT)] == [9]  # is another one


async def test_values_sealed_anew_by_whoever_has_the_key(trail: Trail) -> None:
    """The blob opens, and its values are not what the leaf commits to."""
    event, nonce = trail.events[9], b"n" * 12
    values = open_blob(KEY, event.event_id, event.blobs[0])
    forged = orjson.dumps({**values, "actor.id": "somebody else"})
    ciphertext = KEY.blob_cipher.encrypt(nonce, forged, event.event_id + KEY.ref)
    trail.spoil(
        "UPDATE audit_blobs SET nonce = %s, ciphertext = %s WHERE leaf_index = 9",
        values=(nonce, ciphertext),
    )

    (finding,) = of(await trail.verify(), Kind.CHANGED, Store.LEDGER)

    assert finding.leaf == 9
    assert "actor.id" in finding.what
    assert "somebody" not in finding.what


async def test_a_blob_that_no_event_calls_for(trail: Trail) -> None:
    trail.spoil(
        "INSERT INTO audit_blobs SELECT leaf_index, occurred_at, gen_random_uuid(), log_id, nonce,"
        " ciphertext FROM audit_blobs WHERE leaf_index = 9"
    )

    assert (Kind.ADDED, Store.LEDGER, 9) in found(await trail.verify())


async def test_a_key_that_is_gone_is_named_once(trail: Trail) -> None:
    other = UUID(int=99)

    progress = await trail.verify(keys={other: SubjectKey(other, b"x" * 32)})

    (finding,) = of(progress, Kind.MISSING, Store.LEDGER)
    assert f"the key of subject {KEY_REF.hex}" in finding.what


async def test_a_head(trail: Trail) -> None:
    trail.spoil("UPDATE log_heads SET root = sha256('another')")

    assert found(await trail.verify()) == [(Kind.CHANGED, Store.HEADS, None)]


async def test_a_checkpoint_taken_out_of_the_table(trail: Trail) -> None:
    trail.spoil("DELETE FROM checkpoints WHERE size = 12")

    (finding,) = (await trail.verify()).findings.listed

    assert (finding.kind, finding.store) == (Kind.MISSING, Store.CHECKPOINTS)
    assert finding.place is not None
    assert finding.place.endswith("0000000000000000012")


async def test_a_checkpoint_that_nobody_stored(trail: Trail) -> None:
    trail.spoil("INSERT INTO checkpoints SELECT 20, log_id, root, note, signed_at FROM checkpoints"
                " WHERE size = 12")  # fmt: skip

    (finding,) = (await trail.verify()).findings.listed

    assert (finding.kind, finding.store) == (Kind.ADDED, Store.CHECKPOINTS)


async def test_a_checkpoint_with_another_note_in_the_table(trail: Trail) -> None:
    trail.spoil("UPDATE checkpoints SET note = note || 'x' WHERE size = 12")

    assert found(await trail.verify()) == [(Kind.CHANGED, Store.CHECKPOINTS, None)]


async def test_rows_of_a_log_that_has_no_head(trail: Trail) -> None:
    trail.spoil(
        "CREATE TEMP TABLE one AS SELECT * FROM audit_logs WHERE leaf_index = 4",
        "UPDATE one SET log_id = 77",
        "INSERT INTO audit_logs SELECT * FROM one",
    )

    (finding,) = (await trail.verify()).findings.listed

    assert (finding.kind, finding.store, finding.log) == (Kind.ADDED, Store.LEDGER, "77")


async def test_a_head_that_was_removed(trail: Trail) -> None:
    trail.spoil("DELETE FROM log_heads")

    progress = await trail.verify()

    named = {one.log for one in of(progress, Kind.MISSING, Store.HEADS)}
    assert trail.log in named
    assert progress.findings.count(Kind.ADDED, Store.INDEX) == 25


async def test_a_period_looks_at_its_leaves_and_hashes_all(trail: Trail) -> None:
    trail.spoil("DELETE FROM audit_logs WHERE leaf_index IN (3, 20)")
    second_month = Scope(begins=datetime(2025, 11, 1, tzinfo=UTC))

    progress = await trail.verify(scope=second_month)

    assert found(progress) == [(Kind.MISSING, Store.LEDGER, 20)]
    assert progress.logs[0].checkpoints == 2


async def test_a_verification_goes_on_where_it_was_interrupted(
    trail: Trail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail.spoil("DELETE FROM audit_logs WHERE leaf_index IN (3, 20)")
    state = tmp_path / "state.json"
    monkeypatch.setattr("pipeline.compliance.verify_log.ROWS_FIRST", 4)
    monkeypatch.setattr("pipeline.compliance.verify_log.ROWS_MAX", 4)
    whole = await trail.verify()
    read = type(trail.gateway.s3).get
    asked = []

    async def fails(self: object, bucket: str, key: str, **options: object) -> object:
        asked.append(key)
        if len([one for one in asked if one.startswith("archive/")]) > 2:
            raise Unavailable("s3", "lost")
        return await read(self, bucket, key, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(type(trail.gateway.s3), "get", fails)
        with pytest.raises(Unavailable):
            await trail.verify(state_file=state)
    half = state.read_text()
    progress = await trail.verify(state_file=state)

    assert '"done": false' in half
    assert found(progress) == found(whole)
    assert progress.findings.counts == whole.findings.counts
    assert progress.logs[0].leaves == whole.logs[0].leaves
    assert progress.logs[0].archive == whole.logs[0].archive


async def test_a_state_file_of_something_else_is_refused(trail: Trail, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text("{}")

    with pytest.raises(ConfigurationError, match="no state"):
        await trail.verify(state_file=state)
