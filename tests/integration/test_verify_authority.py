"""What is missing counts as erased, redacted or expired only under a leaf that commits to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from pipeline.compliance.findings import Kind, Store
from pipeline.compliance.verify_state import Progress
from pipeline.domain.orders import order_key
from pipeline.keys.seal import open_blob, seal_values
from sinks.archive_format import blobs_key
from tests.index_support import KEY, sign_ins
from tests.integration.test_verify_stores import destroy
from tests.ledger_support import anyio_backend, database, template
from tests.removal_support import FAR, OTHER, Removing, removing
from tests.trail_support import a_trail, found, of

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

MONTH = "2025-10"  # of the trail's first twelve events
KEY_REF = UUID(bytes=KEY.ref)


@pytest.fixture
async def made(database: Any) -> AsyncIterator[Removing]:
    async with a_trail(database) as trail:
        await trail.store(sign_ins(3, key=OTHER, retention_class="short"))  # the leaves 25 to 27
        async with removing(trail, now=FAR) as everything:
            yield everything


def granted(progress: Progress) -> dict[tuple[str, str], tuple[str, int]]:
    """(how, part) → request and count."""
    return {
        (row["authority"], row["part"]): (row["request_id"], row["count"])
        for row in progress.findings.authorities()
    }


def authority_findings(progress: Progress) -> list[tuple[Kind, str | None]]:
    return [
        (one.kind, one.place) for one in progress.findings.listed if one.store is Store.AUTHORITY
    ]


# --- erasure ---


async def test_what_was_erased_is_counted_with_each_of_its_leaves(made: Removing) -> None:
    request = await made.erase()

    progress = await made.verify()

    assert found(progress) == []
    assert granted(progress) == {("erased", "key"): (str(request), 25)}
    assert all(not log.differing for log in progress.logs)


async def test_another_key_that_is_gone_has_no_authority(made: Removing) -> None:
    request = await made.erase()
    made.trail.spoil(
        "UPDATE audit_user SET wrapped_key = NULL, erased_at = now()"
        f" WHERE subject_ref = '{UUID(bytes=OTHER.ref)}'",
        # Whoever adds the person to the request makes it another one than its leaf says.
        "UPDATE redaction_request SET subject_refs = subject_refs"
        f" || '{UUID(bytes=OTHER.ref)}'::uuid",
    )

    progress = await made.verify()

    assert authority_findings(progress) == [(Kind.INCONSISTENT, str(request))]
    gone = of(progress, Kind.MISSING, Store.LEDGER)
    assert {one.leaf for one in gone} == {0, 25}
    assert any(f"the key of subject {OTHER.ref.hex()}" in one.what for one in gone)
    assert granted(progress) == {}


async def test_a_leaf_that_was_added_to_an_erasure(made: Removing) -> None:
    request = await made.erase()
    made.trail.spoil(
        "INSERT INTO redaction_leaf SELECT request_id, log_id, 25 FROM redaction_leaf LIMIT 1"
    )

    progress = await made.verify()

    assert authority_findings(progress) == [(Kind.INCONSISTENT, str(request))]
    assert [one.leaf for one in of(progress, Kind.MISSING, Store.LEDGER)] == [0]
    assert granted(progress) == {}


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE redaction_request SET steps = steps - 'draft subject.erased'", Kind.MISSING),
        ("UPDATE redaction_request SET subject_hashes = ARRAY[sha256('x')]", Kind.INCONSISTENT),
        (
            "UPDATE redaction_request SET subject_refs = subject_refs || gen_random_uuid()",
            Kind.INCONSISTENT,
        ),
        (
            """UPDATE redaction_request SET steps = jsonb_set(steps, '{draft subject.erased,event_id}',
            steps #> '{draft subject.erase,event_id}')""",
            Kind.INCONSISTENT,
        ),
    ],
)
async def test_an_erasure_whose_leaf_is_not_of_it(
    made: Removing, statement: str, kind: Kind
) -> None:
    request = await made.erase()
    made.trail.spoil(statement)

    progress = await made.verify()

    assert authority_findings(progress) == [(kind, str(request))]
    assert len(of(progress, Kind.MISSING, Store.LEDGER)) == 1  # the key, named once
    assert granted(progress) == {}


# --- redaction ---


async def test_what_was_redacted_is_counted(made: Removing) -> None:
    request = await made.redact(4, "actor.id")

    progress = await made.verify()

    assert found(progress) == []
    assert granted(progress) == {("redacted", "value"): (str(request), 1)}


def cut(made: Removing, leaf: int, path: str) -> None:
    """As a superuser with the key: a value out of the blob, under a fresh nonce, and nothing said."""
    event = made.trail.events[leaf]
    [row] = made.trail.database.run(
        "admin",
        "SELECT nonce, ciphertext FROM audit_blobs WHERE log_id = %s AND leaf_index = %s",
        [made.trail.head.log_id, leaf],
    )
    blob = event.blobs[0]._replace(nonce=row[0], ciphertext=row[1])
    values = open_blob(KEY, event.event_id, blob)
    del values[path]
    again = seal_values(KEY, event.event_id, values)
    made.trail.spoil(
        "UPDATE audit_blobs SET nonce = %s, ciphertext = %s WHERE log_id = %s AND leaf_index = %s",
        values=[again.nonce, again.ciphertext, made.trail.head.log_id, leaf],
    )


@pytest.mark.parametrize("leaf", [4, 5])
async def test_another_value_that_is_gone_has_no_authority(made: Removing, leaf: int) -> None:
    """Out of the event that was redacted, or out of another one."""
    await made.redact(4, "actor.id")
    other = "labels" if leaf == 4 else "actor.id"
    cut(made, leaf, other)

    progress = await made.verify(stores=("ledger", "index"))

    [finding] = of(progress, Kind.MISSING, Store.LEDGER)
    assert finding.leaf == leaf
    assert f"the value {other}" in finding.what


async def test_a_blob_that_was_redacted_is_not_to_be_gone(made: Removing) -> None:
    """A redaction leaves the blob, with what is left."""
    await made.redact(4, "actor.id")
    made.trail.spoil("DELETE FROM audit_blobs WHERE leaf_index = 4 AND log_id = 1")

    progress = await made.verify()

    assert (Kind.MISSING, Store.LEDGER, 4) in found(progress)


async def test_an_order_that_is_gone_or_was_replaced(made: Removing) -> None:
    request = await made.redact(4, "actor.id")
    key, client = order_key(request), made.trail.gateway.s3.client
    body = client.get_object(Bucket=made.trail.gateway.archive, Key=key)["Body"].read()
    destroy(made.trail, made.trail.gateway.archive, key)
    client.put_object(
        Bucket=made.trail.gateway.archive, Key=key, Body=body.replace(b"actor.id", b"actor.ip")
    )

    replaced = await made.verify()
    destroy(made.trail, made.trail.gateway.archive, key)
    gone = await made.verify()

    assert authority_findings(replaced) == [(Kind.INCONSISTENT, key)]
    for progress in (replaced, gone):
        [finding] = of(progress, Kind.MISSING, Store.LEDGER)
        assert (finding.leaf, "actor.id" in finding.what) == (4, True)


async def test_an_order_that_no_leaf_names(made: Removing) -> None:
    """Somebody who can write to the bucket, and to the database, but not to the trail."""
    request = await made.redact(4, "actor.id")
    key, client = order_key(request), made.trail.gateway.s3.client
    body = client.get_object(Bucket=made.trail.gateway.archive, Key=key)["Body"].read()
    forged = UUID(int=77)
    body = body.replace(str(request).encode(), str(forged).encode()).replace(b"[[4,", b"[[5,")
    client.put_object(Bucket=made.trail.gateway.archive, Key=order_key(forged), Body=body)
    cut(made, 5, "actor.id")

    progress = await made.verify(stores=("ledger", "index"))

    assert authority_findings(progress) == [(Kind.MISSING, order_key(forged))]
    assert [one.leaf for one in of(progress, Kind.MISSING, Store.LEDGER)] == [5]
    assert granted(progress) == {("redacted", "value"): (str(request), 1)}


# --- expiry ---


async def test_a_month_that_expired_is_counted(made: Removing) -> None:
    request = str(await made.expire(MONTH, {}))

    progress = await made.verify()

    assert found(progress) == []
    # The three of OTHER happened in that month, too.
    assert granted(progress) == {
        ("expired", "event"): (request, 15),
        ("expired", "blob"): (request, 15),
    }
    assert all(not log.differing for log in progress.logs)


async def test_another_month_that_was_dropped_has_no_authority(made: Removing) -> None:
    request = str(await made.expire(MONTH, {}))
    made.trail.spoil("DROP TABLE audit_logs_2025_11", "DROP TABLE audit_blobs_2025_11")

    progress = await made.verify(stores=("ledger", "archive"))

    assert progress.findings.count(Kind.MISSING, Store.LEDGER) == 13
    assert granted(progress)["expired", "event"] == (request, 15)


async def test_a_late_event_of_a_month_that_expired_is_not_to_be_gone(made: Removing) -> None:
    await made.expire(MONTH, {})
    await made.trail.store(sign_ins(1))
    made.trail.spoil("DELETE FROM audit_logs WHERE leaf_index = 28")

    progress = await made.verify()

    assert (Kind.MISSING, Store.LEDGER, 28) in found(progress)


async def test_bounds_that_were_widened(made: Removing) -> None:
    request = await made.expire(MONTH, {})
    key, client = order_key(request), made.trail.gateway.s3.client
    body = client.get_object(Bucket=made.trail.gateway.archive, Key=key)["Body"].read()
    destroy(made.trail, made.trail.gateway.archive, key)
    wider = body.replace(b'/1":28', b'/1":29')
    assert wider != body
    client.put_object(Bucket=made.trail.gateway.archive, Key=key, Body=wider)

    progress = await made.verify()

    assert authority_findings(progress) == [(Kind.INCONSISTENT, key)]
    assert progress.findings.count(Kind.MISSING, Store.LEDGER) == 15
    assert granted(progress) == {}


async def test_a_class_that_expired_is_counted_and_no_other_blob(made: Removing) -> None:
    request = str(await made.expire(MONTH, {("acme", "short"): 10, ("acme", ""): 20_000}))

    progress = await made.verify()

    assert found(progress) == []
    assert granted(progress) == {("expired", "blob"): (request, 6)}  # in ledger and vault

    made.trail.spoil("DELETE FROM audit_blobs WHERE leaf_index = 3")
    again = await made.verify()

    assert found(again) == [(Kind.MISSING, Store.LEDGER, 3)]
    assert granted(again) == {("expired", "blob"): (request, 6)}


async def test_a_vault_object_may_go_with_all_of_its_month(made: Removing) -> None:
    await made.expire(MONTH, {})
    client, vault = made.trail.gateway.s3.client, made.trail.gateway.vault
    client.delete_object(Bucket=vault, Key=blobs_key(made.trail.head.name, 0))
    expired = await made.verify()
    client.delete_object(Bucket=vault, Key=blobs_key(made.trail.head.name, 12))

    progress = await made.verify()

    assert found(expired) == []
    assert granted(expired)["expired", "vault object"][1] == 1
    assert found(progress) == [(Kind.MISSING, Store.VAULT, 12)]


async def test_an_expiry_after_an_erasure_and_a_redaction(made: Removing) -> None:
    """Each has its own authority, and what is gone with the month is missing no more."""
    redacted, erased = await made.redact(14, "actor.id"), await made.erase(OTHER)
    await made.expire(MONTH, {})

    progress = await made.verify()

    assert found(progress) == []
    assert granted(progress)["redacted", "value"] == (str(redacted), 1)
    assert str(erased) not in str(granted(progress))  # its events have expired since
