# ruff: noqa: INP001 -- Alembic loads this file by its path
"""Checkpoints of the logs, and the roles of whoever signs and verifies."""

from pipeline.db.revisions import refuse_downgrade, run_sql_beside

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL beside this file: table, roles and grants as of this release, never edited later."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: what was signed is not taken back."""
    refuse_downgrade()
