# ruff: noqa: INP001 -- Alembic loads this file by its path
"""A recorded schema says its fingerprint and who registered it."""

from alembic import op

from pipeline.db.revisions import refuse_downgrade

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; what was there has neither, and is compared by its text alone."""
    op.execute(
        """
        ALTER TABLE schema_versions ADD COLUMN fingerprint text NOT NULL DEFAULT ''
            CHECK (fingerprint ~ '^([0-9a-f]{64})?$');
        ALTER TABLE schema_versions ALTER COLUMN fingerprint DROP DEFAULT;
        ALTER TABLE schema_versions ADD COLUMN registered_by text NOT NULL DEFAULT '';
        ALTER TABLE schema_versions ALTER COLUMN registered_by DROP DEFAULT;
        COMMENT ON COLUMN schema_versions.fingerprint IS
            'SHA-256 of the Parsing Canonical Form (Avro 1.12), hexadecimal; empty in rows from before it was kept.';
        COMMENT ON COLUMN schema_versions.registered_by IS
            'Who ran the command: AUDIT_OPERATOR, or account and host.';
        """
    )


def downgrade() -> None:
    """Refuse: the ledger's history goes one way."""
    refuse_downgrade()
