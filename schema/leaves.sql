-- Leaves: what the logs are made of. No personal data; outlives the events' expiry.

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

CREATE TABLE IF NOT EXISTS leaves (
    leaf_index bigint NOT NULL,
    occurred_at timestamptz(6) NOT NULL,
    log_id integer NOT NULL,
    event_id uuid NOT NULL,
    leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32),
    CONSTRAINT leaves_pkey PRIMARY KEY (log_id, leaf_index),
    CONSTRAINT leaves_event_id_key UNIQUE (event_id)
);
ALTER TABLE leaves OWNER TO audit_owner;

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

CREATE OR REPLACE TRIGGER leaves_refuse_change
    BEFORE UPDATE OR DELETE OR TRUNCATE ON leaves
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- ALWAYS: session_replication_role = replica does not switch it off.
ALTER TABLE leaves ENABLE ALWAYS TRIGGER leaves_refuse_change;

GRANT SELECT, INSERT ON leaves TO audit_writer;
GRANT SELECT ON leaves TO audit_redactor;
GRANT SELECT (log_id, leaf_index, leaf_hash) ON leaves TO audit_signer;
GRANT SELECT ON leaves TO audit_auditor;

COMMENT ON TABLE leaves IS
    'Leaf hashes in the order of their logs: dedupes, proves, feeds tiles and orders catch-up. Append-only and kept when events expire, so that old proofs still verify.';
COMMENT ON COLUMN leaves.leaf_index IS 'Place in the log, from 0, without a hole.';
COMMENT ON COLUMN leaves.occurred_at IS 'Of the event: finds its partition.';
COMMENT ON COLUMN leaves.log_id IS 'The log, as in log_heads.';
COMMENT ON COLUMN leaves.event_id IS 'Unique over all logs and times: one id is stored once.';
COMMENT ON COLUMN leaves.leaf_hash IS 'SHA-256(0x00 || canonical bytes of the event).';

COMMIT;
