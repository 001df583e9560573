-- Retention policies: how long a tenant's events of one class are kept.

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

CREATE TABLE IF NOT EXISTS retention_policy (
    tenant text NOT NULL CHECK (tenant <> ''),
    class text NOT NULL DEFAULT '',
    days integer NOT NULL CHECK (days > 0),
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, class)
);
ALTER TABLE retention_policy OWNER TO audit_owner;
GRANT SELECT ON retention_policy TO audit_writer, audit_auditor;
GRANT SELECT, INSERT, UPDATE, DELETE ON retention_policy TO audit_redactor;

COMMENT ON TABLE retention_policy IS
    'Retention by tenant and class. The month is kept for the longest of its events; of a shorter one the blobs go.';
COMMENT ON COLUMN retention_policy.tenant IS 'The tenant.';
COMMENT ON COLUMN retention_policy.class IS
    'retention_class of the events; empty: all those without a policy of their own.';
COMMENT ON COLUMN retention_policy.days IS
    'Days after occurred_at and after stored_at, whichever is later.';
COMMENT ON COLUMN retention_policy.set_by IS 'Who set it.';
COMMENT ON COLUMN retention_policy.set_at IS 'When.';

COMMIT;
