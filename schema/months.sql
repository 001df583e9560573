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

COMMIT;
