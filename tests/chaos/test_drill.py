"""The drill: PostgreSQL and Elasticsearch are destroyed; both are rebuilt from S3 and the keys."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pipeline.domain.logs import RAW_TOPICS
from pipeline.domain.merkle import merkle_root
from pipeline.entrypoints.cli.compare import compare_stores
from pipeline.entrypoints.cli.stores import searching
from pipeline.settings import Settings
from tests.acceptance.keeping_support import look, run_cli
from tests.chaos.load import connect, publish, stored, wait_drained
from tests.chaos.processes import cli, wait_until, worker
from tests.chaos.proof import leaf_hashes

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(600)]

EVENTS = 1_500


def test_ledger_and_index_are_rebuilt_from_the_archive_and_the_keys(
    signing: Settings, tmp_path: Path
) -> None:
    settings = signing
    load = publish(settings, tmp_path / "ids.tsv", EVENTS)
    with worker():
        load.wait()
        wait_drained(settings, load)
        cut = an_event_with(settings, "actor.email")
        run = run_cli("redact", "event", str(cut), "--field", "actor.email", "--reason", "drill")
        assert run.status == 0, run.err
        [hold] = run_cli(
            "hold", "add", "--tenant", "tenant-1", "--event", str(cut), "--reason", "drill",
            "--owner", "legal", "-o", "json",
        ).rows  # fmt: skip
        wait_until(lambda: len(set(stored(settings).values())) == 1, 60, "every store abreast")
    cli("signer", "run", "--once")
    before, seen = leaf_hashes(settings), look(settings, cut)
    assert "actor.email" not in seen.opened

    destroy(settings)
    cli("migrate")
    assert leaf_hashes(settings) == {}
    rows = json.loads(cli("restore", "--yes", "--output", "json"))

    assert leaf_hashes(settings) == before
    assert {row["log"].split("/")[0] for row in rows} <= set(RAW_TOPICS)
    erased = json.loads(cli("erase", "reapply", "-o", "json"))  # whom other tests erased here
    # Before any worker has run: what was cut is cut, what was held is held.
    assert "actor.email" not in look_in_ledger(settings, cut)
    assert hold["hold_id"] in run_cli("hold", "list", "-o", "json").out
    with worker():
        wait_until(
            lambda: abreast(settings, len(before)),
            180,
            lambda: f"{len(before)} everywhere, and what workers say since; {stored(settings)}",
        )
        for one in erased:
            cli("erase", "resume", one["request"])
        kept = run_cli("keeper", "run", "--once", "-o", "json")
        assert (
            kept.rows[0]["held"] >= 1
        )  # the redaction's event is under hold now: it is left as it is
        run_cli("hold", "release", hold["hold_id"])
        kept = run_cli("keeper", "run", "--once", "-o", "json")
        assert kept.status == 0, kept.err
    after = look(settings, cut)
    assert (after.opened, after.event.canonical) == (seen.opened, seen.event.canonical)
    assert after.document is not None
    assert after.document.get("user.email") is None
    assert compare_stores(settings).equal
    prove_roots(settings)
    cli("signer", "run", "--once")  # which brings the table of checkpoints back, too
    verified = run_cli("verify", "-o", "json")
    assert json.loads(verified.out)["listed"] == [], verified.err
    assert verified.status == 0


def abreast(settings: Settings, at_least: int) -> bool:
    found = set(stored(settings).values())
    return len(found) == 1 and min(found) >= at_least


def prove_roots(settings: Settings) -> None:
    """Every head that was rebuilt is the root of its leaves."""
    by_log: dict[str, list[tuple[int, bytes]]] = {}
    for (log, leaf), found in leaf_hashes(settings).items():
        by_log.setdefault(log, []).append((leaf, found))
    with connect(settings) as connection:
        heads = connection.execute("SELECT name, size, root FROM log_heads WHERE size > 0")
        for name, size, root in heads.fetchall():
            leaves = sorted(by_log[name])[:size]
            assert [leaf for leaf, _hash in leaves] == list(range(size))
            assert merkle_root([found for _leaf, found in leaves]) == bytes(root)


def destroy(settings: Settings) -> None:
    """The ledger's database and every index, as if their disks were gone."""
    url = settings.database_admin_url.get_secret_value()
    name = sql.Identifier(str(conninfo_to_dict(url)["dbname"]))
    with psycopg.connect(make_conninfo(url, dbname="postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))
    with searching(settings) as client:
        for index in client.indices.get(index=f"{settings.index_prefix}-*"):
            client.indices.delete(index=index)


def an_event_with(settings: Settings, path: str) -> UUID:
    """An event of tenant-1 whose actor has this value."""
    with connect(settings) as connection:
        row = connection.execute(
            "SELECT event_id FROM audit_logs WHERE tenant = 'tenant-1' AND event::text LIKE %s"
            " ORDER BY occurred_at DESC LIMIT 1",
            [f'%"{path}"%'],
        ).fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def look_in_ledger(settings: Settings, event: UUID) -> set[str]:
    """The paths of an event that open."""
    from tests.acceptance.keeping_support import with_tools

    async def ask(tools):  # type: ignore[no-untyped-def]
        from pipeline.domain.records import LeafRange
        from sinks.opening import BlobOpener

        log, leaf, _tenant = await tools.keeping.candidates.place(event)
        [(_leaf, found)] = [one async for one in tools.keeping.candidates.events(log, [leaf])]
        await BlobOpener(tools.keeping.keys)(LeafRange(log.log_id, log.name, leaf, [found]))
        return set(found.opened)

    return set(with_tools(settings, ask))
