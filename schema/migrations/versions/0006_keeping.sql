-- Holds, redactions, retention and expiry.

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

CREATE TABLE IF NOT EXISTS redaction_flag (
    leaf_index bigint NOT NULL,
    occurred_at timestamptz(6) NOT NULL,
    request_id uuid NOT NULL,
    log_id integer NOT NULL,
    paths text[] NOT NULL CHECK (cardinality(paths) > 0),
    reason text NOT NULL CHECK (reason <> ''),
    redacted_by text NOT NULL,
    flagged_at timestamptz NOT NULL DEFAULT now(),
    redacted_at timestamptz,
    PRIMARY KEY (log_id, leaf_index, request_id)
);
ALTER TABLE redaction_flag OWNER TO audit_owner;
CREATE INDEX IF NOT EXISTS redaction_flag_request_id ON redaction_flag (request_id, log_id, leaf_index);
GRANT SELECT ON redaction_flag TO audit_writer, audit_auditor;
GRANT SELECT, INSERT, UPDATE (redacted_at) ON redaction_flag TO audit_redactor;

COMMENT ON TABLE redaction_flag IS
    'Values that were cut from events. Their commitments stay in the canonical bytes, so that every proof still verifies.';
COMMENT ON COLUMN redaction_flag.leaf_index IS 'As in audit_logs.';
COMMENT ON COLUMN redaction_flag.occurred_at IS 'As in audit_logs.';
COMMENT ON COLUMN redaction_flag.request_id IS 'The request, as in removal_request.';
COMMENT ON COLUMN redaction_flag.log_id IS 'As in audit_logs.';
COMMENT ON COLUMN redaction_flag.paths IS 'The values that are cut, by path; never a value.';
COMMENT ON COLUMN redaction_flag.reason IS 'Why, as in the request.';
COMMENT ON COLUMN redaction_flag.redacted_by IS 'Who asked for it.';
COMMENT ON COLUMN redaction_flag.flagged_at IS 'When it was asked for.';
COMMENT ON COLUMN redaction_flag.redacted_at IS 'When the ledger''s blob was cut; null: not yet.';

CREATE TABLE IF NOT EXISTS redaction_policy (
    name text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    rule jsonb NOT NULL,
    rule_hash bytea NOT NULL CHECK (octet_length(rule_hash) = 32),
    enabled boolean NOT NULL DEFAULT true,
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE redaction_policy OWNER TO audit_owner;
GRANT SELECT ON redaction_policy TO audit_auditor;
GRANT SELECT, INSERT, UPDATE, DELETE ON redaction_policy TO audit_redactor;

COMMENT ON TABLE redaction_policy IS 'Policies of redaction, as their YAML files were applied.';
COMMENT ON COLUMN redaction_policy.name IS 'Name of the policy.';
COMMENT ON COLUMN redaction_policy.rule IS 'The rule: tenants, families, fields, data classes, value, age.';
COMMENT ON COLUMN redaction_policy.rule_hash IS 'SHA-256 of the rule: a changed rule looks at every event again.';
COMMENT ON COLUMN redaction_policy.enabled IS 'Whether the keeper applies it.';
COMMENT ON COLUMN redaction_policy.set_by IS 'Who set it.';
COMMENT ON COLUMN redaction_policy.set_at IS 'When.';

CREATE TABLE IF NOT EXISTS redaction_position (
    rule_hash bytea NOT NULL,
    log_id integer NOT NULL,
    next_leaf bigint NOT NULL CHECK (next_leaf >= 0),
    PRIMARY KEY (rule_hash, log_id)
);
ALTER TABLE redaction_position OWNER TO audit_owner;
GRANT SELECT ON redaction_position TO audit_auditor;
GRANT SELECT, INSERT, UPDATE, DELETE ON redaction_position TO audit_redactor;

COMMENT ON TABLE redaction_position IS 'How far each rule has looked at each log.';
COMMENT ON COLUMN redaction_position.rule_hash IS 'The rule, as in redaction_policy.';
COMMENT ON COLUMN redaction_position.log_id IS 'The log, as in log_heads.';
COMMENT ON COLUMN redaction_position.next_leaf IS 'First leaf that it has not looked at.';

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

CREATE OR REPLACE FUNCTION refuse_held_blob() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
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

CREATE OR REPLACE FUNCTION subjects_by_hash(hashes bytea[]) RETURNS TABLE (
    subject_hash bytea, generation integer, subject_ref uuid, tenant text, id_type text,
    first_occurred_at timestamptz, created_at timestamptz, erased_at timestamptz
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
    SELECT subject_hash, generation, subject_ref, tenant, id_type, first_occurred_at, created_at,
           erased_at
    FROM audit_user WHERE subject_hash = ANY (hashes) ORDER BY subject_hash, generation
$body$;
ALTER FUNCTION subjects_by_hash(bytea[]) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION subjects_by_hash(bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION subjects_by_hash(bytea[]) TO audit_writer, audit_redactor;
COMMENT ON FUNCTION subjects_by_hash(bytea[]) IS
    'What is known of persons, all generations, without their keys; makes none.';

CREATE OR REPLACE FUNCTION refuse_held_key() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    IF to_regclass('public.legal_hold') IS NOT NULL
       AND EXISTS (SELECT FROM legal_hold WHERE released_at IS NULL)
       AND EXISTS (SELECT FROM holds_on_subjects(ARRAY[OLD.subject_hash])) THEN
        RAISE EXCEPTION 'the key of subject % is under a legal hold', OLD.subject_ref
            USING ERRCODE = 'object_in_use';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$body$;
ALTER FUNCTION refuse_held_key() OWNER TO audit_owner;
REVOKE ALL ON FUNCTION refuse_held_key() FROM PUBLIC;
COMMENT ON FUNCTION refuse_held_key() IS
    'Trigger of audit_user: refuses to destroy the key of a person whose events a legal hold covers.';

CREATE OR REPLACE TRIGGER audit_user_refuse_held
    BEFORE DELETE OR UPDATE OF wrapped_key ON audit_user
    FOR EACH ROW EXECUTE FUNCTION refuse_held_key();

CREATE OR REPLACE FUNCTION month_sizes() RETURNS TABLE (
    month timestamptz, events bigint, bytes bigint
) LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' AS $body$
BEGIN
    RETURN QUERY
    SELECT to_timestamp(right(child.relname, 7), 'YYYY_MM'),
           greatest(child.reltuples, 0)::bigint,
           pg_total_relation_size(child.oid) + coalesce(pg_total_relation_size(
               to_regclass('public.audit_blobs_' || right(child.relname, 7))), 0)
    FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = to_regclass('public.audit_logs')
    ORDER BY 1;
END
$body$;
ALTER FUNCTION month_sizes() OWNER TO audit_owner;
REVOKE ALL ON FUNCTION month_sizes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION month_sizes() TO audit_redactor, audit_auditor;
COMMENT ON FUNCTION month_sizes() IS
    'The months that have partitions, about how many events each has, and the bytes that both its partitions take.';

CREATE OR REPLACE FUNCTION month_contents(month_start timestamptz) RETURNS TABLE (
    log_id integer, tenant text, class text, events bigint, next_leaf bigint,
    first_stored_at timestamptz, last_stored_at timestamptz
) LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' AS $body$
BEGIN
    -- The month itself and not its parent: its owner is not bound by row-level security there.
    RETURN QUERY EXECUTE format(
        'SELECT log_id, tenant, coalesce(event #>> ''{clear,retention_class}'', ''''), count(*), '
        'max(leaf_index) + 1, min(stored_at), max(stored_at) FROM public.%I GROUP BY 1, 2, 3 ORDER BY 1, 2, 3',
        'audit_logs' || to_char(month_start, '"_"YYYY"_"MM'));
END
$body$;
ALTER FUNCTION month_contents(timestamptz) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION month_contents(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION month_contents(timestamptz) TO audit_redactor;
COMMENT ON FUNCTION month_contents(timestamptz) IS
    'How many events of which log, tenant and retention class a month has, the leaf after the last one, and when the oldest and the newest were stored.';

CREATE OR REPLACE FUNCTION drop_month(month_start timestamptz, request uuid) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' AS $body$
#variable_conflict use_variable
DECLARE
    suffix text := to_char(month_start, '"_"YYYY"_"MM');
    ordered record;
    counted bigint;
    freed bigint := 0;
    child text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('audit.months'));
    IF to_regclass('public.audit_logs' || suffix) IS NULL
       AND to_regclass('public.audit_blobs' || suffix) IS NULL THEN
        RETURN 0;
    END IF;
    SELECT * INTO ordered FROM removal_request
    WHERE request_id = request AND kind = 'expiry' AND state = 'ordered' AND tenant IS NULL
        AND removal_request.month = month_start::date;
    -- Its authority is a leaf: whoever may call this cannot make a month vanish unseen.
    IF NOT FOUND OR NOT EXISTS (SELECT FROM leaves WHERE event_id = ordered.event_id) THEN
        RAISE EXCEPTION 'no order for this month is in the ledger'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    FOR child IN SELECT unnest(ARRAY['audit_blobs' || suffix, 'audit_logs' || suffix]) LOOP
        CONTINUE WHEN to_regclass('public.' || child) IS NULL;
        -- No row comes after this look.
        EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', child);
        EXECUTE format(
            'SELECT count(*) FROM public.%I AS rows JOIN log_heads USING (log_id) '
            'WHERE rows.leaf_index >= coalesce(($1 ->> log_heads.name)::bigint, 0)', child)
            INTO counted USING ordered.bounds;
        IF counted > 0 THEN
            RAISE EXCEPTION '% rows of % came after the order', counted, child
                USING ERRCODE = 'object_in_use';
        END IF;
    END LOOP;
    SELECT count(*) INTO counted FROM log_heads
    LEFT JOIN follower_position AS archived
        ON archived.log_id = log_heads.log_id AND archived.follower = 'archive'
    WHERE (ordered.bounds ->> log_heads.name)::bigint > coalesce(archived.next_leaf, 0);
    IF counted > 0 THEN
        RAISE EXCEPTION '% logs are not archived as far as the order goes', counted
            USING ERRCODE = 'object_in_use';
    END IF;
    IF EXISTS (SELECT FROM holds_on_month(month_start)) THEN
        RAISE EXCEPTION 'the month is under a legal hold' USING ERRCODE = 'object_in_use';
    END IF;
    FOR child IN SELECT unnest(ARRAY['audit_blobs' || suffix, 'audit_logs' || suffix]) LOOP
        CONTINUE WHEN to_regclass('public.' || child) IS NULL;
        freed := freed + pg_total_relation_size(to_regclass('public.' || child));
        EXECUTE format('DROP TABLE public.%I', child);
    END LOOP;
    RETURN freed;
END
$body$;
ALTER FUNCTION drop_month(timestamptz, uuid) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION drop_month(timestamptz, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_month(timestamptz, uuid) TO audit_redactor;
COMMENT ON FUNCTION drop_month(timestamptz, uuid) IS
    'Drops the partitions of a month under an expiry whose leaf the ledger has, when all of it is archived and nothing of it held; the bytes that it freed. A month that is gone frees none.';
