-- Requests to erase a person: who asked, who allowed it, how far it is, what was done.
-- A person is known here by a keyed hash alone. The functions are the only way to destroy a key.

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

CREATE TABLE IF NOT EXISTS redaction_request (
    request_id uuid NOT NULL PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('erasure')),
    state text NOT NULL DEFAULT 'requested'
        CHECK (state IN ('requested', 'approved', 'running', 'inaccessible', 'complete', 'withdrawn')),
    tenant text NOT NULL,
    id_types text[] NOT NULL,
    subject_hashes bytea[] NOT NULL CHECK (cardinality(subject_hashes) BETWEEN 1 AND 64),
    raw_key_hashes bytea[] NOT NULL,
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    four_eyes boolean NOT NULL DEFAULT true,
    approved_by text,
    approved_at timestamptz,
    erased_at timestamptz,
    epoch bigint,
    subject_refs uuid[] NOT NULL DEFAULT '{}',
    steps jsonb NOT NULL DEFAULT '{}',
    pending text NOT NULL DEFAULT '',
    inaccessible_since timestamptz,
    gone_by timestamptz,
    completed_at timestamptz,
    certificate text,
    CONSTRAINT redaction_request_four_eyes
        CHECK (approved_by IS NULL OR NOT four_eyes OR approved_by <> requested_by),
    CHECK ((approved_by IS NULL) = (approved_at IS NULL)),
    CHECK ((erased_at IS NULL) = (epoch IS NULL)),
    CHECK (state IN ('requested', 'withdrawn') OR approved_at IS NOT NULL)
);
ALTER TABLE redaction_request OWNER TO audit_owner;
GRANT SELECT ON redaction_request TO audit_redactor, audit_writer, audit_auditor;
GRANT INSERT (request_id, kind, tenant, id_types, subject_hashes, raw_key_hashes, reason,
    requested_by, four_eyes) ON redaction_request TO audit_redactor;
GRANT UPDATE (state, steps, pending, inaccessible_since, gone_by, completed_at, certificate)
    ON redaction_request TO audit_redactor;

COMMENT ON TABLE redaction_request IS
    'Erasures that were asked for. What is destroyed, is destroyed under one of these that was approved.';
COMMENT ON COLUMN redaction_request.request_id IS 'Random: what leaf, command and certificate name.';
COMMENT ON COLUMN redaction_request.kind IS 'erasure.';
COMMENT ON COLUMN redaction_request.state IS
    'requested, approved, running (begun), inaccessible (no interface gives the data any more), complete (the disks neither), withdrawn.';
COMMENT ON COLUMN redaction_request.tenant IS 'Home tenant of the person.';
COMMENT ON COLUMN redaction_request.id_types IS 'Kinds of the person''s ids, in the order of subject_hashes.';
COMMENT ON COLUMN redaction_request.subject_hashes IS 'Keyed hash of each of the person''s identifiers.';
COMMENT ON COLUMN redaction_request.raw_key_hashes IS
    'Keyed hash of the key that raw records of each identifier have: finds dead letters that cannot be decoded.';
COMMENT ON COLUMN redaction_request.reason IS 'Why, without personal data.';
COMMENT ON COLUMN redaction_request.requested_by IS 'Operator who asked.';
COMMENT ON COLUMN redaction_request.requested_at IS 'When.';
COMMENT ON COLUMN redaction_request.four_eyes IS 'Whether another operator must approve.';
COMMENT ON COLUMN redaction_request.approved_by IS 'Operator who allowed it; null: nobody yet.';
COMMENT ON COLUMN redaction_request.approved_at IS 'When.';
COMMENT ON COLUMN redaction_request.erased_at IS
    'When the keys were destroyed: what happened up to then is sealed to nobody from then on.';
COMMENT ON COLUMN redaction_request.epoch IS 'erasure_state.epoch that it made.';
COMMENT ON COLUMN redaction_request.subject_refs IS
    'Every reference, of all generations, whose key was destroyed.';
COMMENT ON COLUMN redaction_request.steps IS
    'Each step that is done: when, and what it counted or decided. A crash goes on with the first that is not.';
COMMENT ON COLUMN redaction_request.pending IS 'What it waits for; empty: nothing.';
COMMENT ON COLUMN redaction_request.inaccessible_since IS
    'From then on no interface gives the person''s data.';
COMMENT ON COLUMN redaction_request.gone_by IS 'By then the disks do not hold it either.';
COMMENT ON COLUMN redaction_request.completed_at IS 'When what was left on disks was seen to be gone.';
COMMENT ON COLUMN redaction_request.certificate IS 'The signed certificate, JSON.';

CREATE TABLE IF NOT EXISTS redaction_leaf (
    request_id uuid NOT NULL,
    log_id integer NOT NULL,
    leaf_index bigint NOT NULL,
    PRIMARY KEY (request_id, log_id, leaf_index)
);
ALTER TABLE redaction_leaf OWNER TO audit_owner;
-- For: whether a leaf's missing values have an authority.
CREATE INDEX IF NOT EXISTS redaction_leaf_leaf ON redaction_leaf (log_id, leaf_index);
GRANT SELECT, INSERT ON redaction_leaf TO audit_redactor;
GRANT SELECT ON redaction_leaf TO audit_writer, audit_auditor;

COMMENT ON TABLE redaction_leaf IS
    'The leaves that a request affects; the trail''s own leaf about the request commits to their Merkle root.';
COMMENT ON COLUMN redaction_leaf.request_id IS 'The request.';
COMMENT ON COLUMN redaction_leaf.log_id IS 'The log, as in log_heads.';
COMMENT ON COLUMN redaction_leaf.leaf_index IS 'The leaf.';


CREATE OR REPLACE FUNCTION approve_redaction(request uuid, operator text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    UPDATE redaction_request SET state = 'approved', approved_by = operator, approved_at = now()
    WHERE request_id = request AND state = 'requested';
END
$body$;
ALTER FUNCTION approve_redaction(uuid, text) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION approve_redaction(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION approve_redaction(uuid, text) TO audit_redactor;
COMMENT ON FUNCTION approve_redaction(uuid, text) IS
    'Allows a request that was asked for; with four eyes the operator who asked is refused (23514).';

CREATE OR REPLACE FUNCTION find_subjects(hashes bytea[]) RETURNS TABLE (
    subject_hash bytea, generation integer, subject_ref uuid, id_type text, escrow text,
    created_at timestamptz, erased_at timestamptz
) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    RETURN QUERY SELECT u.subject_hash, u.generation, u.subject_ref, u.id_type, u.escrow,
                        u.created_at, u.erased_at
    FROM audit_user AS u WHERE u.subject_hash = ANY (hashes)
    ORDER BY u.subject_hash, u.generation;
END
$body$;
ALTER FUNCTION find_subjects(bytea[]) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION find_subjects(bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_subjects(bytea[]) TO audit_redactor;
COMMENT ON FUNCTION find_subjects(bytea[]) IS
    'The references of subjects by their keyed hashes, all generations; no key.';

CREATE OR REPLACE FUNCTION ref_types(refs uuid[]) RETURNS TABLE (subject_ref uuid, id_type text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    RETURN QUERY SELECT u.subject_ref, u.id_type FROM audit_user AS u WHERE u.subject_ref = ANY (refs);
END
$body$;
ALTER FUNCTION ref_types(uuid[]) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION ref_types(uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ref_types(uuid[]) TO audit_redactor;
COMMENT ON FUNCTION ref_types(uuid[]) IS
    'The kind of id behind references: for the report of aliases.';

-- Destroys keys; called by the two functions below, under the erasure lock.
CREATE OR REPLACE FUNCTION destroy_keys(
    hashes bytea[], of_tenant text, types text[], at timestamptz, new_epoch bigint,
    made_until timestamptz
) RETURNS uuid[]
    LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    UPDATE audit_user SET wrapped_key = NULL, erased_at = at, erasure_epoch = new_epoch
    WHERE subject_hash = ANY (hashes) AND wrapped_key IS NOT NULL
        AND least(first_occurred_at, created_at) <= made_until;
    -- Erased before and not back since: what comes up to now is nobody's, too.
    UPDATE audit_user AS held SET erased_at = at, erasure_epoch = new_epoch
    WHERE subject_hash = ANY (hashes) AND wrapped_key IS NULL AND erased_at < at
        AND NOT EXISTS (SELECT FROM audit_user AS newer
                        WHERE newer.subject_hash = held.subject_hash
                            AND newer.generation > held.generation);
    -- Nobody has seen this identifier yet: a late event of it must find that it was erased.
    INSERT INTO audit_user (subject_hash, generation, subject_ref, tenant, id_type, wrapped_key,
        first_occurred_at, erased_at, erasure_epoch)
    SELECT wanted.hash, 1, gen_random_uuid(), of_tenant, wanted.id_type, NULL, at, at, new_epoch
    FROM unnest(hashes, types) AS wanted (hash, id_type)
    ON CONFLICT (subject_hash, generation) DO NOTHING;
    RETURN ARRAY(SELECT subject_ref FROM audit_user
                 WHERE subject_hash = ANY (hashes) AND wrapped_key IS NULL ORDER BY subject_ref);
END
$body$;
ALTER FUNCTION destroy_keys(bytea[], text, text[], timestamptz, bigint, timestamptz)
    OWNER TO audit_owner;
REVOKE ALL ON FUNCTION destroy_keys(bytea[], text, text[], timestamptz, bigint, timestamptz)
    FROM PUBLIC;
COMMENT ON FUNCTION destroy_keys(bytea[], text, text[], timestamptz, bigint, timestamptz) IS
    'Destroys the keys of subjects that were made until a time; the owner''s functions call it.';

CREATE OR REPLACE FUNCTION erase_subjects(request uuid) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    wanted redaction_request%ROWTYPE;
    moment timestamptz;
    refs uuid[];
    new_epoch bigint;
BEGIN
    SELECT * INTO wanted FROM redaction_request WHERE request_id = request FOR UPDATE;
    IF wanted.state IS DISTINCT FROM 'running' OR wanted.approved_at IS NULL THEN
        RAISE EXCEPTION 'no such request is approved and running'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF wanted.epoch IS NOT NULL THEN
        RETURN wanted.epoch;
    END IF;
    PERFORM FROM erasure_state FOR UPDATE;
    moment := clock_timestamp();
    UPDATE erasure_state SET epoch = epoch + 1 RETURNING epoch INTO new_epoch;
    refs := destroy_keys(wanted.subject_hashes, wanted.tenant, wanted.id_types, moment, new_epoch,
                         'infinity');
    UPDATE redaction_request SET erased_at = moment, epoch = new_epoch, subject_refs = refs
    WHERE request_id = request;
    RETURN new_epoch;
END
$body$;
ALTER FUNCTION erase_subjects(uuid) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION erase_subjects(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_subjects(uuid) TO audit_redactor;
COMMENT ON FUNCTION erase_subjects(uuid) IS
    'Destroys the keys of an approved request, all generations, and returns the epoch; again: nothing more, the same epoch.';

DROP FUNCTION IF EXISTS reapply_erasure(uuid, text, text[], bytea[], uuid[], timestamptz);
CREATE OR REPLACE FUNCTION reapply_erasure(
    request uuid, of_tenant text, types text[], hashes bytea[], gone_refs uuid[],
    raw_hashes bytea[], at timestamptz
) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
DECLARE
    refs uuid[];
    new_epoch bigint;
    known redaction_request%ROWTYPE;
BEGIN
    PERFORM FROM erasure_state FOR UPDATE;
    SELECT * INTO known FROM redaction_request WHERE request_id = request FOR UPDATE;
    IF known.epoch IS NOT NULL THEN
        RETURN false;
    END IF;
    UPDATE erasure_state SET epoch = epoch + 1 RETURNING epoch INTO new_epoch;
    refs := destroy_keys(hashes, of_tenant, types, at, new_epoch, at);
    -- A database that was lost comes back without the people whose keys are gone.
    refs := refs || ARRAY(
        SELECT DISTINCT gone.ref FROM unnest(gone_refs) AS gone (ref)
        WHERE NOT EXISTS (SELECT FROM audit_user AS held WHERE held.subject_ref = gone.ref)
        ORDER BY gone.ref
    );
    INSERT INTO redaction_request (request_id, kind, state, tenant, id_types, subject_hashes,
        raw_key_hashes, reason, requested_by, four_eyes, approved_by, approved_at, erased_at, epoch,
        subject_refs)
    VALUES (request, 'erasure', 'running', of_tenant, types, hashes, raw_hashes,
        'applied again: the database was restored from before it', 'reapply', false, 'reapply', at,
        at, new_epoch, refs)
    ON CONFLICT (request_id) DO UPDATE
    SET state = 'running', erased_at = at, epoch = new_epoch, subject_refs = refs, steps = '{}',
        certificate = NULL, inaccessible_since = NULL, gone_by = NULL,
        four_eyes = redaction_request.four_eyes AND redaction_request.approved_by IS NOT NULL,
        approved_by = coalesce(redaction_request.approved_by, 'reapply'),
        approved_at = coalesce(redaction_request.approved_at, at);
    RETURN true;
END
$body$;
ALTER FUNCTION reapply_erasure(uuid, text, text[], bytea[], uuid[], bytea[], timestamptz) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION reapply_erasure(uuid, text, text[], bytea[], uuid[], bytea[], timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reapply_erasure(uuid, text, text[], bytea[], uuid[], bytea[], timestamptz)
    TO audit_redactor;
COMMENT ON FUNCTION reapply_erasure(uuid, text, text[], bytea[], uuid[], bytea[], timestamptz) IS
    'After a restore of the database: an erasure that it lost, as the trail''s leaf and the topic of commands have it; a key made since stays. False: the database knows it.';

CREATE OR REPLACE FUNCTION heads_after_erasure() RETURNS TABLE (
    log_id integer, name text, topic text, partition integer, size bigint, next_offset bigint
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    -- Shared locks wait for the ledger transactions that are under way: whatever begins afterwards
    -- sees the new epoch, and stores nothing that was sealed before it.
    RETURN QUERY SELECT h.log_id, h.name, h.topic, h.partition, h.size, h.next_offset
    FROM log_heads AS h ORDER BY h.log_id FOR SHARE;
END
$body$;
ALTER FUNCTION heads_after_erasure() OWNER TO audit_owner;
REVOKE ALL ON FUNCTION heads_after_erasure() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION heads_after_erasure() TO audit_redactor;
COMMENT ON FUNCTION heads_after_erasure() IS
    'Every head, once no ledger transaction of an earlier epoch is under way.';

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

COMMIT;
