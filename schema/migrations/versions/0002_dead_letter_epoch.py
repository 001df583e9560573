# ruff: noqa: INP001 -- Alembic loads this file by its path
"""A dead letter's key is of one epoch of its log: a replaced topic has the same offsets again."""

from alembic import op

from pipeline.db.revisions import refuse_downgrade

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the epoch; what was there is of the first one."""
    op.execute(
        """
        ALTER TABLE dead_letter_key ADD COLUMN source_epoch integer NOT NULL DEFAULT 1
            CHECK (source_epoch >= 1);
        ALTER TABLE dead_letter_key ALTER COLUMN source_epoch DROP DEFAULT;
        ALTER TABLE dead_letter_key DROP CONSTRAINT dead_letter_key_pkey;
        ALTER TABLE dead_letter_key
            ADD PRIMARY KEY (source_topic, source_partition, source_offset, source_epoch);
        COMMENT ON COLUMN dead_letter_key.source_epoch IS
            'Epoch of the log that its partition fed: a replaced topic has the same offsets again.'
        """
    )


def downgrade() -> None:
    """Refuse: two letters may have one position by now."""
    refuse_downgrade()
