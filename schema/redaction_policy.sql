-- Redaction policies: fields that are cut from events once they are old enough.

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

CREATE TABLE IF NOT EXISTS redaction_policy (
    name text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    rule jsonb NOT NULL,
    rule_hash bytea NOT NULL CHECK (octet_length(rule_hash) = 32),
    enabled boolean NOT NULL DEFAULT true,
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE redaction_policy OWNER TO audit_owner;
GRANT SELECT ON redaction_policy TO audit_auditor;
GRANT SELECT, INSERT, UPDATE, DELETE ON redaction_policy TO audit_redactor;

COMMENT ON TABLE redaction_policy IS 'Policies of redaction, as their YAML files were applied.';
COMMENT ON COLUMN redaction_policy.name IS 'Name of the policy.';
COMMENT ON COLUMN redaction_policy.rule IS 'The rule: tenants, families, fields, data classes, value, age.';
COMMENT ON COLUMN redaction_policy.rule_hash IS 'SHA-256 of the rule: a changed rule looks at every event again.';
COMMENT ON COLUMN redaction_policy.enabled IS 'Whether the keeper applies it.';
COMMENT ON COLUMN redaction_policy.set_by IS 'Who set it.';
COMMENT ON COLUMN redaction_policy.set_at IS 'When.';

CREATE TABLE IF NOT EXISTS redaction_position (
    rule_hash bytea NOT NULL,
    log_id integer NOT NULL,
    next_leaf bigint NOT NULL CHECK (next_leaf >= 0),
    PRIMARY KEY (rule_hash, log_id)
);
ALTER TABLE redaction_position OWNER TO audit_owner;
GRANT SELECT ON redaction_position TO audit_auditor;
GRANT SELECT, INSERT, UPDATE, DELETE ON redaction_position TO audit_redactor;

COMMENT ON TABLE redaction_position IS 'How far each rule has looked at each log.';
COMMENT ON COLUMN redaction_position.rule_hash IS 'The rule, as in redaction_policy.';
COMMENT ON COLUMN redaction_position.log_id IS 'The log, as in log_heads.';
COMMENT ON COLUMN redaction_position.next_leaf IS 'First leaf that it has not looked at.';

COMMIT;
