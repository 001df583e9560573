-- Audit blobs: the personal data of events, encrypted per subject.
-- Months are made by months.sql, as for audit_logs.

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

CREATE TABLE IF NOT EXISTS audit_blobs (
    leaf_index bigint NOT NULL,
    occurred_at timestamptz(6) NOT NULL,
    subject_ref uuid NOT NULL,
    log_id integer NOT NULL,
    nonce bytea NOT NULL CHECK (octet_length(nonce) = 12),
    ciphertext bytea NOT NULL,
    PRIMARY KEY (log_id, leaf_index, occurred_at, subject_ref)
) PARTITION BY RANGE (occurred_at);
ALTER TABLE audit_blobs OWNER TO audit_owner;
-- Ciphertext does not compress: trying costs time.
ALTER TABLE audit_blobs ALTER COLUMN ciphertext SET STORAGE EXTERNAL;
-- For: the events in which a person appears, which erasure, redaction and subject access ask for.
CREATE INDEX IF NOT EXISTS audit_blobs_subject_ref ON audit_blobs (subject_ref);
GRANT SELECT, INSERT ON audit_blobs TO audit_writer;
GRANT SELECT, DELETE, UPDATE (nonce, ciphertext) ON audit_blobs TO audit_redactor;
GRANT SELECT ON audit_blobs TO audit_auditor;

COMMENT ON TABLE audit_blobs IS
    'Personal data of events: one AES-256-GCM blob per event and subject. Not hashed, so that redaction leaves every proof valid; only audit_redactor may change or remove rows.';
COMMENT ON COLUMN audit_blobs.leaf_index IS 'As in audit_logs.';
COMMENT ON COLUMN audit_blobs.occurred_at IS 'As in audit_logs; the partition key.';
COMMENT ON COLUMN audit_blobs.subject_ref IS 'Whose values these are, as in audit_user.';
COMMENT ON COLUMN audit_blobs.log_id IS 'As in audit_logs.';
COMMENT ON COLUMN audit_blobs.nonce IS 'Random at every write, 12 bytes.';
COMMENT ON COLUMN audit_blobs.ciphertext IS
    'AES-256-GCM of canonical JSON {path: value}; associated data: event id, subject_ref.';

CREATE OR REPLACE FUNCTION refuse_held_blob() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('audit.holds'));  -- see order_hold()
    IF to_regclass('public.legal_hold') IS NOT NULL
       AND EXISTS (SELECT FROM legal_hold WHERE released_at IS NULL)
       AND EXISTS (SELECT FROM held_leaves(OLD.log_id, OLD.leaf_index, OLD.leaf_index + 1)) THEN
        RAISE EXCEPTION 'leaf % of log % is under a legal hold', OLD.leaf_index, OLD.log_id
            USING ERRCODE = 'object_in_use';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$body$;
ALTER FUNCTION refuse_held_blob() OWNER TO audit_owner;
REVOKE ALL ON FUNCTION refuse_held_blob() FROM PUBLIC;
COMMENT ON FUNCTION refuse_held_blob() IS
    'Trigger of audit_blobs: refuses to change or remove what a legal hold covers, whoever asks.';

CREATE OR REPLACE TRIGGER audit_blobs_refuse_held
    BEFORE UPDATE OR DELETE ON audit_blobs
    FOR EACH ROW EXECUTE FUNCTION refuse_held_blob();

COMMIT;
