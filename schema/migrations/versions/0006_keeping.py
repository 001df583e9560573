# ruff: noqa: INP001 -- Alembic loads this file by its path
"""Legal holds, redactions, retention and expiry."""

from pipeline.db.revisions import refuse_downgrade, run_sql_beside

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL beside this file: tables, functions and grants as of this release, never edited later."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: the ledger's history goes one way."""
    refuse_downgrade()
