-- Redaction flags: which values of which event were cut, when, why, by whom, under which request.

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

CREATE TABLE IF NOT EXISTS redaction_flag (
    leaf_index bigint NOT NULL,
    occurred_at timestamptz(6) NOT NULL,
    request_id uuid NOT NULL,
    log_id integer NOT NULL,
    paths text[] NOT NULL CHECK (cardinality(paths) > 0),
    reason text NOT NULL CHECK (reason <> ''),
    redacted_by text NOT NULL,
    flagged_at timestamptz NOT NULL DEFAULT now(),
    redacted_at timestamptz,
    PRIMARY KEY (log_id, leaf_index, request_id)
);
ALTER TABLE redaction_flag OWNER TO audit_owner;
CREATE INDEX IF NOT EXISTS redaction_flag_request_id ON redaction_flag (request_id, log_id, leaf_index);
GRANT SELECT ON redaction_flag TO audit_writer, audit_auditor;
GRANT SELECT, INSERT, UPDATE (redacted_at) ON redaction_flag TO audit_redactor;

COMMENT ON TABLE redaction_flag IS
    'Values that were cut from events. Their commitments stay in the canonical bytes, so that every proof still verifies.';
COMMENT ON COLUMN redaction_flag.leaf_index IS 'As in audit_logs.';
COMMENT ON COLUMN redaction_flag.occurred_at IS 'As in audit_logs.';
COMMENT ON COLUMN redaction_flag.request_id IS 'The request, as in removal_request.';
COMMENT ON COLUMN redaction_flag.log_id IS 'As in audit_logs.';
COMMENT ON COLUMN redaction_flag.paths IS 'The values that are cut, by path; never a value.';
COMMENT ON COLUMN redaction_flag.reason IS 'Why, as in the request.';
COMMENT ON COLUMN redaction_flag.redacted_by IS 'Who asked for it.';
COMMENT ON COLUMN redaction_flag.flagged_at IS 'When it was asked for.';
COMMENT ON COLUMN redaction_flag.redacted_at IS 'When the ledger''s blob was cut; null: not yet.';

COMMIT;
