-- Months: the partitions of audit_logs and audit_blobs, made ahead and on demand.
-- The functions take whichever of the two tables exist.

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

CREATE OR REPLACE FUNCTION ensure_month(at timestamptz) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' AS $body$
DECLARE
    month_start timestamptz := date_trunc('month', at);
BEGIN
    IF at IS NULL OR month_start < timestamptz '1990-01-01 00:00:00+00'
       OR month_start > date_trunc('month', now()) + interval '1 month' THEN
        RAISE EXCEPTION 'no partition is made for this month: it is before 1990 or too far ahead'
            USING ERRCODE = 'datetime_field_overflow';
    END IF;
    RETURN make_month(month_start);
END
$body$;
ALTER FUNCTION ensure_month(timestamptz) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION ensure_month(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_month(timestamptz) TO audit_writer;
COMMENT ON FUNCTION ensure_month(timestamptz) IS
    'Makes the partitions of the month of a time, if they are missing; true: made. Months before 1990 or later than next month are refused.';

CREATE OR REPLACE FUNCTION ensure_months(ahead integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' AS $body$
DECLARE
    made integer := 0;
BEGIN
    IF ahead IS NULL OR ahead NOT BETWEEN 0 AND 24 THEN
        RAISE EXCEPTION 'months are made at most 24 ahead' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR step IN 0 .. ahead LOOP
        IF make_month(date_trunc('month', now()) + make_interval(months => step)) THEN
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$body$;
ALTER FUNCTION ensure_months(integer) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION ensure_months(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_months(integer) TO audit_writer;
COMMENT ON FUNCTION ensure_months(integer) IS
    'Makes the partitions of this month and of so many after it; returns how many months were made.';

-- Create, then ATTACH: a lock that lets writers go on, where PARTITION OF would stop them.
CREATE OR REPLACE FUNCTION make_month(month_start timestamptz) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' AS $body$
DECLARE
    month_end timestamptz := month_start + interval '1 month';
    parent text;
    child text;
    made boolean := false;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('audit.months'));
    FOREACH parent IN ARRAY ARRAY['audit_logs', 'audit_blobs'] LOOP
        child := parent || to_char(month_start, '"_"YYYY"_"MM');
        CONTINUE WHEN to_regclass('public.' || parent) IS NULL
                   OR to_regclass('public.' || child) IS NOT NULL;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS '
                       'INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMMENTS)', child, parent);
        -- Reached through its parent only: by itself nobody but the owner has a right to it.
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', child);
        IF parent = 'audit_logs' THEN
            -- Triggers by statement are not inherited, and a statement can name a month directly.
            EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE '
                           'ON public.%I FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change()',
                           child);
            EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER refuse_change', child);
        END IF;
        EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                       parent, child, month_start, month_end);
        EXECUTE format('COMMENT ON TABLE public.%I IS %L', child,
                       'Rows of ' || parent || ' of one month of occurred_at, UTC.');
        made := true;
    END LOOP;
    RETURN made;
END
$body$;
ALTER FUNCTION make_month(timestamptz) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION make_month(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION make_month(timestamptz) IS
    'Makes and attaches the partitions that begin at a time; called by ensure_month and ensure_months only.';

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
    PERFORM pg_advisory_xact_lock_shared(hashtext('audit.holds'));  -- see order_hold()
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

COMMIT;
