-- Log heads: how far each log is. The row that a ledger transaction locks first.

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
GRANT SELECT ON log_heads TO audit_signer, audit_auditor;

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

COMMIT;
