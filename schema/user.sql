-- Data subjects: from a keyed hash of who they are to a random reference and a wrapped key.
-- No clear id anywhere. Workers reach the table through functions only, which take the erasure lock.

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

CREATE TABLE IF NOT EXISTS audit_user (
    subject_hash bytea NOT NULL CHECK (octet_length(subject_hash) = 32),
    generation integer NOT NULL DEFAULT 1 CHECK (generation >= 1),
    subject_ref uuid NOT NULL UNIQUE,
    tenant text NOT NULL,
    id_type text NOT NULL,
    wrapped_key bytea,
    first_occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    erased_at timestamptz,
    escrow text,
    erasure_epoch bigint,
    PRIMARY KEY (subject_hash, generation),
    CHECK ((wrapped_key IS NULL) = (erased_at IS NOT NULL))
);
ALTER TABLE audit_user OWNER TO audit_owner;
-- Whether a key is gone, and since when; neither the keys nor what finds a person.
GRANT SELECT (generation, subject_ref, tenant, id_type, first_occurred_at, created_at, erased_at, escrow)
    ON audit_user TO audit_auditor;

COMMENT ON TABLE audit_user IS
    'Data subjects and their wrapped keys. A subject is (home tenant, id type, id), known here by a keyed hash alone.';
COMMENT ON COLUMN audit_user.subject_hash IS
    'HMAC-SHA-256 of the subject under a secret of the key provider.';
COMMENT ON COLUMN audit_user.generation IS '1, and one more when the subject acts again after an erasure.';
COMMENT ON COLUMN audit_user.subject_ref IS 'Random reference: what rows, archive, logs and alerts carry.';
COMMENT ON COLUMN audit_user.tenant IS 'Home tenant, whose key wraps wrapped_key.';
COMMENT ON COLUMN audit_user.id_type IS 'Kind of id, such as user_id.';
COMMENT ON COLUMN audit_user.wrapped_key IS
    'The subject''s 256-bit key, wrapped (60 bytes); null once erased.';
COMMENT ON COLUMN audit_user.first_occurred_at IS 'occurred_at of the event that made the key.';
COMMENT ON COLUMN audit_user.created_at IS 'When the row was made.';
COMMENT ON COLUMN audit_user.erased_at IS 'When the key was destroyed; null: it lives.';
COMMENT ON COLUMN audit_user.escrow IS 'Vault object that holds a copy of the key; null: not yet copied.';
COMMENT ON COLUMN audit_user.erasure_epoch IS
    'erasure_state.epoch of the erasure that destroyed the key, or moved erased_at last.';
-- For: what a worker has not applied yet, asked each second.
CREATE INDEX IF NOT EXISTS audit_user_erasure_epoch ON audit_user (erasure_epoch)
    WHERE erasure_epoch IS NOT NULL;

CREATE TABLE IF NOT EXISTS erasure_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch bigint NOT NULL DEFAULT 0
);
ALTER TABLE erasure_state OWNER TO audit_owner;
INSERT INTO erasure_state DEFAULT VALUES ON CONFLICT DO NOTHING;
GRANT SELECT ON erasure_state TO audit_writer, audit_redactor;

COMMENT ON TABLE erasure_state IS
    'The erasure lock: whoever makes keys holds its one row shared, an erasure holds it alone.';
COMMENT ON COLUMN erasure_state.only_row IS 'Always true: there is one row.';
COMMENT ON COLUMN erasure_state.epoch IS 'One more at each erasure.';

CREATE OR REPLACE FUNCTION subject_keys(
    hashes bytea[], tenants text[], id_types text[], refs uuid[], wrapped bytea[],
    occurred timestamptz[]
) RETURNS TABLE (
    subject_hash bytea, generation integer, subject_ref uuid, tenant text, wrapped_key bytea,
    created boolean, escrowed boolean, erased_until timestamptz
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
#variable_conflict use_column
BEGIN
    PERFORM FROM erasure_state FOR SHARE;
    -- Sorted: two calls that make the same subjects wait for each other, never in a circle.
    -- A subject whose newest key is erased opens a new generation for what happened afterwards.
    INSERT INTO audit_user
        (subject_hash, generation, subject_ref, tenant, id_type, wrapped_key, first_occurred_at)
    SELECT proposed.hash, coalesce(newest.generation, 0) + 1, proposed.ref, proposed.tenant,
           proposed.id_type, proposed.wrapped_key, proposed.occurred_at
    FROM unnest(hashes, refs, tenants, id_types, wrapped, occurred)
             AS proposed (hash, ref, tenant, id_type, wrapped_key, occurred_at)
    LEFT JOIN LATERAL (
        SELECT audit_user.generation, audit_user.erased_at FROM audit_user
        WHERE audit_user.subject_hash = proposed.hash
        ORDER BY audit_user.generation DESC LIMIT 1
    ) AS newest ON true
    WHERE newest.generation IS NULL OR newest.erased_at < proposed.occurred_at
    ORDER BY proposed.hash
    ON CONFLICT DO NOTHING;
    -- A statement of its own: it sees what a call that won meanwhile has committed.
    RETURN QUERY
    SELECT newest.subject_hash, newest.generation, newest.subject_ref, newest.tenant,
           newest.wrapped_key, newest.subject_ref = ANY (refs), newest.escrow IS NOT NULL,
           -- What happened up to then is sealed to nobody, whoever came back since.
           (SELECT max(audit_user.erased_at) FROM audit_user
            WHERE audit_user.subject_hash = wanted.hash)
    FROM (SELECT DISTINCT unnest(hashes) AS hash) AS wanted
    CROSS JOIN LATERAL (
        SELECT * FROM audit_user
        WHERE audit_user.subject_hash = wanted.hash
        ORDER BY audit_user.generation DESC LIMIT 1
    ) AS newest
    WHERE newest.wrapped_key IS NOT NULL;
END
$body$;
ALTER FUNCTION subject_keys(bytea[], text[], text[], uuid[], bytea[], timestamptz[])
    OWNER TO audit_owner;
REVOKE ALL ON FUNCTION subject_keys(bytea[], text[], text[], uuid[], bytea[], timestamptz[])
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION subject_keys(bytea[], text[], text[], uuid[], bytea[], timestamptz[])
    TO audit_writer;
COMMENT ON FUNCTION subject_keys(bytea[], text[], text[], uuid[], bytea[], timestamptz[]) IS
    'Finds or makes the key of each subject and returns the one that holds, whoever proposed it. A subject erased at or after occurred_at has no row: seal its values to nobody, and so those of earlier events of one that came back (erased_until).';

CREATE OR REPLACE FUNCTION subject_keys_by_ref(refs uuid[]) RETURNS TABLE (
    subject_hash bytea, generation integer, subject_ref uuid, tenant text, id_type text,
    wrapped_key bytea, first_occurred_at timestamptz, escrow text
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
    SELECT subject_hash, generation, subject_ref, tenant, id_type, wrapped_key, first_occurred_at,
           escrow
    FROM audit_user
    WHERE subject_ref = ANY (refs) AND wrapped_key IS NOT NULL
$body$;
ALTER FUNCTION subject_keys_by_ref(uuid[]) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION subject_keys_by_ref(uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION subject_keys_by_ref(uuid[]) TO audit_writer;
COMMENT ON FUNCTION subject_keys_by_ref(uuid[]) IS
    'The living keys of subjects, for opening blobs and for escrow; erased and unknown refs have no row.';

CREATE OR REPLACE FUNCTION subject_refs(hashes bytea[]) RETURNS TABLE (subject_ref uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
    SELECT subject_ref FROM audit_user WHERE subject_hash = ANY (hashes) ORDER BY subject_ref
$body$;
ALTER FUNCTION subject_refs(bytea[]) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION subject_refs(bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION subject_refs(bytea[]) TO audit_writer;
COMMENT ON FUNCTION subject_refs(bytea[]) IS
    'The refs of all generations of subjects, those whose key is gone too: by which a person is in events. Makes nothing.';

CREATE OR REPLACE FUNCTION mark_escrowed(refs uuid[], object_name text) RETURNS uuid[]
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    UPDATE audit_user SET escrow = object_name
    WHERE subject_ref = ANY (refs) AND escrow IS NULL AND wrapped_key IS NOT NULL;
    RETURN ARRAY(SELECT subject_ref FROM audit_user
                 WHERE subject_ref = ANY (refs) AND wrapped_key IS NULL ORDER BY subject_ref);
END
$body$;
ALTER FUNCTION mark_escrowed(uuid[], text) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION mark_escrowed(uuid[], text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mark_escrowed(uuid[], text) TO audit_writer;
COMMENT ON FUNCTION mark_escrowed(uuid[], text) IS
    'Remembers which vault object holds a copy of the keys; the first one named stays. Returns those that were erased meanwhile: the object must be rewritten without them.';

CREATE OR REPLACE FUNCTION unescrowed_keys(at_most integer) RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
    SELECT subject_ref FROM audit_user WHERE escrow IS NULL AND wrapped_key IS NOT NULL LIMIT at_most
$body$;
ALTER FUNCTION unescrowed_keys(integer) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION unescrowed_keys(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION unescrowed_keys(integer) TO audit_writer;
COMMENT ON FUNCTION unescrowed_keys(integer) IS
    'Living keys that no vault object is remembered for: they must be there before the key journal is cut.';

CREATE OR REPLACE FUNCTION erasures_since(applied bigint) RETURNS TABLE (
    subject_hash bytea, subject_ref uuid, erased_at timestamptz
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
    SELECT subject_hash, subject_ref, erased_at FROM audit_user WHERE erasure_epoch > applied
$body$;
ALTER FUNCTION erasures_since(bigint) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION erasures_since(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erasures_since(bigint) TO audit_writer;
COMMENT ON FUNCTION erasures_since(bigint) IS
    'Subjects whose keys a worker must drop that has applied erasures up to this epoch.';

CREATE OR REPLACE FUNCTION subject_is_erased(ref uuid) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
    SELECT EXISTS (SELECT FROM audit_user WHERE subject_ref = ref AND wrapped_key IS NULL)
$body$;
ALTER FUNCTION subject_is_erased(uuid) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION subject_is_erased(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION subject_is_erased(uuid) TO audit_writer, audit_redactor;
COMMENT ON FUNCTION subject_is_erased(uuid) IS
    'Whether a subject''s key was destroyed: an event of theirs that comes again hashes otherwise, so its id alone makes it a duplicate.';

CREATE INDEX IF NOT EXISTS audit_user_escrow ON audit_user (escrow) WHERE escrow IS NOT NULL;
CREATE OR REPLACE FUNCTION newest_escrow() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
    SELECT max(escrow) FROM audit_user WHERE escrow IS NOT NULL
$body$;
ALTER FUNCTION newest_escrow() OWNER TO audit_owner;
REVOKE ALL ON FUNCTION newest_escrow() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION newest_escrow() TO audit_writer;
COMMENT ON FUNCTION newest_escrow() IS
    'The newest vault object that holds keys; newer ones in the vault hold keys that a rollback took.';

CREATE OR REPLACE FUNCTION restore_subject_keys(
    hashes bytea[], generations integer[], tenants text[], id_types text[], refs uuid[],
    wrapped bytea[], occurred timestamptz[]
) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    entry record;
    inserted integer := 0;
BEGIN
    -- Alone: a key that is made meanwhile could take the place of one that comes back.
    PERFORM FROM erasure_state FOR UPDATE;
    FOR entry IN
        SELECT * FROM unnest(hashes, generations, tenants, id_types, refs, wrapped, occurred)
                 AS given (hash, generation, tenant, id_type, ref, wrapped_key, occurred_at)
        ORDER BY hash, generation
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM audit_user WHERE subject_ref = entry.ref);
        -- A copy that an erasure did not find (written by a worker that was stopped meanwhile) opens
        -- nothing again.
        CONTINUE WHEN EXISTS (SELECT FROM audit_user WHERE subject_hash = entry.hash
                              AND erased_at >= entry.occurred_at);
        -- Where a key made since the rollback stands in its place, it follows as a generation of
        -- its own: the blobs of both must open.
        INSERT INTO audit_user
            (subject_hash, generation, subject_ref, tenant, id_type, wrapped_key, first_occurred_at)
        SELECT entry.hash,
               CASE WHEN EXISTS (SELECT FROM audit_user
                                 WHERE subject_hash = entry.hash AND generation = entry.generation)
                    THEN (SELECT max(generation) + 1 FROM audit_user
                          WHERE subject_hash = entry.hash)
                    ELSE entry.generation END,
               entry.ref, entry.tenant, entry.id_type, entry.wrapped_key, entry.occurred_at;
        inserted := inserted + 1;
    END LOOP;
    RETURN inserted;
END
$body$;
ALTER FUNCTION restore_subject_keys(
    bytea[], integer[], text[], text[], uuid[], bytea[], timestamptz[]) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION restore_subject_keys(
    bytea[], integer[], text[], text[], uuid[], bytea[], timestamptz[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION restore_subject_keys(
    bytea[], integer[], text[], text[], uuid[], bytea[], timestamptz[]) TO audit_writer;
COMMENT ON FUNCTION restore_subject_keys(
    bytea[], integer[], text[], text[], uuid[], bytea[], timestamptz[]) IS
    'Brings back keys from escrow after a rollback of the database; refs that are there stay as they are. Returns how many rows came back.';

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
    PERFORM pg_advisory_xact_lock_shared(hashtext('audit.holds'));  -- see order_hold()
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

COMMIT;
