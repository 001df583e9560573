"""What each role may do, and what nobody may: shown as these roles."""

from __future__ import annotations

import psycopg
import pytest

from sinks.ledger import PostgresLedger
from tests.ledger_support import (
    Database,
    a_batch,
    a_sealed_event,
    anyio_backend,
    database,
    template,
)

__all__ = ["anyio_backend", "database", "template"]  # fixtures

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

CHANGES = [
    "UPDATE {} SET occurred_at = now()",
    "UPDATE {} SET occurred_at = now() WHERE false",
    "DELETE FROM {}",
    "TRUNCATE {}",
]


@pytest.fixture
async def stored(database: Database) -> Database:
    """A database with one event of each of two tenants, one of them with a change."""
    ledger = PostgresLedger(database.urls["writer"])
    head = await ledger.open_log("audit.raw.profile-update", 0, cluster_id="c", topic_id="t")
    person = "00000000-0000-0000-0000-000000000007"
    changed = a_sealed_event(
        0,
        clear={
            "changes.0.path": "address.city",
            "changes.10.path": "email",
            "producer.service": "accounts",
            "producer.sequence": 12,
            "session.mfa": True,
        },
        sealed={person: {"changes.0.new": b"n" * 32, "changes.0.old": b"o" * 32}},
    )
    await ledger.write([a_batch(head, [changed, a_sealed_event(1, clear={"tenant": "globex"})])])
    await ledger.close()
    return database


@pytest.mark.parametrize("table", ["audit_logs", "audit_logs_2025_10", "leaves"])
@pytest.mark.parametrize("statement", CHANGES)
@pytest.mark.parametrize("role", ["writer", "redactor", "reader", "admin"])
async def test_nobody_changes_or_removes_a_leaf(
    stored: Database, role: str, statement: str, table: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stored.run(role, statement.format(table))


@pytest.mark.parametrize("table", ["audit_logs", "leaves", "intake"])
async def test_the_owner_is_refused_too_and_so_is_a_replica_session(
    stored: Database, table: str
) -> None:
    with psycopg.connect(stored.urls["admin"], autocommit=True) as session:
        session.execute("SET session_replication_role = replica")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            session.execute(f"DELETE FROM {table}")
        session.execute("RESET session_replication_role")
        session.execute("SET ROLE audit_owner")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            session.execute(f"TRUNCATE {table}")


@pytest.mark.parametrize("relation", ["audit_logs", "event_context", "event_changes"])
@pytest.mark.parametrize("role", ["reader", "redactor"])
async def test_a_reader_sees_the_tenant_that_it_names_and_no_other(
    stored: Database, role: str, relation: str
) -> None:
    seen = {}
    with psycopg.connect(stored.urls[role]) as session:
        for tenant in ("", "acme", "globex", "initech"):
            session.execute("SELECT set_config('audit.tenant', %s, true)", [tenant])
            rows = session.execute(f"SELECT DISTINCT tenant FROM {relation}")
            seen[tenant] = [row[0] for row in rows]

    globex = [] if relation == "event_changes" else ["globex"]
    assert seen == {"": [], "acme": ["acme"], "globex": globex, "initech": []}
    assert stored.run(role, f"SELECT * FROM {relation}") == []


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("reader", "SELECT * FROM audit_logs_2025_10"),
        ("reader", "SELECT * FROM audit_blobs"),
        ("reader", "SELECT * FROM audit_user"),
        ("reader", "SELECT * FROM tenants"),
        ("reader", "SELECT * FROM dead_letter_key"),
        ("reader", "SELECT ensure_month(now())"),
        ("writer", "SELECT * FROM audit_user"),
        ("writer", "INSERT INTO audit_user SELECT"),
        ("writer", "UPDATE audit_blobs SET nonce = nonce"),
        ("writer", "DELETE FROM audit_blobs"),
        ("writer", "UPDATE tenants SET wrapped_key = ''"),
        ("writer", "DELETE FROM dead_letter_key"),
        ("writer", "UPDATE erasure_state SET epoch = 1"),
        ("writer", "DELETE FROM log_heads"),
        ("writer", "UPDATE intake SET holes = 0"),
        ("writer", "CREATE TABLE mine ()"),
        ("writer", "SELECT make_month(now())"),
        ("writer", "ALTER TABLE audit_logs DISABLE TRIGGER ALL"),
        ("redactor", "INSERT INTO audit_blobs SELECT"),
        ("redactor", "UPDATE audit_blobs SET subject_ref = gen_random_uuid()"),
        ("redactor", "UPDATE log_heads SET size = 0"),
        ("redactor", "SELECT subject_keys_by_ref('{}')"),
    ],
)
async def test_a_role_may_not_do_what_is_not_its_work(
    stored: Database, role: str, statement: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stored.run(role, statement)


async def test_the_redactor_changes_and_removes_blobs(stored: Database) -> None:
    stored.run("redactor", "UPDATE audit_blobs SET ciphertext = 'cut' WHERE leaf_index = 0")
    stored.run("redactor", "DELETE FROM audit_blobs WHERE leaf_index = 1")

    assert stored.run("writer", "SELECT leaf_index, ciphertext FROM audit_blobs") == [(0, b"cut")]


async def test_the_views_read_context_and_changes_from_the_canonical_bytes(
    stored: Database,
) -> None:
    [context] = stored.run(
        "writer",
        "SELECT producer_service, producer_sequence, session_mfa, ticket, trace_id"
        " FROM event_context WHERE leaf_index = 0",
    )
    changes = stored.run(
        "writer",
        "SELECT change_index, path, old_subject_ref::text, old_commitment, new_commitment"
        " FROM event_changes ORDER BY change_index",
    )

    assert context == ("accounts", 12, True, "T-1", None)
    person = "00000000-0000-0000-0000-000000000007"
    assert changes == [
        (0, "address.city", person, b"o" * 32, b"n" * 32),
        (10, "email", None, None, None),
    ]
