# ruff: noqa: INP001 -- Alembic loads this file by its path
"""Erasure of a person: requests, leases of workers, and the functions that destroy keys."""

from pipeline.db.revisions import refuse_downgrade, run_sql_beside

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL beside this file: as of this release, never edited later."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: what was destroyed is not made again."""
    refuse_downgrade()
