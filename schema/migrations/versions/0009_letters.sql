-- The row of a letter that an erasure made unreadable stays: it says by which.
ALTER TABLE dead_letter_key ALTER COLUMN wrapped_key DROP NOT NULL;
ALTER TABLE dead_letter_key ADD COLUMN destroyed_by uuid;
ALTER TABLE dead_letter_key ADD CONSTRAINT dead_letter_key_destroyed
    CHECK ((wrapped_key IS NULL) = (destroyed_by IS NOT NULL));
CREATE INDEX dead_letter_key_destroyed_by ON dead_letter_key (destroyed_by)
    WHERE destroyed_by IS NOT NULL;
REVOKE DELETE ON dead_letter_key FROM audit_redactor;
GRANT SELECT (destroyed_by) ON dead_letter_key TO audit_auditor;
GRANT SELECT (destroyed_by), UPDATE (wrapped_key, raw_key_hash, destroyed_by)
    ON dead_letter_key TO audit_redactor;
COMMENT ON TABLE dead_letter_key IS
    'Keys of dead letters, by the position of the record. Without its key a letter is unreadable.';
COMMENT ON COLUMN dead_letter_key.wrapped_key IS
    'Key of the letter, wrapped by the key provider; null: destroyed.';
COMMENT ON COLUMN dead_letter_key.destroyed_by IS
    'The erasure that destroyed the key; null: it is there.';

-- Applied again, an erasure finds the dead letters that nobody can decode, too.
DROP FUNCTION reapply_erasure(uuid, text, text[], bytea[], uuid[], timestamptz);
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
