-- Roles of the ledger. Owner of the objects; who writes, reads, redacts, signs and verifies.
-- The login roles get no password here: whoever runs the server gives them one.

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

-- PostgreSQL refuses COPY into a table under row-level security to a role that is bound by it; and
-- whoever verifies must see the rows of every tenant.
DO $bypass$
BEGIN
    IF NOT (SELECT rolbypassrls FROM pg_roles WHERE rolname = 'audit_writer') THEN
        ALTER ROLE audit_writer BYPASSRLS;
    END IF;
    IF NOT (SELECT rolbypassrls FROM pg_roles WHERE rolname = 'audit_auditor') THEN
        ALTER ROLE audit_auditor BYPASSRLS;
    END IF;
END
$bypass$;

COMMENT ON ROLE audit_owner IS 'Owns the tables and functions of the audit trail; nobody logs in as it.';
COMMENT ON ROLE audit_writer IS 'The worker: appends leaves, moves heads and positions; changes no leaf.';
COMMENT ON ROLE audit_reader IS 'Queries: reads the events of the tenant that audit.tenant names.';
COMMENT ON ROLE audit_redactor IS 'Redaction: alone may change or remove rows of audit_blobs.';
COMMENT ON ROLE audit_signer IS 'The signer: reads heads and leaf hashes, appends checkpoints; sees no event.';
COMMENT ON ROLE audit_auditor IS 'Verification: reads the sealed trail of every tenant, and no key; changes nothing.';

COMMIT;
