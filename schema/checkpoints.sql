-- Checkpoints: what each log was at one moment, signed.

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

CREATE TABLE IF NOT EXISTS checkpoints (
    size bigint NOT NULL CHECK (size > 0),
    log_id integer NOT NULL,
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    note text NOT NULL,
    signed_at timestamptz NOT NULL,
    CONSTRAINT checkpoints_pkey PRIMARY KEY (log_id, size)
);
ALTER TABLE checkpoints OWNER TO audit_owner;

CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RAISE EXCEPTION '% on % is refused: the trail is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$body$;
ALTER FUNCTION refuse_change() OWNER TO audit_owner;
COMMENT ON FUNCTION refuse_change() IS
    'Trigger of append-only tables: refuses UPDATE, DELETE and TRUNCATE to everyone, the owner included.';

CREATE OR REPLACE TRIGGER checkpoints_refuse_change
    BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- ALWAYS: session_replication_role = replica does not switch it off.
ALTER TABLE checkpoints ENABLE ALWAYS TRIGGER checkpoints_refuse_change;

GRANT SELECT, INSERT ON checkpoints TO audit_signer;
GRANT SELECT ON checkpoints TO audit_writer, audit_reader, audit_redactor, audit_auditor;

COMMENT ON TABLE checkpoints IS
    'Signed heads of the logs, as they stand under Object Lock in the archive bucket; that bucket is the authority, this a copy to look things up in. Append-only.';
COMMENT ON COLUMN checkpoints.size IS 'Number of leaves that it covers.';
COMMENT ON COLUMN checkpoints.log_id IS 'The log, as in log_heads.';
COMMENT ON COLUMN checkpoints.root IS 'Merkle tree hash of those leaves (RFC 6962 section 2.1).';
COMMENT ON COLUMN checkpoints.note IS
    'The signed note whole (C2SP tlog-checkpoint), with the cosignatures of witnesses.';
COMMENT ON COLUMN checkpoints.signed_at IS 'When it was signed, by the signer''s clock.';

COMMIT;
