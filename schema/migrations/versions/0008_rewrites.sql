-- Orders those who overwrite documents of the index.
CREATE SEQUENCE IF NOT EXISTS rewrite_number;
ALTER SEQUENCE rewrite_number OWNER TO audit_owner;
COMMENT ON SEQUENCE rewrite_number IS
    'Numbers of rewrites of the index; next_rewrite() alone moves it.';

CREATE OR REPLACE FUNCTION next_rewrite() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    number bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('next_rewrite'));
    number := greatest(nextval('public.rewrite_number'),
                       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    RETURN setval('public.rewrite_number', number);
END
$body$;
ALTER FUNCTION next_rewrite() OWNER TO audit_owner;
REVOKE ALL ON FUNCTION next_rewrite() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION next_rewrite() TO audit_redactor;
COMMENT ON FUNCTION next_rewrite() IS
    'Higher at each call, and microseconds since 1970 at least: it grows over a restore, too.';
