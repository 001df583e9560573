-- Audit logs: every accepted event, sealed, once; with its typed views.
-- Months are made by months.sql. There is no DEFAULT partition: it would take rows of a month that
-- nobody could attach any more.

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

CREATE TABLE IF NOT EXISTS audit_logs (
    -- Wide columns first, so that rows have no padding.
    leaf_index bigint NOT NULL,
    source_offset bigint NOT NULL,
    occurred_at timestamptz(6) NOT NULL,
    stored_at timestamptz(6) NOT NULL,
    broker_timestamp timestamptz(3) NOT NULL,
    event_id uuid NOT NULL,
    log_id integer NOT NULL,
    schema_id integer NOT NULL,
    late boolean NOT NULL,
    imported boolean NOT NULL,
    actor_ref uuid,
    family text NOT NULL,
    tenant text NOT NULL,
    action text NOT NULL,
    outcome text NOT NULL,
    severity text NOT NULL,
    actor_type text NOT NULL,
    event json NOT NULL,
    PRIMARY KEY (log_id, leaf_index, occurred_at)
) PARTITION BY RANGE (occurred_at);
ALTER TABLE audit_logs OWNER TO audit_owner;
-- For: the events of one tenant in a time range, newest first. There is no index on actor_ref: an
-- actor's events are found by audit_blobs_subject_ref, which every sealed event of a person is in.
CREATE INDEX IF NOT EXISTS audit_logs_tenant_occurred_at ON audit_logs (tenant, occurred_at);

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

CREATE OR REPLACE TRIGGER audit_logs_refuse_change
    BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- ALWAYS: session_replication_role = replica does not switch it off.
ALTER TABLE audit_logs ENABLE ALWAYS TRIGGER audit_logs_refuse_change;

-- By row too: this one is inherited by every partition, however it was made.
CREATE OR REPLACE TRIGGER audit_logs_refuse_row_change
    BEFORE UPDATE OR DELETE ON audit_logs
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
ALTER TABLE audit_logs ENABLE ALWAYS TRIGGER audit_logs_refuse_row_change;

ALTER TABLE audit_logs ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_logs FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS tenant_rows ON audit_logs;
CREATE POLICY tenant_rows ON audit_logs FOR SELECT
    USING (tenant = current_setting('audit.tenant', true));
COMMENT ON POLICY tenant_rows ON audit_logs IS
    'Only the rows of the tenant that the transaction names with SET LOCAL audit.tenant; unset: none.';
GRANT SELECT, INSERT ON audit_logs TO audit_writer;
GRANT SELECT ON audit_logs TO audit_reader, audit_redactor;
GRANT SELECT ON audit_logs TO audit_auditor;

COMMENT ON TABLE audit_logs IS
    'Every accepted event, sealed, exactly once. Append-only: UPDATE, DELETE and TRUNCATE are refused to everyone; expiry drops whole months. What the server sets stands beside the canonical bytes, not in them.';
COMMENT ON COLUMN audit_logs.leaf_index IS 'Place of the event in its log, from 0, without a hole.';
COMMENT ON COLUMN audit_logs.source_offset IS 'Kafka offset of the record.';
COMMENT ON COLUMN audit_logs.occurred_at IS 'When it happened, by its producer; the partition key.';
COMMENT ON COLUMN audit_logs.stored_at IS 'Start of the ledger transaction that stored it.';
COMMENT ON COLUMN audit_logs.broker_timestamp IS
    'Timestamp of the Kafka record, which occurred_at was judged against.';
COMMENT ON COLUMN audit_logs.event_id IS 'UUID made by the producer.';
COMMENT ON COLUMN audit_logs.log_id IS 'The log, as in log_heads.';
COMMENT ON COLUMN audit_logs.schema_id IS 'Registry id of the schema that the producer wrote with.';
COMMENT ON COLUMN audit_logs.late IS 'Stored later after occurred_at than the setting late_after_s.';
COMMENT ON COLUMN audit_logs.imported IS 'Taken from another system''s records.';
COMMENT ON COLUMN audit_logs.actor_ref IS
    'subject_ref of the actor; null when the actor is of no known subject.';
COMMENT ON COLUMN audit_logs.family IS 'Event family, such as authentication.';
COMMENT ON COLUMN audit_logs.tenant IS 'Tenant in which it happened: who may see the row.';
COMMENT ON COLUMN audit_logs.action IS 'What was done, noun.verb.';
COMMENT ON COLUMN audit_logs.outcome IS 'success, failure or unknown.';
COMMENT ON COLUMN audit_logs.severity IS 'informational, low, medium, high or critical.';
COMMENT ON COLUMN audit_logs.actor_type IS 'user, service, system or anonymous.';
COMMENT ON COLUMN audit_logs.event IS
    'Canonical JSON of the sealed event, byte for byte as it was hashed: type json keeps the text.';

CREATE OR REPLACE VIEW event_context WITH (security_invoker = true) AS
SELECT
    log_id,
    leaf_index,
    occurred_at,
    event_id,
    tenant,
    event #>> '{clear,producer.service}' AS producer_service,
    event #>> '{clear,producer.version}' AS producer_version,
    event #>> '{clear,producer.instance}' AS producer_instance,
    event #>> '{clear,producer.environment}' AS producer_environment,
    (event #>> '{clear,producer.epoch}')::bigint AS producer_epoch,
    (event #>> '{clear,producer.sequence}')::bigint AS producer_sequence,
    event #>> '{clear,request.id}' AS request_id,
    event #>> '{clear,request.trace_id}' AS trace_id,
    event #>> '{clear,request.span_id}' AS span_id,
    (event #>> '{clear,session.mfa}')::boolean AS session_mfa,
    event #>> '{clear,session.issuer}' AS session_issuer,
    event #>> '{clear,reason_code}' AS reason_code,
    event #>> '{clear,ticket}' AS ticket,
    event #>> '{clear,retention_class}' AS retention_class,
    event #>> '{clear,hold}' AS hold
FROM audit_logs;
ALTER VIEW event_context OWNER TO audit_owner;
GRANT SELECT ON event_context TO audit_writer, audit_reader, audit_redactor;

COMMENT ON VIEW event_context IS
    'Where an event came from: one row per event, read from its canonical bytes. Row-level security of audit_logs applies to whoever asks.';
COMMENT ON COLUMN event_context.log_id IS 'As in audit_logs.';
COMMENT ON COLUMN event_context.leaf_index IS 'As in audit_logs.';
COMMENT ON COLUMN event_context.occurred_at IS 'As in audit_logs.';
COMMENT ON COLUMN event_context.event_id IS 'As in audit_logs.';
COMMENT ON COLUMN event_context.tenant IS 'As in audit_logs.';
COMMENT ON COLUMN event_context.producer_service IS 'Service that reported it.';
COMMENT ON COLUMN event_context.producer_version IS 'Its release.';
COMMENT ON COLUMN event_context.producer_instance IS 'Its host or pod.';
COMMENT ON COLUMN event_context.producer_environment IS 'Its environment, such as production.';
COMMENT ON COLUMN event_context.producer_epoch IS 'One more at each start of the producer.';
COMMENT ON COLUMN event_context.producer_sequence IS
    'Number of the event within producer_epoch: a hole is a lost event.';
COMMENT ON COLUMN event_context.request_id IS 'Id of the request.';
COMMENT ON COLUMN event_context.trace_id IS 'W3C trace id.';
COMMENT ON COLUMN event_context.span_id IS 'W3C span id.';
COMMENT ON COLUMN event_context.session_mfa IS 'Whether the session passed a second factor.';
COMMENT ON COLUMN event_context.session_issuer IS 'Who issued the credential.';
COMMENT ON COLUMN event_context.reason_code IS 'Why, from the service''s closed list.';
COMMENT ON COLUMN event_context.ticket IS 'Ticket that allows it.';
COMMENT ON COLUMN event_context.retention_class IS 'The tenant''s retention class.';
COMMENT ON COLUMN event_context.hold IS 'Legal hold in force when it happened.';

CREATE OR REPLACE VIEW event_changes WITH (security_invoker = true) AS
SELECT
    audit_logs.log_id,
    audit_logs.leaf_index,
    audit_logs.occurred_at,
    audit_logs.event_id,
    audit_logs.tenant,
    split_part(clear.key, '.', 2)::integer AS change_index,
    clear.value AS path,
    old_value.subject_ref AS old_subject_ref,
    old_value.commitment AS old_commitment,
    new_value.subject_ref AS new_subject_ref,
    new_value.commitment AS new_commitment
FROM audit_logs
CROSS JOIN LATERAL json_each_text(audit_logs.event -> 'clear') AS clear
LEFT JOIN LATERAL (
    SELECT sealed.key::uuid AS subject_ref,
           decode(sealed.value ->> ('changes.' || split_part(clear.key, '.', 2) || '.old'), 'base64')
               AS commitment
    FROM json_each(audit_logs.event -> 'sealed') AS sealed
    WHERE sealed.value ->> ('changes.' || split_part(clear.key, '.', 2) || '.old') IS NOT NULL
) AS old_value ON true
LEFT JOIN LATERAL (
    SELECT sealed.key::uuid AS subject_ref,
           decode(sealed.value ->> ('changes.' || split_part(clear.key, '.', 2) || '.new'), 'base64')
               AS commitment
    FROM json_each(audit_logs.event -> 'sealed') AS sealed
    WHERE sealed.value ->> ('changes.' || split_part(clear.key, '.', 2) || '.new') IS NOT NULL
) AS new_value ON true
WHERE clear.key ~ '^changes\.[0-9]+\.path$';
ALTER VIEW event_changes OWNER TO audit_owner;
GRANT SELECT ON event_changes TO audit_writer, audit_reader, audit_redactor;

COMMENT ON VIEW event_changes IS
    'What an event changed: one row per changed field, read from its canonical bytes. Values are sealed: here stand whose they are and their commitments. Row-level security of audit_logs applies to whoever asks.';
COMMENT ON COLUMN event_changes.log_id IS 'As in audit_logs.';
COMMENT ON COLUMN event_changes.leaf_index IS 'As in audit_logs.';
COMMENT ON COLUMN event_changes.occurred_at IS 'As in audit_logs.';
COMMENT ON COLUMN event_changes.event_id IS 'As in audit_logs.';
COMMENT ON COLUMN event_changes.tenant IS 'As in audit_logs.';
COMMENT ON COLUMN event_changes.change_index IS 'Place in the event''s list of changes, from 0.';
COMMENT ON COLUMN event_changes.path IS 'Name of the changed field in the service''s model.';
COMMENT ON COLUMN event_changes.old_subject_ref IS 'Whose the value before is; null when there was none.';
COMMENT ON COLUMN event_changes.old_commitment IS 'Commitment to the value before, 32 bytes.';
COMMENT ON COLUMN event_changes.new_subject_ref IS 'Whose the value after is; null when there is none.';
COMMENT ON COLUMN event_changes.new_commitment IS 'Commitment to the value after, 32 bytes.';

COMMIT;
