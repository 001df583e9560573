-- Leases of workers: up to which erasure each has dropped the keys of erased subjects.

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

CREATE TABLE IF NOT EXISTS worker_lease (
    worker_id uuid NOT NULL PRIMARY KEY,
    host text NOT NULL,
    epoch bigint NOT NULL CHECK (epoch >= 0),
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 20);  -- few rows, changed each second: updates stay on their page
ALTER TABLE worker_lease OWNER TO audit_owner;
GRANT SELECT, INSERT, UPDATE, DELETE ON worker_lease TO audit_writer;
GRANT SELECT ON worker_lease TO audit_redactor, audit_auditor;

COMMENT ON TABLE worker_lease IS
    'One row for each worker that may hold keys. A worker whose lease ended uses no key that it has in memory.';
COMMENT ON COLUMN worker_lease.worker_id IS 'Random, of one start of a worker.';
COMMENT ON COLUMN worker_lease.host IS 'Where it runs, for people.';
COMMENT ON COLUMN worker_lease.epoch IS
    'It holds no key of a subject that was erased up to this erasure_state.epoch.';
COMMENT ON COLUMN worker_lease.expires_at IS
    'By the database''s clock. The worker counts by its own monotonic clock from before it asked, so it ends earlier.';

COMMIT;
