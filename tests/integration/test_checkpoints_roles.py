"""The roles of whoever signs and verifies."""

from __future__ import annotations

import psycopg
import pytest

from tests.ledger_support import (
    Database,
    anyio_backend,
    database,
    template,
)
from tests.signing_support import (
    dropped,
    gateway,
    signed,
)

__all__ = ["anyio_backend", "database", "dropped", "gateway", "signed", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


async def test_the_signer_may_do_its_task_and_no_more(database: Database) -> None:
    for statement in (
        "SELECT * FROM audit_logs",
        "SELECT * FROM audit_blobs",
        "SELECT event_id FROM leaves",
        "SELECT wrapped_key FROM tenants",
        "SELECT * FROM audit_user",
        "SELECT * FROM dead_letter_key",
        "UPDATE log_heads SET size = 0",
        "UPDATE checkpoints SET size = 1",
        "DELETE FROM checkpoints",
        "INSERT INTO leaves SELECT",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run("signer", statement)


async def test_the_auditor_reads_what_is_sealed_and_no_key(database: Database) -> None:
    for table in ("audit_logs", "audit_blobs", "leaves", "intake", "log_heads", "checkpoints"):
        database.run("auditor", f"SELECT count(*) FROM {table}")
    for statement in (
        "SELECT wrapped_key FROM tenants",
        "SELECT wrapped_key FROM audit_user",
        "SELECT subject_hash FROM audit_user",
        "SELECT wrapped_key FROM dead_letter_key",
        "SELECT raw_key_hash FROM dead_letter_key",
        "INSERT INTO checkpoints SELECT",
        "DELETE FROM audit_blobs",
        "SELECT subject_keys_by_ref('{}')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run("auditor", statement)


@pytest.mark.parametrize("role", ["writer", "redactor", "reader", "auditor"])
async def test_nobody_but_the_signer_adds_a_checkpoint(database: Database, role: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run(role, "INSERT INTO checkpoints SELECT")
