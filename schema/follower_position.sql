-- Follower positions: how far each store follows each log.

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

CREATE TABLE IF NOT EXISTS follower_position (
    follower text NOT NULL,
    log_id integer NOT NULL,
    next_leaf bigint NOT NULL CHECK (next_leaf >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (follower, log_id)
) WITH (fillfactor = 20);  -- few rows, changed all the time: updates stay on their page
ALTER TABLE follower_position OWNER TO audit_owner;
GRANT SELECT, INSERT, UPDATE ON follower_position TO audit_writer;
GRANT SELECT ON follower_position TO audit_reader, audit_redactor;
GRANT SELECT ON follower_position TO audit_signer, audit_auditor;

COMMENT ON TABLE follower_position IS
    'How far each follower of the ledger is on each log; only moves forward.';
COMMENT ON COLUMN follower_position.follower IS 'index, archive or signals.';
COMMENT ON COLUMN follower_position.log_id IS 'The log, as in log_heads.';
COMMENT ON COLUMN follower_position.next_leaf IS
    'First leaf that the follower''s store may lack; all before it are durable there.';
COMMENT ON COLUMN follower_position.updated_at IS 'When it last moved.';

COMMIT;
