# ruff: noqa: INP001 -- Alembic loads this file by its path
"""The numbers that order rewrites of the index."""

from pipeline.db.revisions import refuse_downgrade, run_sql_beside

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL beside this file: as of this release, never edited later."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: the ledger is not taken back."""
    refuse_downgrade()
