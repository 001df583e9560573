-- A hold counts from the moment that it is there: what removes is ordered before or after it.
CREATE OR REPLACE FUNCTION order_hold() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    -- What removes takes the lock shared before it looks for holds: it either sees this one or is done.
    PERFORM pg_advisory_xact_lock(hashtext('audit.holds'));
    RETURN NULL;
END
$body$;
ALTER FUNCTION order_hold() OWNER TO audit_owner;
REVOKE ALL ON FUNCTION order_hold() FROM PUBLIC;
COMMENT ON FUNCTION order_hold() IS
    'Trigger of legal_hold: a hold waits for removals that are under way, and comes before those that follow.';

CREATE OR REPLACE TRIGGER legal_hold_order
    BEFORE INSERT ON legal_hold
    FOR EACH STATEMENT EXECUTE FUNCTION order_hold();

CREATE OR REPLACE FUNCTION refuse_held_blob() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('audit.holds'));  -- see order_hold()
    IF to_regclass('public.legal_hold') IS NOT NULL
       AND EXISTS (SELECT FROM legal_hold WHERE released_at IS NULL)
       AND EXISTS (SELECT FROM held_leaves(OLD.log_id, OLD.leaf_index, OLD.leaf_index + 1)) THEN
        RAISE EXCEPTION 'leaf % of log % is under a legal hold', OLD.leaf_index, OLD.log_id
            USING ERRCODE = 'object_in_use';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$body$;

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
