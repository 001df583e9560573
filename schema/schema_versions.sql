-- Schema versions: what the registry holds, kept as long as the events.

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

CREATE TABLE IF NOT EXISTS schema_versions (
    schema_id integer PRIMARY KEY,
    subject text NOT NULL,
    version integer NOT NULL CHECK (version >= 1),
    family text NOT NULL,
    schema json NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    fingerprint text NOT NULL CHECK (fingerprint ~ '^([0-9a-f]{64})?$'),
    registered_by text NOT NULL,
    UNIQUE (subject, version)
);
ALTER TABLE schema_versions OWNER TO audit_owner;
GRANT SELECT, INSERT ON schema_versions TO audit_writer;
GRANT SELECT ON schema_versions TO audit_reader, audit_redactor;
GRANT SELECT ON schema_versions TO audit_auditor;

COMMENT ON TABLE schema_versions IS
    'Schemas that events were written with, by registry id: an event stays readable when the registry is gone.';
COMMENT ON COLUMN schema_versions.schema_id IS 'Id in the registry, as in audit_logs.';
COMMENT ON COLUMN schema_versions.subject IS 'Subject in the registry.';
COMMENT ON COLUMN schema_versions.version IS 'Version within the subject.';
COMMENT ON COLUMN schema_versions.family IS 'Event family.';
COMMENT ON COLUMN schema_versions.schema IS 'Avro schema, the text as registered.';
COMMENT ON COLUMN schema_versions.registered_at IS 'When it was noted here.';
COMMENT ON COLUMN schema_versions.fingerprint IS
    'SHA-256 of the Parsing Canonical Form (Avro 1.12), hexadecimal; empty in rows from before it was kept.';
COMMENT ON COLUMN schema_versions.registered_by IS
    'Who ran the command: AUDIT_OPERATOR, or account and host.';

COMMIT;
