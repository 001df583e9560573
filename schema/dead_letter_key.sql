-- Dead letter keys: one random key per dead letter, so that erasure reaches it.

BEGIN;

-- The roles, if they are missing: the same block in every file, since each runs alone.
DO $roles$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES ('audit_owner', 'NOLOGIN'), ('audit_writer', 'LOGIN BYPASSRLS'),
                              ('audit_reader', 'LOGIN'), ('audit_redactor', 'LOGIN'),
                              ('audit_signer', 'LOGIN'), ('audit_auditor', 'LOGIN BYPASSRLS'))
                 AS roles (name, attributes)
    LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name) THEN
                EXECUTE format('CREATE ROLE %I %s', wanted.name, wanted.attributes);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- another database of this server made it at the same moment
        END;
    END LOOP;
    IF NOT pg_has_role(current_user, 'audit_owner', 'USAGE') THEN
        EXECUTE format('GRANT audit_owner TO %I', current_user);
    END IF;
    GRANT USAGE, CREATE ON SCHEMA public TO audit_owner;
    GRANT USAGE ON SCHEMA public
        TO audit_writer, audit_reader, audit_redactor, audit_signer, audit_auditor;
END
$roles$;

CREATE TABLE IF NOT EXISTS dead_letter_key (
    source_topic text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    wrapped_key bytea,
    reason text NOT NULL,
    raw_key_hash bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    source_epoch integer NOT NULL CHECK (source_epoch >= 1),
    destroyed_by uuid,
    CONSTRAINT dead_letter_key_destroyed CHECK ((wrapped_key IS NULL) = (destroyed_by IS NOT NULL)),
    PRIMARY KEY (source_topic, source_partition, source_offset, source_epoch)
);
ALTER TABLE dead_letter_key OWNER TO audit_owner;
-- For: the dead letters of one raw key, which the erasure of a person destroys.
CREATE INDEX IF NOT EXISTS dead_letter_key_raw_key_hash ON dead_letter_key (raw_key_hash);
GRANT SELECT, INSERT ON dead_letter_key TO audit_writer;
-- Neither the keys nor what finds a person's letters.
GRANT SELECT (source_topic, source_partition, source_offset, source_epoch, reason, created_at,
    destroyed_by) ON dead_letter_key TO audit_auditor;
GRANT SELECT (source_topic, source_partition, source_offset, source_epoch, reason, raw_key_hash,
    created_at, destroyed_by), UPDATE (wrapped_key, raw_key_hash, destroyed_by)
    ON dead_letter_key TO audit_redactor;
-- For: how many letters a request has destroyed.
CREATE INDEX IF NOT EXISTS dead_letter_key_destroyed_by ON dead_letter_key (destroyed_by)
    WHERE destroyed_by IS NOT NULL;

COMMENT ON TABLE dead_letter_key IS
    'Keys of dead letters, by the position of the record. Without its key a letter is unreadable.';
COMMENT ON COLUMN dead_letter_key.source_topic IS 'Raw topic of the record.';
COMMENT ON COLUMN dead_letter_key.source_partition IS 'Its partition.';
COMMENT ON COLUMN dead_letter_key.source_offset IS 'Its offset.';
COMMENT ON COLUMN dead_letter_key.wrapped_key IS
    'Key of the letter, wrapped by the key provider; null: destroyed.';
COMMENT ON COLUMN dead_letter_key.reason IS 'Why the record was not accepted, as in the letter.';
COMMENT ON COLUMN dead_letter_key.raw_key_hash IS 'Keyed hash of the record''s key; null when it had none.';
COMMENT ON COLUMN dead_letter_key.created_at IS 'When the key was made.';
COMMENT ON COLUMN dead_letter_key.destroyed_by IS
    'The erasure that destroyed the key; null: it is there.';
COMMENT ON COLUMN dead_letter_key.source_epoch IS
    'Epoch of the log that its partition fed: a replaced topic has the same offsets again.';

COMMIT;
