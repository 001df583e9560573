"""Expiry on real servers, while a worker runs: what is past retention goes, leaves and proofs stay."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.compliance.expiry import RETENTION_PASSED, Assessed
from pipeline.domain.errors import Held
from pipeline.domain.logs import LogName
from pipeline.domain.merkle import leaf_hash, merkle_root
from pipeline.entrypoints.cli.compare import compare_stores
from pipeline.entrypoints.cli.keeping import Tools, expiring
from pipeline.entrypoints.cli.stores import searching
from pipeline.settings import Settings
from sinks.archive_reader import ArchiveReader
from tests.acceptance.keeping_support import a_change, connect, look, run_cli, send, with_tools
from tests.acceptance.records import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

FAR = datetime(2035, 1, 1, tzinfo=UTC)  # past the retention of everything that is stored now


def at_us(year: int, month: int, day: int = 9) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1_000_000


def due(settings: Settings, month: str, now: datetime) -> list[Assessed]:
    """What is due of a month at a time."""

    async def ask(tools: Tools) -> list[Assessed]:
        found = await (await expiring(tools)).assess()
        return [one for one in found if f"{one.due.scope.month:%Y-%m}" == month]

    return with_tools(settings, ask, now=now)


def let_go(settings: Settings, one: Assessed, now: datetime) -> dict[str, Any]:
    async def run(tools: Tools) -> dict[str, Any]:
        request = await (await expiring(tools)).let_go(one, reason=RETENTION_PASSED)
        assert request is not None
        return {"id": request.request_id, "event": request.event_id, "root": request.root,
                **request.counts}  # fmt: skip

    return with_tools(settings, run, now=now)


def test_a_month_past_retention_goes_from_every_store_and_its_leaves_stay(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    ids = send(
        settings,
        registered,
        *(a_change(f"u-exp-{n}", at_us=at_us(2021, 3, 1 + n)) for n in range(9)),
    )
    before = {event: look(settings, event) for event in ids[:2]}
    size = month_bytes(settings, "2021_03")
    assert size > 0
    assert due(settings, "2021-03", datetime.now(UTC)) == []
    [one] = due(settings, "2021-03", FAR)
    assert (one.state, one.due.scope.tenant, one.due.events) == ("ready", None, 9)
    assert one.size_bytes == size

    freed = let_go(settings, one, FAR)

    assert freed["ledger_bytes"] == size
    assert freed["index_bytes"] > 0
    assert freed["vault_bytes"] > 0
    assert freed["vault_blobs"] >= 9
    assert month_bytes(settings, "2021_03") == 0
    with searching(settings) as client:
        assert not client.indices.exists(index=f"{settings.index_prefix}-2021.03")
    with connect(settings) as connection:
        leaves = dict(
            connection.execute(
                "SELECT event_id, leaf_hash FROM leaves WHERE event_id = ANY (%s)", [ids]
            ).fetchall()
        )
        authority = connection.execute(
            "SELECT event #>> '{clear,authority.root}', event #>> '{clear,operation}' FROM audit_logs"
            " WHERE event_id = %s",
            [freed["event"]],
        ).fetchone()
    assert all(
        bytes(leaves[event]) == leaf_hash(seen.event.canonical) for event, seen in before.items()
    )
    assert authority == (freed["root"].hex(), "expiry")
    assert archived_without_blobs(settings, ids) == 9
    prove_roots(settings)
    wait_until(lambda: compare_stores(settings).equal, 30)
    # It is not gone for good: what comes late has its month again, and is not under the old order.
    [late] = send(settings, registered, a_change("u-exp-late", at_us=at_us(2021, 3)))
    with pytest.raises(Held, match="came after the order"):
        with_tools(settings, lambda tools: drop_again(tools, freed["id"]))
    assert look(settings, late).document is not None
    wait_until(lambda: compare_stores(settings).equal, 30)


def test_a_held_month_stays(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    [event] = send(settings, registered, a_change("u-exp-held", at_us=at_us(2021, 4)))
    [hold] = run_cli(
        "hold", "add", "--tenant", "acme", "--from", "2021-04-01", "--until", "2021-05-01",
        "--reason", "case 9", "--owner", "legal", "-o", "json",
    ).rows  # fmt: skip
    [one] = due(settings, "2021-04", FAR)
    assert (one.state, one.detail) == ("held", hold["hold_id"])

    with pytest.raises(Held):
        let_go(settings, replace(one, state="ready"), FAR)

    assert look(settings, event).opened["changes.1.old"] == "Bonn"
    run_cli("hold", "release", hold["hold_id"])
    kept = with_tools(settings, lambda tools: unfinished(tools, "2021-04"), now=FAR)
    assert kept == 1
    assert month_bytes(settings, "2021_04") == 0
    wait_until(lambda: compare_stores(settings).equal, 30)


def test_an_event_that_comes_while_its_month_goes_is_in_every_store(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    send(settings, registered, a_change("u-exp-first", at_us=at_us(2021, 7)))
    [one] = due(settings, "2021-07", FAR)
    late: list[Any] = []

    async def run(tools: Tools) -> None:
        class Late:
            """The index, before whose month is dropped an event of it comes, and is indexed."""

            def __getattr__(self, name: str) -> Any:
                return getattr(tools.keeping.index, name)

            async def drop_month(self, month: str) -> int:
                change = a_change("u-exp-late", at_us=at_us(2021, 7))
                late.extend(await asyncio.to_thread(send, settings, registered, change))
                return await tools.keeping.index.drop_month(month)

        keeping = replace(tools.keeping, index=Late())  # type: ignore[arg-type]
        await (await expiring(replace(tools, keeping=keeping))).let_go(one, reason="a test")

    with_tools(settings, run, now=FAR)

    assert look(settings, late[0]).document is not None
    wait_until(lambda: compare_stores(settings).equal, 30)


def test_of_a_class_that_is_kept_shorter_the_personal_data_goes(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    short, standard = send(
        settings,
        registered,
        a_change("u-exp-short", at_us=at_us(2021, 5), retention_class="short"),
        a_change("u-exp-long", at_us=at_us(2021, 5)),
    )
    run_cli("retention", "set", "--tenant", "acme", "--class", "short", "--days", "10")
    soon = datetime.now(UTC) + timedelta(days=5)
    later = datetime.now(UTC) + timedelta(days=11)
    try:
        assert due(settings, "2021-05", soon) == []
        [one] = due(settings, "2021-05", later)
        assert (one.due.scope.tenant, one.due.scope.class_, one.due.events) == ("acme", "short", 1)

        freed = let_go(settings, one, later)

        assert freed["blobs"] == freed["vault_blobs"] == 1
        gone, stays = look(settings, short), look(settings, standard)
        assert (gone.event.blobs, gone.vault_blobs) == ([], [])
        assert gone.document is not None
        assert "user" not in str(gone.document.get("user.id", ""))
        assert "u-exp-short" not in str(gone.document)
        assert leaf_hash(gone.event.canonical) == gone.event.leaf_hash
        assert stays.opened["changes.1.old"] == "Bonn"
        assert due(settings, "2021-05", later) == []
        wait_until(lambda: compare_stores(settings).equal, 30)
    finally:
        run_cli("retention", "remove", "--tenant", "acme", "--class", "short")


def test_what_is_not_as_archived_stays(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    from pipeline.domain.errors import ChainBroken

    [event] = send(settings, registered, a_change("u-exp-bad", at_us=at_us(2021, 6)))
    [one] = due(settings, "2021-06", FAR)

    async def with_broken_archive(tools: Tools) -> None:
        class Broken(ArchiveReader):
            async def read(self, *_: object) -> Any:
                raise ChainBroken("log", "the body is not what was stored")

        broken = Broken(
            tools.objects,
            archive_bucket=settings.s3_archive_bucket,
            vault_bucket=settings.s3_vault_bucket,
        )
        keeping = replace(tools.keeping, archive=broken)
        work = await expiring(replace(tools, keeping=keeping))
        await work.let_go(one, reason=RETENTION_PASSED)

    with pytest.raises(ChainBroken):
        with_tools(settings, with_broken_archive, now=FAR)

    assert look(settings, event).opened["changes.1.old"] == "Bonn"


async def drop_again(tools: Tools, request_id: Any) -> None:
    """As whoever would use an old order for what came since."""
    with connect(tools.settings, "admin") as admin:
        admin.execute(
            "UPDATE removal_request SET state = 'ordered', done_at = NULL WHERE request_id = %s",
            [request_id],
        )
    try:
        await tools.keeping.removals.drop_month(datetime(2021, 3, 1, tzinfo=UTC), request_id)
    finally:
        with connect(tools.settings, "admin") as admin:
            admin.execute(
                "UPDATE removal_request SET state = 'done', done_at = now() WHERE request_id = %s",
                [request_id],
            )


async def unfinished(tools: Tools, month: str) -> int:
    """Carry out what a hold had stopped; how many requests of a month are done then."""
    work = await expiring(tools)
    done = 0
    for request in await tools.keeping.removals.all():
        if request.month and f"{request.month:%Y-%m}" == month and request.state != "done":
            done += (await work.carry_out(request.request_id)).state == "done"
    return done


def month_bytes(settings: Settings, month: str) -> int:
    with connect(settings, "admin") as admin:
        row = admin.execute(
            "SELECT coalesce(pg_total_relation_size(to_regclass(%s)), 0)"
            " + coalesce(pg_total_relation_size(to_regclass(%s)), 0)",
            [f"audit_logs_{month}", f"audit_blobs_{month}"],
        ).fetchone()
    return int(row[0]) if row else 0


def archived_without_blobs(settings: Settings, ids: list[Any]) -> int:
    """How many of these the archive still has, sealed, and without a blob."""

    async def ask(tools: Tools) -> int:
        wanted = {event.bytes for event in ids}
        found = 0
        for log in await tools.keeping.candidates.logs():
            if log.name.topic == "audit.raw.profile-update":
                async for one in tools.keeping.archive.ranges(LogName.parse(str(log.name))):
                    leaves = await tools.keeping.archive.read(one, log.log_id)
                    found += sum(
                        event.event_id in wanted and not event.blobs for event in leaves.events
                    )
        return found

    return with_tools(settings, ask)


def prove_roots(settings: Settings) -> None:
    """Every log's head is the root of its leaves: a proof that was given out before still verifies."""
    with connect(settings) as connection:
        heads = connection.execute(
            "SELECT log_id, size, root FROM log_heads WHERE topic = 'audit.raw.profile-update'"
        ).fetchall()
        for log_id, size, root in heads:
            rows = connection.execute(
                "SELECT leaf_hash FROM leaves WHERE log_id = %s AND leaf_index < %s"
                " ORDER BY leaf_index",
                [log_id, size],
            ).fetchall()
            assert merkle_root([bytes(row[0]) for row in rows]) == bytes(root)
