-- The schema of the first release, frozen: later releases add files beside this one.
-- Equal to schema/*.sql of that release, which tests/migration shows.

DO $roles$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES ('audit_owner', 'NOLOGIN'), ('audit_writer', 'LOGIN BYPASSRLS'),
                              ('audit_reader', 'LOGIN'), ('audit_redactor', 'LOGIN'))
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
    GRANT USAGE ON SCHEMA public TO audit_writer, audit_reader, audit_redactor;
END
$roles$;

-- PostgreSQL refuses COPY into a table under row-level security to a role that is bound by it.
DO $bypass$
BEGIN
    IF NOT (SELECT rolbypassrls FROM pg_roles WHERE rolname = 'audit_writer') THEN
        ALTER ROLE audit_writer BYPASSRLS;
    END IF;
END
$bypass$;

COMMENT ON ROLE audit_owner IS 'Owns the tables and functions of the audit trail; nobody logs in as it.';
COMMENT ON ROLE audit_writer IS 'The worker: appends leaves, moves heads and positions; changes no leaf.';
COMMENT ON ROLE audit_reader IS 'Queries: reads the events of the tenant that audit.tenant names.';
COMMENT ON ROLE audit_redactor IS 'Redaction: alone may change or remove rows of audit_blobs.';

CREATE TABLE IF NOT EXISTS tenants (
    tenant text PRIMARY KEY CHECK (tenant <> ''),
    name text NOT NULL,
    wrapped_key bytea NOT NULL,
    retention_days integer CHECK (retention_days > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE tenants OWNER TO audit_owner;
GRANT SELECT, INSERT ON tenants TO audit_writer;

COMMENT ON TABLE tenants IS
    'Tenants whose events are accepted. The worker adds tenants and cannot change one: a replaced key would lose all subjects'' keys.';
COMMENT ON COLUMN tenants.tenant IS 'Id as events name it.';
COMMENT ON COLUMN tenants.name IS 'What people call it.';
COMMENT ON COLUMN tenants.wrapped_key IS
    'Key that wraps the keys of this tenant''s subjects, itself wrapped by the key provider.';
COMMENT ON COLUMN tenants.retention_days IS
    'How long its events are kept; null: the default of the installation.';
COMMENT ON COLUMN tenants.created_at IS 'When the tenant was added.';

CREATE TABLE IF NOT EXISTS log_heads (
    log_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    topic text NOT NULL,
    partition integer NOT NULL CHECK (partition >= 0),
    epoch integer NOT NULL CHECK (epoch >= 1),
    cluster_id text NOT NULL,
    topic_id text NOT NULL,
    next_offset bigint NOT NULL DEFAULT 0 CHECK (next_offset >= 0),
    size bigint NOT NULL DEFAULT 0 CHECK (size >= 0),
    frontier bytea NOT NULL DEFAULT '' CHECK (octet_length(frontier) % 32 = 0),
    -- Of no leaves: SHA-256 of nothing (RFC 6962 section 2.1).
    root bytea NOT NULL DEFAULT sha256('') CHECK (octet_length(root) = 32),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (topic, partition, epoch),
    CHECK (name = topic || '/' || partition || '/' || epoch)
) WITH (fillfactor = 20);  -- few rows, changed all the time: updates stay on their page
ALTER TABLE log_heads OWNER TO audit_owner;
GRANT SELECT, INSERT, UPDATE ON log_heads TO audit_writer;
GRANT SELECT ON log_heads TO audit_reader, audit_redactor;

COMMENT ON TABLE log_heads IS
    'One row for each log: one append-only sequence of leaves per raw topic-partition and epoch.';
COMMENT ON COLUMN log_heads.log_id IS 'Short name of the log inside this database; other tables carry it.';
COMMENT ON COLUMN log_heads.name IS
    '<topic>/<partition>/<epoch>: the name of the log everywhere outside this database.';
COMMENT ON COLUMN log_heads.topic IS 'Raw topic.';
COMMENT ON COLUMN log_heads.partition IS 'Partition of the topic.';
COMMENT ON COLUMN log_heads.epoch IS
    '1, and one more each time a person declares that the topic was replaced.';
COMMENT ON COLUMN log_heads.cluster_id IS 'Kafka cluster that the log is read from.';
COMMENT ON COLUMN log_heads.topic_id IS
    'Kafka''s id of the topic: a topic deleted and made again has another.';
COMMENT ON COLUMN log_heads.next_offset IS
    'First offset that this log has not taken: the only position of the pipeline.';
COMMENT ON COLUMN log_heads.size IS 'Number of leaves; the next leaf has this index.';
COMMENT ON COLUMN log_heads.frontier IS
    'Roots of the perfect subtrees of the leaves, largest first, 32 bytes each.';
COMMENT ON COLUMN log_heads.root IS 'Merkle tree hash of all leaves (RFC 6962 section 2.1).';
COMMENT ON COLUMN log_heads.updated_at IS 'When the head last moved.';

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

CREATE TABLE IF NOT EXISTS audit_blobs (
    leaf_index bigint NOT NULL,
    occurred_at timestamptz(6) NOT NULL,
    subject_ref uuid NOT NULL,
    log_id integer NOT NULL,
    nonce bytea NOT NULL CHECK (octet_length(nonce) = 12),
    ciphertext bytea NOT NULL,
    PRIMARY KEY (log_id, leaf_index, occurred_at, subject_ref)
) PARTITION BY RANGE (occurred_at);
ALTER TABLE audit_blobs OWNER TO audit_owner;
-- Ciphertext does not compress: trying costs time.
ALTER TABLE audit_blobs ALTER COLUMN ciphertext SET STORAGE EXTERNAL;
-- For: the events in which a person appears, which erasure, redaction and subject access ask for.
CREATE INDEX IF NOT EXISTS audit_blobs_subject_ref ON audit_blobs (subject_ref);
GRANT SELECT, INSERT ON audit_blobs TO audit_writer;
GRANT SELECT, DELETE, UPDATE (nonce, ciphertext) ON audit_blobs TO audit_redactor;

COMMENT ON TABLE audit_blobs IS
    'Personal data of events: one AES-256-GCM blob per event and subject. Not hashed, so that redaction leaves every proof valid; only audit_redactor may change or remove rows.';
COMMENT ON COLUMN audit_blobs.leaf_index IS 'As in audit_logs.';
COMMENT ON COLUMN audit_blobs.occurred_at IS 'As in audit_logs; the partition key.';
COMMENT ON COLUMN audit_blobs.subject_ref IS 'Whose values these are, as in audit_user.';
COMMENT ON COLUMN audit_blobs.log_id IS 'As in audit_logs.';
COMMENT ON COLUMN audit_blobs.nonce IS 'Random at every write, 12 bytes.';
COMMENT ON COLUMN audit_blobs.ciphertext IS
    'AES-256-GCM of canonical JSON {path: value}; associated data: event id, subject_ref.';

CREATE OR REPLACE FUNCTION ensure_month(at timestamptz) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' AS $body$
DECLARE
    month_start timestamptz := date_trunc('month', at);
BEGIN
    IF at IS NULL OR month_start < timestamptz '1990-01-01 00:00:00+00'
       OR month_start > date_trunc('month', now()) + interval '1 month' THEN
        RAISE EXCEPTION 'no partition is made for this month: it is before 1990 or too far ahead'
            USING ERRCODE = 'datetime_field_overflow';
    END IF;
    RETURN make_month(month_start);
END
$body$;
ALTER FUNCTION ensure_month(timestamptz) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION ensure_month(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_month(timestamptz) TO audit_writer;
COMMENT ON FUNCTION ensure_month(timestamptz) IS
    'Makes the partitions of the month of a time, if they are missing; true: made. Months before 1990 or later than next month are refused.';

CREATE OR REPLACE FUNCTION ensure_months(ahead integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' AS $body$
DECLARE
    made integer := 0;
BEGIN
    IF ahead IS NULL OR ahead NOT BETWEEN 0 AND 24 THEN
        RAISE EXCEPTION 'months are made at most 24 ahead' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR step IN 0 .. ahead LOOP
        IF make_month(date_trunc('month', now()) + make_interval(months => step)) THEN
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$body$;
ALTER FUNCTION ensure_months(integer) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION ensure_months(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_months(integer) TO audit_writer;
COMMENT ON FUNCTION ensure_months(integer) IS
    'Makes the partitions of this month and of so many after it; returns how many months were made.';

-- Create, then ATTACH: a lock that lets writers go on, where PARTITION OF would stop them.
CREATE OR REPLACE FUNCTION make_month(month_start timestamptz) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' AS $body$
DECLARE
    month_end timestamptz := month_start + interval '1 month';
    parent text;
    child text;
    made boolean := false;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('audit.months'));
    FOREACH parent IN ARRAY ARRAY['audit_logs', 'audit_blobs'] LOOP
        child := parent || to_char(month_start, '"_"YYYY"_"MM');
        CONTINUE WHEN to_regclass('public.' || parent) IS NULL
                   OR to_regclass('public.' || child) IS NOT NULL;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS '
                       'INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMMENTS)', child, parent);
        -- Reached through its parent only: by itself nobody but the owner has a right to it.
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', child);
        IF parent = 'audit_logs' THEN
            -- Triggers by statement are not inherited, and a statement can name a month directly.
            EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE '
                           'ON public.%I FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change()',
                           child);
            EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER refuse_change', child);
        END IF;
        EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                       parent, child, month_start, month_end);
        EXECUTE format('COMMENT ON TABLE public.%I IS %L', child,
                       'Rows of ' || parent || ' of one month of occurred_at, UTC.');
        made := true;
    END LOOP;
    RETURN made;
END
$body$;
ALTER FUNCTION make_month(timestamptz) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION make_month(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION make_month(timestamptz) IS
    'Makes and attaches the partitions that begin at a time; called by ensure_month and ensure_months only.';

CREATE TABLE IF NOT EXISTS leaves (
    leaf_index bigint NOT NULL,
    occurred_at timestamptz(6) NOT NULL,
    log_id integer NOT NULL,
    event_id uuid NOT NULL,
    leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32),
    CONSTRAINT leaves_pkey PRIMARY KEY (log_id, leaf_index),
    CONSTRAINT leaves_event_id_key UNIQUE (event_id)
);
ALTER TABLE leaves OWNER TO audit_owner;

CREATE OR REPLACE TRIGGER leaves_refuse_change
    BEFORE UPDATE OR DELETE OR TRUNCATE ON leaves
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- ALWAYS: session_replication_role = replica does not switch it off.
ALTER TABLE leaves ENABLE ALWAYS TRIGGER leaves_refuse_change;

GRANT SELECT, INSERT ON leaves TO audit_writer;
GRANT SELECT ON leaves TO audit_redactor;

COMMENT ON TABLE leaves IS
    'Leaf hashes in the order of their logs: dedupes, proves, feeds tiles and orders catch-up. Append-only and kept when events expire, so that old proofs still verify.';
COMMENT ON COLUMN leaves.leaf_index IS 'Place in the log, from 0, without a hole.';
COMMENT ON COLUMN leaves.occurred_at IS 'Of the event: finds its partition.';
COMMENT ON COLUMN leaves.log_id IS 'The log, as in log_heads.';
COMMENT ON COLUMN leaves.event_id IS 'Unique over all logs and times: one id is stored once.';
COMMENT ON COLUMN leaves.leaf_hash IS 'SHA-256(0x00 || canonical bytes of the event).';

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

CREATE OR REPLACE TRIGGER intake_refuse_change
    BEFORE UPDATE OR DELETE OR TRUNCATE ON intake
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- ALWAYS: session_replication_role = replica does not switch it off.
ALTER TABLE intake ENABLE ALWAYS TRIGGER intake_refuse_change;

GRANT SELECT, INSERT ON intake TO audit_writer;
GRANT SELECT ON intake TO audit_reader, audit_redactor;

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

CREATE TABLE IF NOT EXISTS follower_position (
    follower text NOT NULL,
    log_id integer NOT NULL,
    next_leaf bigint NOT NULL CHECK (next_leaf >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (follower, log_id)
) WITH (fillfactor = 20);  -- few rows, changed all the time: updates stay on their page
ALTER TABLE follower_position OWNER TO audit_owner;
GRANT SELECT, INSERT, UPDATE ON follower_position TO audit_writer;
GRANT SELECT ON follower_position TO audit_reader, audit_redactor;

COMMENT ON TABLE follower_position IS
    'How far each follower of the ledger is on each log; only moves forward.';
COMMENT ON COLUMN follower_position.follower IS 'index, archive or signals.';
COMMENT ON COLUMN follower_position.log_id IS 'The log, as in log_heads.';
COMMENT ON COLUMN follower_position.next_leaf IS
    'First leaf that the follower''s store may lack; all before it are durable there.';
COMMENT ON COLUMN follower_position.updated_at IS 'When it last moved.';

CREATE TABLE IF NOT EXISTS dead_letter_key (
    source_topic text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    wrapped_key bytea NOT NULL,
    reason text NOT NULL,
    raw_key_hash bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_topic, source_partition, source_offset)
);
ALTER TABLE dead_letter_key OWNER TO audit_owner;
-- For: the dead letters of one raw key, which the erasure of a person destroys.
CREATE INDEX IF NOT EXISTS dead_letter_key_raw_key_hash ON dead_letter_key (raw_key_hash);
GRANT SELECT, INSERT ON dead_letter_key TO audit_writer;

COMMENT ON TABLE dead_letter_key IS
    'Keys of dead letters, by the position of the record. Destroying a row makes the letter unreadable.';
COMMENT ON COLUMN dead_letter_key.source_topic IS 'Raw topic of the record.';
COMMENT ON COLUMN dead_letter_key.source_partition IS 'Its partition.';
COMMENT ON COLUMN dead_letter_key.source_offset IS 'Its offset.';
COMMENT ON COLUMN dead_letter_key.wrapped_key IS 'Key of the letter, wrapped by the key provider.';
COMMENT ON COLUMN dead_letter_key.reason IS 'Why the record was not accepted, as in the letter.';
COMMENT ON COLUMN dead_letter_key.raw_key_hash IS 'Keyed hash of the record''s key; null when it had none.';
COMMENT ON COLUMN dead_letter_key.created_at IS 'When the key was made.';

CREATE TABLE IF NOT EXISTS schema_versions (
    schema_id integer PRIMARY KEY,
    subject text NOT NULL,
    version integer NOT NULL CHECK (version >= 1),
    family text NOT NULL,
    schema json NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (subject, version)
);
ALTER TABLE schema_versions OWNER TO audit_owner;
GRANT SELECT, INSERT ON schema_versions TO audit_writer;
GRANT SELECT ON schema_versions TO audit_reader, audit_redactor;

COMMENT ON TABLE schema_versions IS
    'Schemas that events were written with, by registry id: an event stays readable when the registry is gone.';
COMMENT ON COLUMN schema_versions.schema_id IS 'Id in the registry, as in audit_logs.';
COMMENT ON COLUMN schema_versions.subject IS 'Subject in the registry.';
COMMENT ON COLUMN schema_versions.version IS 'Version within the subject.';
COMMENT ON COLUMN schema_versions.family IS 'Event family.';
COMMENT ON COLUMN schema_versions.schema IS 'Avro schema, the text as registered.';
COMMENT ON COLUMN schema_versions.registered_at IS 'When it was noted here.';

CREATE TABLE IF NOT EXISTS partition_pause (
    pause_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    partition integer NOT NULL,
    reason text NOT NULL CHECK (reason IN ('dead_letters')),
    detail text NOT NULL DEFAULT '',
    first_offset bigint,
    next_offset bigint,
    since timestamptz NOT NULL DEFAULT now(),
    resumed_at timestamptz
);
ALTER TABLE partition_pause OWNER TO audit_owner;
-- One pause at a time; also for: is this partition paused?
CREATE UNIQUE INDEX IF NOT EXISTS partition_pause_open
    ON partition_pause (topic, partition) WHERE resumed_at IS NULL;
GRANT SELECT, INSERT, UPDATE (resumed_at) ON partition_pause TO audit_writer;
GRANT SELECT ON partition_pause TO audit_reader, audit_redactor;

COMMENT ON TABLE partition_pause IS
    'Raw partitions that a worker paused, and when a person resumed them (audit-trail resume).';
COMMENT ON COLUMN partition_pause.pause_id IS 'Number of the pause.';
COMMENT ON COLUMN partition_pause.topic IS 'Raw topic.';
COMMENT ON COLUMN partition_pause.partition IS 'Its partition.';
COMMENT ON COLUMN partition_pause.reason IS
    'Why: dead_letters, too many of its records cannot be accepted. A closed set.';
COMMENT ON COLUMN partition_pause.detail IS 'The same in a sentence, with figures; no content of events.';
COMMENT ON COLUMN partition_pause.first_offset IS 'First offset concerned, where offsets are known.';
COMMENT ON COLUMN partition_pause.next_offset IS 'Offset after the last concerned.';
COMMENT ON COLUMN partition_pause.since IS 'When the worker paused it.';
COMMENT ON COLUMN partition_pause.resumed_at IS 'When a person lifted it; null: it stands.';

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
    PRIMARY KEY (subject_hash, generation),
    CHECK ((wrapped_key IS NULL) = (erased_at IS NOT NULL))
);
ALTER TABLE audit_user OWNER TO audit_owner;

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
    created boolean, escrowed boolean
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
           newest.wrapped_key, newest.subject_ref = ANY (refs), newest.escrow IS NOT NULL
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
    'Finds or makes the key of each subject and returns the one that holds, whoever proposed it. A subject erased at or after occurred_at has no row: seal its values to nobody.';

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

CREATE OR REPLACE FUNCTION mark_escrowed(refs uuid[], object_name text) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $body$
    UPDATE audit_user SET escrow = object_name
    WHERE subject_ref = ANY (refs) AND escrow IS NULL
$body$;
ALTER FUNCTION mark_escrowed(uuid[], text) OWNER TO audit_owner;
REVOKE ALL ON FUNCTION mark_escrowed(uuid[], text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mark_escrowed(uuid[], text) TO audit_writer;
COMMENT ON FUNCTION mark_escrowed(uuid[], text) IS
    'Remembers which vault object holds a copy of the keys; the first one named stays.';

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
