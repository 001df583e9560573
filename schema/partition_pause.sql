-- Partition pauses: raw partitions that stand still until a person lifts it.

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

CREATE TABLE IF NOT EXISTS partition_pause (
    pause_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    partition integer NOT NULL,
    reason text NOT NULL CHECK (reason IN ('dead_letters')),
    detail text NOT NULL DEFAULT '',
    first_offset bigint,
    next_offset bigint,
    since timestamptz NOT NULL DEFAULT now(),
    resumed_at timestamptz
);
ALTER TABLE partition_pause OWNER TO audit_owner;
-- One pause at a time; also for: is this partition paused?
CREATE UNIQUE INDEX IF NOT EXISTS partition_pause_open
    ON partition_pause (topic, partition) WHERE resumed_at IS NULL;
GRANT SELECT, INSERT, UPDATE (resumed_at) ON partition_pause TO audit_writer;
GRANT SELECT ON partition_pause TO audit_reader, audit_redactor;
GRANT SELECT ON partition_pause TO audit_auditor;

COMMENT ON TABLE partition_pause IS
    'Raw partitions that a worker paused, and when a person resumed them (audit-trail resume).';
COMMENT ON COLUMN partition_pause.pause_id IS 'Number of the pause.';
COMMENT ON COLUMN partition_pause.topic IS 'Raw topic.';
COMMENT ON COLUMN partition_pause.partition IS 'Its partition.';
COMMENT ON COLUMN partition_pause.reason IS
    'Why: dead_letters, too many of its records cannot be accepted. A closed set.';
COMMENT ON COLUMN partition_pause.detail IS 'The same in a sentence, with figures; no content of events.';
COMMENT ON COLUMN partition_pause.first_offset IS 'First offset concerned, where offsets are known.';
COMMENT ON COLUMN partition_pause.next_offset IS 'Offset after the last concerned.';
COMMENT ON COLUMN partition_pause.since IS 'When the worker paused it.';
COMMENT ON COLUMN partition_pause.resumed_at IS 'When a person lifted it; null: it stands.';

COMMIT;
