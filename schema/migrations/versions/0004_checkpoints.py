# ruff: noqa: INP001 -- Alembic loads this file by its path
"""Checkpoints of the logs, and the roles of whoever signs and verifies."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL beside this file: table, roles and grants as of this release, never edited later."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # Through the driver, without parameters: the file holds many statements and percent signs.
    connection = op.get_bind().connection.driver_connection
    if connection is None:
        raise RuntimeError("the migration has no connection")
    connection.execute(statements)


def downgrade() -> None:
    """Refuse: what was signed is not taken back."""
    raise NotImplementedError("the ledger is not taken back; restore a backup instead")
