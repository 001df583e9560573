-- Intake: what became of every offset of the raw topics. Completeness begins here.

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

CREATE TABLE IF NOT EXISTS intake (
    log_id integer NOT NULL,
    first_offset bigint NOT NULL,
    next_offset bigint NOT NULL,
    first_leaf bigint NOT NULL,
    accepted integer NOT NULL CHECK (accepted >= 0),
    duplicates integer NOT NULL CHECK (duplicates >= 0),
    dead_lettered integer NOT NULL CHECK (dead_lettered >= 0),
    holes bigint NOT NULL CHECK (holes >= 0),
    restored boolean NOT NULL DEFAULT false,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log_id, first_offset),
    CHECK (accepted::bigint + duplicates + dead_lettered + holes = next_offset - first_offset)
);
ALTER TABLE intake OWNER TO audit_owner;

CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RAISE EXCEPTION '% on % is refused: the trail is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$body$;
ALTER FUNCTION refuse_change() OWNER TO audit_owner;
COMMENT ON FUNCTION refuse_change() IS
    'Trigger of append-only tables: refuses UPDATE, DELETE and TRUNCATE to everyone, the owner included.';

CREATE OR REPLACE TRIGGER intake_refuse_change
    BEFORE UPDATE OR DELETE OR TRUNCATE ON intake
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- ALWAYS: session_replication_role = replica does not switch it off.
ALTER TABLE intake ENABLE ALWAYS TRIGGER intake_refuse_change;

GRANT SELECT, INSERT ON intake TO audit_writer;
GRANT SELECT ON intake TO audit_reader, audit_redactor;
GRANT SELECT ON intake TO audit_auditor;

COMMENT ON TABLE intake IS
    'One row per stored batch: its offset range and what became of each offset. The ranges of a log abut; their sums agree with leaves and dead letters.';
COMMENT ON COLUMN intake.log_id IS 'The log, as in log_heads.';
COMMENT ON COLUMN intake.first_offset IS 'First offset of the range.';
COMMENT ON COLUMN intake.next_offset IS 'Offset after the range: the first of the next row.';
COMMENT ON COLUMN intake.first_leaf IS 'Index of the first leaf of the range, had it any.';
COMMENT ON COLUMN intake.accepted IS 'Records that became leaves.';
COMMENT ON COLUMN intake.duplicates IS 'Records whose event the ledger had.';
COMMENT ON COLUMN intake.dead_lettered IS 'Records in the dead letter topic.';
COMMENT ON COLUMN intake.holes IS 'Offsets without a record: compaction, transaction markers.';
COMMENT ON COLUMN intake.restored IS
    'Came back from the archive: holes then counts all offsets that are no leaf.';
COMMENT ON COLUMN intake.stored_at IS 'Start of the transaction.';

COMMIT;
