-- What finds a person's events, without making a key.
CREATE OR REPLACE FUNCTION subject_refs(hashes bytea[]) RETURNS TABLE (subject_ref uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
    SELECT subject_ref FROM audit_user WHERE subject_hash = ANY (hashes) ORDER BY subject_ref
$body$;
ALTER FUNCTION subject_refs(bytea[]) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION subject_refs(bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION subject_refs(bytea[]) TO audit_writer;
COMMENT ON FUNCTION subject_refs(bytea[]) IS
    'The refs of all generations of subjects, those whose key is gone too: by which a person is in events. Makes nothing.';
