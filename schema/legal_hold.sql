-- Legal holds: what may be neither erased, redacted nor let expire, and why.
-- The functions take whichever of the other tables exist.

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

CREATE TABLE IF NOT EXISTS legal_hold (
    hold_id uuid PRIMARY KEY,
    tenant text NOT NULL CHECK (tenant <> ''),
    subject_hash bytea CHECK (octet_length(subject_hash) = 32),
    log_id integer,
    event_id uuid,
    occurred_from timestamptz,
    occurred_until timestamptz,
    reason text NOT NULL CHECK (reason <> ''),
    owner text NOT NULL CHECK (owner <> ''),
    placed_by text NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now(),
    ends_at timestamptz,
    released_by text,
    released_at timestamptz,
    CHECK ((released_by IS NULL) = (released_at IS NULL))
);
ALTER TABLE legal_hold OWNER TO audit_owner;
GRANT SELECT ON legal_hold TO audit_writer, audit_auditor;
GRANT SELECT, INSERT, UPDATE (released_by, released_at) ON legal_hold TO audit_redactor;

COMMENT ON TABLE legal_hold IS
    'Legal holds. What is null does not narrow the scope; a hold with nothing but a tenant holds all of its events. A hold on a person holds every event that names them, in whatever tenant, whole.';
COMMENT ON COLUMN legal_hold.hold_id IS 'Id of the hold.';
COMMENT ON COLUMN legal_hold.tenant IS 'Whose events; with a subject, that person''s home tenant.';
COMMENT ON COLUMN legal_hold.subject_hash IS 'Only events that name this person, as in audit_user.';
COMMENT ON COLUMN legal_hold.log_id IS 'Only this log, as in log_heads.';
COMMENT ON COLUMN legal_hold.event_id IS 'Only this event.';
COMMENT ON COLUMN legal_hold.occurred_from IS 'Only events from this time on.';
COMMENT ON COLUMN legal_hold.occurred_until IS 'Only events before this time.';
COMMENT ON COLUMN legal_hold.reason IS 'Why, such as the number of the case; no names of persons.';
COMMENT ON COLUMN legal_hold.owner IS 'Who answers for it.';
COMMENT ON COLUMN legal_hold.placed_by IS 'Who placed it: AUDIT_OPERATOR, or account and host.';
COMMENT ON COLUMN legal_hold.placed_at IS 'When.';
COMMENT ON COLUMN legal_hold.ends_at IS 'When it ends by itself; null: when it is released.';
COMMENT ON COLUMN legal_hold.released_by IS 'Who released it; null: nobody.';
COMMENT ON COLUMN legal_hold.released_at IS 'When it was released.';

-- Row-level security binds the owner, too: rows of a tenant are seen when it is named.
CREATE OR REPLACE FUNCTION held_leaves(
    in_log integer, first_leaf bigint, next_leaf bigint
) RETURNS TABLE (leaf_index bigint, hold_id uuid)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    hold legal_hold%ROWTYPE;
    tenant_before text := current_setting('audit.tenant', true);
BEGIN
    FOR hold IN
        SELECT * FROM legal_hold
        WHERE released_at IS NULL AND (ends_at IS NULL OR ends_at > now())
            AND (legal_hold.log_id IS NULL OR legal_hold.log_id = in_log)
    LOOP
        IF hold.subject_hash IS NULL THEN
            PERFORM set_config('audit.tenant', hold.tenant, true);
            RETURN QUERY
            SELECT held.leaf_index, hold.hold_id FROM audit_logs AS held
            WHERE held.log_id = in_log AND held.leaf_index >= first_leaf
                AND held.leaf_index < next_leaf AND held.tenant = hold.tenant
                AND (hold.event_id IS NULL OR held.event_id = hold.event_id)
                AND (hold.occurred_from IS NULL OR held.occurred_at >= hold.occurred_from)
                AND (hold.occurred_until IS NULL OR held.occurred_at < hold.occurred_until);
        ELSE
            RETURN QUERY
            SELECT DISTINCT named.leaf_index, hold.hold_id FROM audit_blobs AS named
            JOIN leaves ON leaves.log_id = named.log_id AND leaves.leaf_index = named.leaf_index
            WHERE named.log_id = in_log AND named.leaf_index >= first_leaf
                AND named.leaf_index < next_leaf
                AND named.subject_ref IN (SELECT audit_user.subject_ref FROM audit_user
                                          WHERE audit_user.subject_hash = hold.subject_hash)
                AND (hold.event_id IS NULL OR leaves.event_id = hold.event_id)
                AND (hold.occurred_from IS NULL OR named.occurred_at >= hold.occurred_from)
                AND (hold.occurred_until IS NULL OR named.occurred_at < hold.occurred_until);
        END IF;
    END LOOP;
    -- Not by a SET clause: only a superuser may give a function one of a setting that is not the server's.
    PERFORM set_config('audit.tenant', coalesce(tenant_before, ''), true);
END
$body$;
ALTER FUNCTION held_leaves(integer, bigint, bigint) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION held_leaves(integer, bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION held_leaves(integer, bigint, bigint)
    TO audit_writer, audit_redactor, audit_auditor;
COMMENT ON FUNCTION held_leaves(integer, bigint, bigint) IS
    'The one answer to what is held, and by what: leaves of a log from the first one up to before the next one, each with every hold on it.';

CREATE OR REPLACE FUNCTION holds_on_subjects(hashes bytea[])
    RETURNS TABLE (subject_hash bytea, hold_id uuid)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    named record;
BEGIN
    IF NOT EXISTS (SELECT FROM legal_hold
                   WHERE released_at IS NULL AND (ends_at IS NULL OR ends_at > now())) THEN
        RETURN;
    END IF;
    -- Of a person without any event, too.
    RETURN QUERY
    SELECT legal_hold.subject_hash, legal_hold.hold_id FROM legal_hold
    WHERE released_at IS NULL AND (ends_at IS NULL OR ends_at > now())
        AND legal_hold.subject_hash = ANY (hashes);
    -- Neighbouring leaves are asked about together.
    FOR named IN
        SELECT hash, log_id, min(leaf_index) AS first_leaf, max(leaf_index) + 1 AS next_leaf,
               array_agg(leaf_index) AS leaf_indexes
        FROM (
            SELECT audit_user.subject_hash AS hash, blobs.log_id, blobs.leaf_index
            FROM audit_user JOIN audit_blobs AS blobs USING (subject_ref)
            WHERE audit_user.subject_hash = ANY (hashes)
        ) AS found
        GROUP BY hash, log_id, leaf_index / 4096
    LOOP
        RETURN QUERY
        SELECT DISTINCT named.hash, held.hold_id
        FROM held_leaves(named.log_id, named.first_leaf, named.next_leaf) AS held
        WHERE held.leaf_index = ANY (named.leaf_indexes);
    END LOOP;
END
$body$;
ALTER FUNCTION holds_on_subjects(bytea[]) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION holds_on_subjects(bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION holds_on_subjects(bytea[]) TO audit_writer, audit_redactor, audit_auditor;
COMMENT ON FUNCTION holds_on_subjects(bytea[]) IS
    'The holds that keep these persons from being erased: those on them, and those on any event that names them. A hold may come more than once.';

CREATE OR REPLACE FUNCTION holds_on_month(month_start timestamptz) RETURNS SETOF uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' AS $body$
DECLARE
    span record;
BEGIN
    IF to_regclass('public.audit_logs' || to_char(month_start, '"_"YYYY"_"MM')) IS NULL
       OR NOT EXISTS (SELECT FROM legal_hold
                      WHERE released_at IS NULL AND (ends_at IS NULL OR ends_at > now())) THEN
        RETURN;
    END IF;
    FOR span IN EXECUTE format(
        'SELECT log_id, min(leaf_index) AS first_leaf, max(leaf_index) + 1 AS next_leaf '
        'FROM public.%I GROUP BY log_id', 'audit_logs' || to_char(month_start, '"_"YYYY"_"MM'))
    LOOP
        RETURN QUERY
        SELECT DISTINCT held.hold_id
        FROM held_leaves(span.log_id, span.first_leaf, span.next_leaf) AS held
        JOIN leaves ON leaves.log_id = span.log_id AND leaves.leaf_index = held.leaf_index
        WHERE leaves.occurred_at >= month_start
            AND leaves.occurred_at < month_start + interval '1 month';
    END LOOP;
END
$body$;
ALTER FUNCTION holds_on_month(timestamptz) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION holds_on_month(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION holds_on_month(timestamptz) TO audit_redactor, audit_auditor;
COMMENT ON FUNCTION holds_on_month(timestamptz) IS
    'The holds on any event of the month that begins at a time. A hold may come more than once.';

CREATE OR REPLACE FUNCTION order_hold() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    -- What removes takes the lock shared before it looks for holds: it either sees this one or is done.
    PERFORM pg_advisory_xact_lock(hashtext('audit.holds'));
    RETURN NULL;
END
$body$;
ALTER FUNCTION order_hold() OWNER TO audit_owner;
REVOKE ALL ON FUNCTION order_hold() FROM PUBLIC;
COMMENT ON FUNCTION order_hold() IS
    'Trigger of legal_hold: a hold waits for removals that are under way, and comes before those that follow.';

CREATE OR REPLACE TRIGGER legal_hold_order
    BEFORE INSERT ON legal_hold
    FOR EACH STATEMENT EXECUTE FUNCTION order_hold();

COMMIT;
