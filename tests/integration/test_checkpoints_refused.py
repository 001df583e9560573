"""What contradicts what was signed is refused, on real servers, while the other logs go on."""

from __future__ import annotations

import psycopg
import pytest

from pipeline.compliance.checkpoint_store import (
    checkpoint_key,
)
from sinks.ledger import PostgresLedger
from tests.archive_support import Gateway
from tests.ledger_support import (
    Database,
    anyio_backend,
    database,
    template,
)
from tests.signing_support import (
    GrowingLog,
    SignerOf,
    dropped,
    gateway,
    signed,
)

__all__ = ["anyio_backend", "database", "dropped", "gateway", "signed", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


async def refused(of: SignerOf, log: GrowingLog, other: GrowingLog) -> str:
    """Why a log is refused while another one is signed; nothing of it was given out."""
    before = await of.sizes(log.name)
    published = await of.objects.published(log.name)
    await other.grow(1)

    done = await of.signer.round()

    assert done.refused == [str(log.name)]
    assert (await of.sizes(other.name))[-1] == other.head.size
    assert await of.sizes(log.name) == before
    assert await of.objects.published(log.name) == published
    assert of.metrics.registry.get_sample_value("audit_signer_refused_logs") == 1
    return of.signer.states[log.name].refused


def superuser(database: Database, table: str, *statements: str) -> None:
    """What no role may: the triggers are switched off first."""
    with psycopg.connect(database.urls["admin"], autocommit=True) as admin:
        admin.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        for statement in statements:
            admin.execute(statement)


async def test_a_changed_head_is_refused_and_accepted_again_once_it_is_mended(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], database: Database
) -> None:
    of, log, other = signed
    root = log.head.root
    database.run(
        "admin",
        "UPDATE log_heads SET root = sha256('x') WHERE log_id = %s",
        [log.head.log_id],
    )

    why = await refused(of, log, other)
    database.run(
        "admin", "UPDATE log_heads SET root = %s WHERE log_id = %s", [root, log.head.log_id]
    )
    done = await of.signer.round()

    assert "does not follow" in why
    assert done.refused == []
    assert of.metrics.registry.get_sample_value("audit_signer_refused_logs") == 0


async def test_a_new_leaf_whose_hash_was_changed_is_refused(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], database: Database
) -> None:
    of, log, other = signed
    await log.grow(50)
    superuser(
        database,
        "leaves",
        f"UPDATE leaves SET leaf_hash = sha256('x') WHERE log_id = {log.head.log_id}"
        " AND leaf_index = 320",
    )

    assert "does not follow" in await refused(of, log, other)


async def test_a_missing_new_leaf_is_named(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], database: Database
) -> None:
    of, log, other = signed
    await log.grow(50)
    superuser(
        database,
        "leaves",
        f"DELETE FROM leaves WHERE log_id = {log.head.log_id} AND leaf_index = 320",
    )

    assert "leaf 320 is missing" in await refused(of, log, other)


async def test_a_history_that_was_rewritten_whole_is_refused(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], database: Database
) -> None:
    of, log, other = signed
    superuser(
        database,
        "leaves",
        f"DELETE FROM leaves WHERE log_id = {log.head.log_id}",
    )
    database.run(
        "admin",
        "UPDATE log_heads SET size = 0, root = sha256(''), frontier = '' WHERE log_id = %s",
        [log.head.log_id],
    )
    ledger = PostgresLedger(database.urls["writer"])
    log.head = await ledger.head(log.head.log_id)
    await ledger.close()
    await log.grow(350)  # consistent in itself: root, frontier, leaves

    assert "does not follow" in await refused(of, log, other)


async def test_a_checkpoint_that_the_ledger_knows_and_the_bucket_lost_is_refused(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], gateway: Gateway
) -> None:
    of, log, other = signed
    await log.grow(1)
    key = checkpoint_key(log.name, 300)
    version = gateway.s3.client.head_object(Bucket=gateway.archive, Key=key)["VersionId"]
    gateway.s3.client.delete_object(
        Bucket=gateway.archive, Key=key, VersionId=version, BypassGovernanceRetention=True
    )

    before = await of.objects.published(log.name)
    await other.grow(1)
    done = await of.signer.round()

    assert done.refused == [str(log.name)]
    assert "does not have it" in of.signer.states[log.name].refused
    assert await of.objects.published(log.name) == before


async def test_another_root_in_the_table_is_refused(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], database: Database
) -> None:
    of, log, other = signed
    await log.grow(1)
    superuser(
        database,
        "checkpoints",
        f"UPDATE checkpoints SET root = sha256('x') WHERE log_id = {log.head.log_id}",
    )

    assert "another root" in await refused(of, log, other)


async def test_what_is_put_over_a_checkpoint_or_deletes_it_changes_nothing(
    signed: tuple[SignerOf, GrowingLog, GrowingLog], gateway: Gateway
) -> None:
    of, log, _ = signed
    key = checkpoint_key(log.name, 300)
    gateway.s3.client.put_object(Bucket=gateway.archive, Key=key, Body=b"forged")
    gateway.s3.client.delete_object(Bucket=gateway.archive, Key=key)
    await log.grow(1)

    done = await of.signer.round()

    assert done.refused == []
    assert await of.sizes(log.name) == [300, 301]
