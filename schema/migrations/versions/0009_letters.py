# ruff: noqa: INP001 -- Alembic loads this file by its path
"""Letters that were destroyed stay in the table, without their key."""

from pipeline.db.revisions import refuse_downgrade, run_sql_beside

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL beside this file: as of this release, never edited later."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: the ledger is not taken back."""
    refuse_downgrade()
