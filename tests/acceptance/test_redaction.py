"""Redaction on real servers, while a worker runs: values go from every store, every proof stays."""

from __future__ import annotations

import json
import subprocess
from uuid import UUID, uuid4

import psycopg
import pytest

from pipeline.domain.merkle import leaf_hash, merkle_root
from pipeline.domain.orders import decode_order, order_key
from pipeline.entrypoints.cli.compare import compare_stores
from pipeline.settings import Settings
from tests.acceptance.keeping_support import (
    CARD,
    a_change,
    connect,
    look,
    run_cli,
    send,
    with_tools,
)
from tests.acceptance.records import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

RULE = ["--field", "changes.*", "--value", "card-number", "--reason", "PCI DSS"]


def test_a_card_number_is_cut_from_every_store_and_the_proof_stays(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    cut, other = send(settings, registered, a_change("u-cut"), a_change("u-other"))
    before = look(settings, cut)
    assert CARD in json.dumps(before.document)

    preview = run_cli("redact", "event", str(cut), *RULE, "--dry-run", "-o", "json")
    assert preview.rows == [{"path": "changes.0.old", "values": 1}]
    assert look(settings, cut).vault_blobs == before.vault_blobs
    done = run_cli("redact", "event", str(cut), *RULE, "-o", "json")

    assert done.status == 0, done.err
    after = look(settings, cut)
    assert "changes.0.old" not in after.opened
    assert after.opened["changes.1.old"] == "Bonn"
    assert after.event.canonical == before.event.canonical
    assert leaf_hash(after.event.canonical) == after.event.leaf_hash
    assert [tuple(blob) for blob in after.vault_blobs] == [tuple(b) for b in after.event.blobs]
    assert after.event.blobs[0].nonce != before.event.blobs[0].nonce
    assert CARD not in json.dumps(after.document)
    assert "Bonn" in json.dumps(after.document)
    assert CARD in json.dumps(look(settings, other).document)
    wait_until(lambda: compare_stores(settings).equal, 30)


def test_the_trail_says_by_whose_order_before_anything_is_cut(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    [event] = send(settings, registered, a_change("u-order"))

    [row] = run_cli("redact", "event", str(event), *RULE, "-o", "json", AUDIT_OPERATOR="ann").rows

    with connect(settings) as connection:
        flag = connection.execute(
            "SELECT paths, reason, redacted_by, redacted_at IS NOT NULL FROM redaction_flag"
            " WHERE request_id = %s",
            [row["request_id"]],
        ).fetchall()
        hashes = connection.execute(
            "SELECT leaf_hash FROM redaction_flag JOIN leaves USING (log_id, leaf_index)"
            " WHERE request_id = %s",
            [row["request_id"]],
        ).fetchall()
        authority = connection.execute(
            "SELECT event -> 'clear', stored_at, family FROM audit_logs WHERE event_id = %s",
            [row["event_id"]],
        ).fetchone()
    assert flag == [(["changes.0.old"], "PCI DSS", "ann", True)]
    assert authority is not None
    clear = authority[0]
    assert authority[2] == "system"
    assert clear["operation"] == "redaction"
    assert clear["authority.request_id"] == row["request_id"]
    assert clear["authority.leaves"] == 1
    assert (
        clear["authority.root"] == merkle_root([bytes(h) for (h,) in hashes]).hex() == row["root"]
    )

    async def stored_order(tools):  # type: ignore[no-untyped-def]
        return await tools.objects.get(
            settings.s3_archive_bucket, order_key(UUID(row["request_id"]))
        )

    stored = with_tools(settings, stored_order)
    order = decode_order(stored.body)
    assert order.hash().hex() == clear["authority.order_hash"]
    assert CARD not in stored.body.decode()
    assert "u-order" not in stored.body.decode()


def test_a_held_event_is_left_as_it_is_until_the_hold_is_released(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    [event] = send(settings, registered, a_change("u-held"))
    [hold] = run_cli(
        "hold", "add", "--tenant", "acme", "--id-type", "user_id", "--subject", "u-held",
        "--reason", "case 7", "--owner", "legal", "-o", "json",
    ).rows  # fmt: skip

    refused = run_cli("redact", "event", str(event), *RULE)

    assert refused.status == 1
    assert hold["hold_id"] in refused.err
    assert "changes.0.old" in look(settings, event).opened
    assert s3_held(settings, event)
    with connect(settings, "redactor") as redactor:
        for statement in ("DELETE FROM audit_blobs", "UPDATE audit_blobs SET ciphertext = 'x'"):
            with pytest.raises(psycopg.errors.ObjectInUse, match="legal hold"):
                redactor.execute(
                    f"{statement} WHERE leaf_index ="
                    " (SELECT leaf_index FROM leaves WHERE event_id = %s)",
                    [event],
                )
    with connect(settings, "admin") as admin, pytest.raises(psycopg.errors.ObjectInUse):
        admin.execute(
            "UPDATE audit_user SET wrapped_key = NULL, erased_at = now() WHERE subject_hash ="
            " (SELECT subject_hash FROM legal_hold WHERE hold_id = %s)",
            [hold["hold_id"]],
        )
    released = run_cli("hold", "release", hold["hold_id"], "-o", "json")
    assert released.rows[0]["state"] == "released"
    assert not s3_held(settings, event)
    assert run_cli("redact", "event", str(event), *RULE).status == 0
    assert "changes.0.old" not in look(settings, event).opened


def test_a_hold_that_comes_after_the_request_stops_it_and_it_is_resumed(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    from pipeline.compliance.patterns import FieldRule
    from pipeline.compliance.redaction import Redaction

    [event] = send(settings, registered, a_change("u-late-hold"))

    async def order(tools):  # type: ignore[no-untyped-def]
        redaction = Redaction(tools.keeping)
        plan = await redaction.plan_event(event, FieldRule(("changes.*",), (), "card-number"))
        return await redaction.order(plan, reason="PCI DSS")

    [request] = with_tools(settings, order)
    [hold] = run_cli(
        "hold", "add", "--tenant", "acme", "--event", str(event), "--reason", "case 8",
        "--owner", "legal", "-o", "json",
    ).rows  # fmt: skip
    stopped = run_cli("redact", "resume", str(request))
    run_cli("hold", "release", hold["hold_id"])
    resumed = run_cli("redact", "resume", str(request), "-o", "json")

    assert stopped.status == 1
    assert "legal hold" in stopped.err
    assert resumed.rows[0]["state"] == "done"
    assert "changes.0.old" not in look(settings, event).opened
    assert run_cli("redact", "resume", str(request), "-o", "json").rows == resumed.rows


def test_a_policy_cuts_what_is_old_enough_and_nothing_younger(
    settings: Settings, registered: dict[str, int], worker: subprocess.Popen[bytes]
) -> None:
    from datetime import UTC, datetime, timedelta

    from pipeline.compliance.patterns import FieldRule
    from pipeline.compliance.policy_file import RedactionPolicy
    from pipeline.compliance.policy_run import PolicyRun
    from pipeline.entrypoints.cli.keeping import policy_store

    [event] = send(settings, registered, a_change("u-policy"))
    rule = FieldRule(("changes.*",), (), "card-number")
    policy = RedactionPolicy(f"cards-{uuid4().hex[:8]}", "PCI DSS", rule, 30, tenants=("acme",))

    async def apply(tools):  # type: ignore[no-untyped-def]
        async with policy_store(settings) as store:
            await store.set(policy, by="test")
            assert policy in await store.all()
            try:
                return await PolicyRun(tools.keeping, store).apply(policy)
            finally:
                await store.remove(policy.name)

    young = with_tools(settings, apply)
    assert young.events == 0
    assert "changes.0.old" in look(settings, event).opened
    later = datetime.now(UTC) + timedelta(days=31)
    old = with_tools(settings, apply, now=later)
    again = with_tools(settings, apply, now=later)

    assert old.events >= 1
    assert again.events == 0
    assert "changes.0.old" not in look(settings, event).opened
    wait_until(lambda: compare_stores(settings).equal, 30)


def s3_held(settings: Settings, event: UUID) -> bool:
    """Whether the archive object with an event has an S3 legal hold."""

    async def ask(tools):  # type: ignore[no-untyped-def]
        log, leaf, _tenant = await tools.keeping.candidates.place(event)
        [(found, _)] = [one async for one in tools.keeping.objects(log, [leaf])]
        return await tools.archive_holds.is_held(found)

    return bool(with_tools(settings, ask))
