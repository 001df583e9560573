-- Removal requests: by whose order personal data was cut from events, or events were let expire.

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

CREATE TABLE IF NOT EXISTS removal_request (
    request_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('redaction', 'expiry')),
    state text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'ordered', 'done')),
    tenant text,
    class text,
    month date,
    days integer CHECK (days > 0),
    stored_after timestamptz,
    stored_until timestamptz,
    bounds jsonb NOT NULL DEFAULT '{}',
    policy text,
    reason text NOT NULL CHECK (reason <> ''),
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    event_id uuid NOT NULL UNIQUE,
    leaves bigint NOT NULL CHECK (leaves > 0),
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    order_hash bytea NOT NULL CHECK (octet_length(order_hash) = 32),
    counts jsonb NOT NULL DEFAULT '{}',
    done_at timestamptz,
    CHECK ((kind = 'expiry') = (month IS NOT NULL)),
    CHECK ((state = 'done') = (done_at IS NOT NULL))
);
ALTER TABLE removal_request OWNER TO audit_owner;
GRANT SELECT ON removal_request TO audit_writer, audit_auditor;
GRANT SELECT, INSERT, UPDATE (state, counts, done_at) ON removal_request TO audit_redactor;

COMMENT ON TABLE removal_request IS
    'Redactions and expiries. Each has a leaf in the trail that names it and commits to the leaves that it is about, and an order object in the archive bucket that lists them.';
COMMENT ON COLUMN removal_request.request_id IS 'Id of the request.';
COMMENT ON COLUMN removal_request.kind IS 'redaction: fields; expiry: a month, or the blobs of a tenant''s class in it.';
COMMENT ON COLUMN removal_request.state IS
    'planned: nothing is removed; ordered: the ledger has its leaf, removal goes on; done: gone from every store.';
COMMENT ON COLUMN removal_request.tenant IS 'Whose events; null: an expiry of a whole month.';
COMMENT ON COLUMN removal_request.class IS 'Only this retention class; null: all, or all without a policy of their own.';
COMMENT ON COLUMN removal_request.month IS 'Of an expiry: first day of the month of occurred_at, UTC.';
COMMENT ON COLUMN removal_request.days IS 'Of an expiry: the retention that has passed.';
COMMENT ON COLUMN removal_request.stored_after IS 'Of an expiry of blobs: leaves stored after this time; null: from the first.';
COMMENT ON COLUMN removal_request.stored_until IS 'Of an expiry: leaves stored up to this time, which is included.';
COMMENT ON COLUMN removal_request.bounds IS 'Of an expiry: log name and the leaf before which its leaves are affected.';
COMMENT ON COLUMN removal_request.policy IS 'Name of the policy that asked for it; null: a person did.';
COMMENT ON COLUMN removal_request.reason IS 'Why; no names of persons.';
COMMENT ON COLUMN removal_request.requested_by IS 'Who: AUDIT_OPERATOR, or account and host.';
COMMENT ON COLUMN removal_request.requested_at IS 'When.';
COMMENT ON COLUMN removal_request.event_id IS 'Event in audit.raw.system that is its authority.';
COMMENT ON COLUMN removal_request.leaves IS 'How many leaves are affected.';
COMMENT ON COLUMN removal_request.root IS
    'Merkle tree hash over their leaf hashes, in the order of log name and leaf index.';
COMMENT ON COLUMN removal_request.order_hash IS 'SHA-256 of the order object.';
COMMENT ON COLUMN removal_request.counts IS 'What was removed from which store, in bytes and records.';
COMMENT ON COLUMN removal_request.done_at IS 'When it was gone from every store.';

COMMIT;
