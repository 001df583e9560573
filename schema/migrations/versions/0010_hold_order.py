# ruff: noqa: INP001 -- Alembic loads this file by its path
"""Holds and removals are ordered."""

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL beside this file: as of this release, never edited later."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # Through the driver, without parameters: the file holds many statements and percent signs.
    connection = op.get_bind().connection.driver_connection
    if connection is None:
        raise RuntimeError("the migration has no connection")
    connection.execute(statements)


def downgrade() -> None:
    """Refuse: the ledger is not taken back."""
    raise NotImplementedError("the ledger is not taken back; restore a backup instead")
