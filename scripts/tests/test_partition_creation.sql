-- Months: made on demand and ahead, protected like their parents, dropped only under an order.
--   psql --no-psqlrc --set ON_ERROR_STOP=1 --dbname "$AUDIT_DATABASE_ADMIN_URL" --file scripts/tests/test_partition_creation.sql
-- Every block raises when something is not as it should be. Changes nothing.

BEGIN;

SET LOCAL ROLE audit_writer;
DO $test$
BEGIN
    IF NOT ensure_month(timestamptz '1999-12-31 23:59:59.999999+00') THEN
        RAISE EXCEPTION 'the month was there already';
    END IF;
    IF ensure_month(timestamptz '1999-12-01 00:00:00+00') THEN
        RAISE EXCEPTION 'one month was made twice';
    END IF;
    PERFORM ensure_months(2);
END
$test$;

-- Before 1990, or after next month: an absurd time makes no partition.
DO $test$
BEGIN
    PERFORM ensure_month(timestamptz '1989-12-31 23:59:59+00');
    RAISE EXCEPTION 'a month before 1990 was made';
EXCEPTION WHEN datetime_field_overflow THEN
    NULL;
END
$test$;

-- The writer makes months by the functions only, and drops none.
DO $test$
BEGIN
    PERFORM make_month(timestamptz '2000-02-01 00:00:00+00');
    RAISE EXCEPTION 'the writer made a month by itself';
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$test$;
DO $test$
BEGIN
    PERFORM drop_month(timestamptz '1999-12-01 00:00:00+00', gen_random_uuid());
    RAISE EXCEPTION 'the writer dropped a month';
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$test$;
RESET ROLE;

DO $test$
DECLARE
    bounds text;
    protected integer;
BEGIN
    SELECT pg_get_expr(relpartbound, oid) INTO bounds FROM pg_class WHERE relname = 'audit_logs_1999_12';
    SET LOCAL timezone = 'UTC';
    SELECT pg_get_expr(relpartbound, oid) INTO bounds FROM pg_class WHERE relname = 'audit_logs_1999_12';
    IF bounds IS DISTINCT FROM
       'FOR VALUES FROM (''1999-12-01 00:00:00+00'') TO (''2000-01-01 00:00:00+00'')' THEN
        RAISE EXCEPTION 'the month is not of UTC: %', bounds;
    END IF;
    IF to_regclass('audit_blobs_1999_12') IS NULL THEN
        RAISE EXCEPTION 'the month has no partition of blobs';
    END IF;
    SELECT count(*) INTO protected FROM pg_trigger
    WHERE tgrelid = 'audit_logs_1999_12'::regclass AND tgenabled = 'A';
    IF protected < 2 THEN
        RAISE EXCEPTION 'the month is not append-only: % triggers', protected;
    END IF;
    IF NOT (SELECT relrowsecurity FROM pg_class WHERE relname = 'audit_logs_1999_12') THEN
        RAISE EXCEPTION 'the month is not under row-level security';
    END IF;
    IF EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
               WHERE inhparent = 'audit_logs'::regclass
                   AND pg_get_expr(relpartbound, pg_class.oid) = 'DEFAULT') THEN
        RAISE EXCEPTION 'there is a DEFAULT partition';
    END IF;
END
$test$;

-- A month goes only under an order whose leaf the ledger has, if all of it is archived and nothing newer came.
INSERT INTO log_heads (name, topic, partition, epoch, cluster_id, topic_id)
VALUES ('audit.raw.sql-test/0/1', 'audit.raw.sql-test', 0, 1, 'c', 't');
CREATE TEMP TABLE sample ON COMMIT DROP AS
SELECT log_id, 0::bigint AS leaf_index, timestamptz '1999-12-24 18:00:00+00' AS occurred_at,
       md5('event')::uuid AS event_id FROM log_heads WHERE name = 'audit.raw.sql-test/0/1';
INSERT INTO leaves (leaf_index, occurred_at, log_id, event_id, leaf_hash)
SELECT leaf_index, occurred_at, log_id, event_id, sha256('leaf') FROM sample;
SET LOCAL ROLE audit_writer;
INSERT INTO audit_logs (leaf_index, source_offset, occurred_at, stored_at, broker_timestamp, event_id,
    log_id, schema_id, late, imported, actor_ref, family, tenant, action, outcome, severity,
    actor_type, event)
SELECT 0, 0, timestamptz '1999-12-24 18:00:00+00', now(), now(), md5('event')::uuid, log_id, 1, true,
    true, NULL, 'authentication', 'sql-test', 'session.start', 'success', 'informational', 'user',
    '{"clear":{"retention_class":"short"},"family":"authentication","sealed":{},"v":1}'
FROM log_heads WHERE name = 'audit.raw.sql-test/0/1';
RESET ROLE;
GRANT SELECT ON sample TO audit_redactor;

SET LOCAL ROLE audit_redactor;
DO $test$
BEGIN
    IF NOT EXISTS (SELECT FROM month_contents(timestamptz '1999-12-01 00:00:00+00')
                   WHERE tenant = 'sql-test' AND class = 'short' AND events = 1 AND next_leaf = 1) THEN
        RAISE EXCEPTION 'the month''s contents are not what was stored';
    END IF;
    PERFORM drop_month(timestamptz '1999-12-01 00:00:00+00', gen_random_uuid());
    RAISE EXCEPTION 'a month was dropped without an order';
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$test$;
INSERT INTO removal_request (request_id, kind, month, days, stored_until, bounds, reason, requested_by,
    event_id, leaves, root, order_hash)
SELECT md5('order')::uuid, 'expiry', date '1999-12-01', 1, now(), '{"audit.raw.sql-test/0/1": 1}',
    'a test', 'tester', event_id, 1, sha256('root'), sha256('order') FROM sample;
UPDATE removal_request SET state = 'ordered' WHERE request_id = md5('order')::uuid;
DO $test$
BEGIN
    PERFORM drop_month(timestamptz '1999-12-01 00:00:00+00', md5('order')::uuid);
    RAISE EXCEPTION 'a month was dropped that is not archived';
EXCEPTION WHEN object_in_use THEN
    NULL;
END
$test$;
RESET ROLE;
INSERT INTO follower_position (follower, log_id, next_leaf) SELECT 'archive', log_id, 1 FROM sample;
SET LOCAL ROLE audit_redactor;
INSERT INTO legal_hold (hold_id, tenant, reason, owner, placed_by)
VALUES (md5('hold')::uuid, 'sql-test', 'a case', 'legal', 'tester');
DO $test$
BEGIN
    PERFORM drop_month(timestamptz '1999-12-01 00:00:00+00', md5('order')::uuid);
    RAISE EXCEPTION 'a held month was dropped';
EXCEPTION WHEN object_in_use THEN
    NULL;
END
$test$;
UPDATE legal_hold SET released_by = 'tester', released_at = now() WHERE hold_id = md5('hold')::uuid;
DO $test$
BEGIN
    IF drop_month(timestamptz '1999-12-01 00:00:00+00', md5('order')::uuid) <= 0 THEN
        RAISE EXCEPTION 'nothing was freed';
    END IF;
    IF drop_month(timestamptz '1999-12-01 00:00:00+00', md5('order')::uuid) <> 0 THEN
        RAISE EXCEPTION 'the month was dropped twice';
    END IF;
    IF to_regclass('audit_logs_1999_12') IS NOT NULL
       OR to_regclass('audit_blobs_1999_12') IS NOT NULL THEN
        RAISE EXCEPTION 'the month is still there';
    END IF;
    IF NOT EXISTS (SELECT FROM leaves JOIN sample USING (log_id, leaf_index)) THEN
        RAISE EXCEPTION 'the leaf went with the month';
    END IF;
END
$test$;
RESET ROLE;

ROLLBACK;
