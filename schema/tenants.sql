-- Tenants: whose events are accepted, and the key that wraps their subjects' keys.

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

CREATE TABLE IF NOT EXISTS tenants (
    tenant text PRIMARY KEY CHECK (tenant <> ''),
    name text NOT NULL,
    wrapped_key bytea NOT NULL,
    retention_days integer CHECK (retention_days > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE tenants OWNER TO audit_owner;
GRANT SELECT, INSERT ON tenants TO audit_writer;
GRANT SELECT (retention_days) ON tenants TO audit_signer;
-- Not the wrapped keys: whoever verifies decrypts nothing.
GRANT SELECT (tenant, name, retention_days, created_at) ON tenants TO audit_auditor;

COMMENT ON TABLE tenants IS
    'Tenants whose events are accepted. The worker adds tenants and cannot change one: a replaced key would lose all subjects'' keys.';
COMMENT ON COLUMN tenants.tenant IS 'Id as events name it.';
COMMENT ON COLUMN tenants.name IS 'What people call it.';
COMMENT ON COLUMN tenants.wrapped_key IS
    'Key that wraps the keys of this tenant''s subjects, itself wrapped by the key provider.';
COMMENT ON COLUMN tenants.retention_days IS
    'How long its events are kept; null: the default of the installation.';
COMMENT ON COLUMN tenants.created_at IS 'When the tenant was added.';

COMMIT;
