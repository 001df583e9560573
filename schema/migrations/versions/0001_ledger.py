# ruff: noqa: INP001 -- Alembic loads this file by its path
"""The ledger of the first release: tables, roles, functions and views."""

from pipeline.db.revisions import refuse_downgrade, run_sql_beside

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL beside this file: the schema as it was at this release, never edited later."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: an append-only trail is not taken back."""
    refuse_downgrade()
