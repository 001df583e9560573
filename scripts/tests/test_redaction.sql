-- Redaction, as the roles of production see it. Against a migrated database, changes nothing:
--   psql --no-psqlrc --set ON_ERROR_STOP=1 --dbname "$AUDIT_DATABASE_ADMIN_URL" --file scripts/tests/test_redaction.sql
-- Every block raises when something is not as it should be.

BEGIN;

SELECT ensure_month(timestamptz '2025-10-09 00:00:00+00');

INSERT INTO log_heads (name, topic, partition, epoch, cluster_id, topic_id)
VALUES ('audit.raw.sql-test/0/1', 'audit.raw.sql-test', 0, 1, 'c', 't');

CREATE TEMP TABLE sample ON COMMIT DROP AS
SELECT log_id, leaf AS leaf_index, timestamptz '2025-10-09 08:53:20+00' AS occurred_at,
       md5('event ' || leaf)::uuid AS event_id, md5('person ' || leaf)::uuid AS subject_ref
FROM log_heads, generate_series(0, 3) AS leaf WHERE name = 'audit.raw.sql-test/0/1';
GRANT SELECT ON sample TO audit_writer, audit_redactor;

SET LOCAL ROLE audit_writer;
INSERT INTO leaves (leaf_index, occurred_at, log_id, event_id, leaf_hash)
SELECT leaf_index, occurred_at, log_id, event_id, sha256(event_id::text::bytea) FROM sample;
INSERT INTO audit_logs (leaf_index, source_offset, occurred_at, stored_at, broker_timestamp, event_id,
    log_id, schema_id, late, imported, actor_ref, family, tenant, action, outcome, severity,
    actor_type, event)
SELECT leaf_index, leaf_index, occurred_at, now(), now(), event_id, log_id, 1, false, false,
    subject_ref, 'authentication', 'sql-test', 'session.start', 'success', 'informational', 'user',
    '{"clear":{},"family":"authentication","sealed":{},"v":1}'
FROM sample;
INSERT INTO audit_blobs (leaf_index, occurred_at, subject_ref, log_id, nonce, ciphertext)
SELECT leaf_index, occurred_at, subject_ref, log_id, decode(repeat('00', 12), 'hex'), 'sealed'
FROM sample;

-- The writer changes no blob.
DO $test$
BEGIN
    UPDATE audit_blobs SET ciphertext = 'other' WHERE ciphertext = 'sealed';
    RAISE EXCEPTION 'the writer changed a blob';
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$test$;
RESET ROLE;

SET LOCAL ROLE audit_redactor;

-- The redactor changes nonce and ciphertext, and nothing else of a blob.
UPDATE audit_blobs SET nonce = decode(repeat('01', 12), 'hex'), ciphertext = 'cut'
FROM sample WHERE (audit_blobs.log_id, audit_blobs.leaf_index) = (sample.log_id, sample.leaf_index)
    AND audit_blobs.occurred_at = sample.occurred_at AND audit_blobs.leaf_index = 0;
DO $test$
DECLARE
    found integer;
BEGIN
    SELECT count(*) INTO found FROM audit_blobs JOIN sample USING (log_id, leaf_index, occurred_at)
    WHERE ciphertext = 'cut' AND nonce = decode(repeat('01', 12), 'hex');
    IF found <> 1 THEN
        RAISE EXCEPTION 'expected one blob that is cut, found %', found;
    END IF;
    UPDATE audit_blobs SET subject_ref = gen_random_uuid() WHERE ciphertext = 'cut';
    RAISE EXCEPTION 'the redactor gave a blob to somebody else';
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$test$;

-- It changes no event and no leaf.
DO $test$
BEGIN
    UPDATE audit_logs SET tenant = 'other';
    RAISE EXCEPTION 'the redactor changed an event';
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$test$;

-- A request is ordered only once the ledger has its leaf; a flag says what is cut, and is set once.
INSERT INTO removal_request (request_id, kind, tenant, reason, requested_by, event_id, leaves, root, order_hash)
SELECT md5('request')::uuid, 'redaction', 'sql-test', 'a test', 'tester', event_id, 1, sha256('root'),
    sha256('order') FROM sample WHERE leaf_index = 3;
INSERT INTO redaction_flag (leaf_index, occurred_at, request_id, log_id, paths, reason, redacted_by)
SELECT leaf_index, occurred_at, md5('request')::uuid, log_id, ARRAY['actor.email'], 'a test', 'tester'
FROM sample WHERE leaf_index = 0;
UPDATE redaction_flag SET redacted_at = now() WHERE request_id = md5('request')::uuid;
DO $test$
BEGIN
    UPDATE redaction_flag SET paths = ARRAY['actor.name'] WHERE request_id = md5('request')::uuid;
    RAISE EXCEPTION 'a flag was changed afterwards';
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$test$;
DO $test$
BEGIN
    DELETE FROM redaction_flag WHERE request_id = md5('request')::uuid;
    RAISE EXCEPTION 'a flag was removed';
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$test$;

-- A hold outranks it: on a person, on an event, on a tenant; and a released one does not.
INSERT INTO legal_hold (hold_id, tenant, event_id, reason, owner, placed_by)
SELECT md5('hold')::uuid, 'sql-test', event_id, 'a case', 'legal', 'tester' FROM sample WHERE leaf_index = 1;
DO $test$
DECLARE
    held bigint[];
BEGIN
    SELECT array_agg(found.leaf_index ORDER BY found.leaf_index) INTO held
    FROM (SELECT DISTINCT log_id FROM sample) AS logs, held_leaves(logs.log_id, 0, 100) AS found;
    IF held IS DISTINCT FROM ARRAY[1::bigint] THEN
        RAISE EXCEPTION 'expected leaf 1 to be held, found %', held;
    END IF;
    DELETE FROM audit_blobs USING sample
    WHERE (audit_blobs.log_id, audit_blobs.leaf_index) = (sample.log_id, sample.leaf_index)
        AND audit_blobs.occurred_at = sample.occurred_at AND audit_blobs.leaf_index = 1;
    RAISE EXCEPTION 'a held blob was removed';
EXCEPTION WHEN object_in_use THEN
    NULL;
END
$test$;
UPDATE legal_hold SET released_by = 'tester', released_at = now() WHERE hold_id = md5('hold')::uuid;
DELETE FROM audit_blobs USING sample
WHERE (audit_blobs.log_id, audit_blobs.leaf_index) = (sample.log_id, sample.leaf_index)
    AND audit_blobs.occurred_at = sample.occurred_at AND audit_blobs.leaf_index = 1;

-- Nobody places a hold in another's name afterwards, or takes one away.
DO $test$
BEGIN
    UPDATE legal_hold SET owner = 'nobody';
    RAISE EXCEPTION 'a hold was changed';
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$test$;
RESET ROLE;

-- The commitments are where they were: no event changed.
DO $test$
DECLARE
    found integer;
BEGIN
    PERFORM set_config('audit.tenant', 'sql-test', true);
    SELECT count(*) INTO found FROM audit_logs JOIN sample USING (log_id, leaf_index, occurred_at);
    IF found <> 4 THEN
        RAISE EXCEPTION 'expected four events, found %', found;
    END IF;
END
$test$;

ROLLBACK;
