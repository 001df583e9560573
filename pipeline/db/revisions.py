"""What the migrations of ``schema/migrations/versions`` share: how one runs, and that none is taken back."""

from __future__ import annotations

from pathlib import Path

from alembic import op


def run_sql_beside(migration: str) -> None:
    """Run the SQL file of a migration's name: the schema as of its release, never edited later."""
    statements = Path(migration).with_suffix(".sql").read_text(encoding="utf-8")
    # Through the driver, without parameters: the file holds many statements and percent signs.
    connection = op.get_bind().connection.driver_connection
    if connection is None:
        raise RuntimeError("the migration has no connection")
    connection.execute(statements)


def refuse_downgrade() -> None:
    """An append-only trail goes one way."""
    raise NotImplementedError("the ledger is not taken back; restore a backup instead")
