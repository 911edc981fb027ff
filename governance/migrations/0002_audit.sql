-- The audit log: every change, chained by hashes, written by the database itself. And who may do what.

-- One row a change. `entry` is JSON text, and `hash` = sha256(previous hash, then entry in UTF-8), so that
-- anybody can check the chain without this database; the first row's previous hash is 32 zero bytes.
CREATE TABLE audit (
    seq   bigint PRIMARY KEY CHECK (seq > 0),
    entry text NOT NULL,
    hash  bytea NOT NULL CHECK (length(hash) = 32)
);

-- Where the chain ends. Its row is locked by whoever adds, so that changes have one order.
CREATE TABLE audit_head (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq  bigint NOT NULL,
    hash bytea NOT NULL
);
INSERT INTO audit_head (seq, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

-- Takes down a change of the row that fired it. The transaction says who acts and why in scorewire.actor and
-- scorewire.reason; the login is the database's own word.
CREATE FUNCTION take_down() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    last    audit_head%ROWTYPE;
    changed jsonb := to_jsonb(coalesce(NEW, OLD));
    text_   text;
BEGIN
    SELECT * INTO last FROM audit_head FOR UPDATE;
    text_ := jsonb_build_object(
        'seq', last.seq + 1,
        'at', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'actor', coalesce(nullif(current_setting('scorewire.actor', true), ''), session_user),
        'login', session_user,
        'reason', coalesce(current_setting('scorewire.reason', true), ''),
        'what', TG_TABLE_NAME,
        'change', lower(TG_OP),
        'environment', CASE TG_TABLE_NAME WHEN 'environment' THEN changed ->> 'name'
                                          ELSE changed ->> 'environment' END,
        'before', CASE TG_OP WHEN 'INSERT' THEN NULL ELSE to_jsonb(OLD) END,
        'after', CASE TG_OP WHEN 'DELETE' THEN NULL ELSE to_jsonb(NEW) END
    )::text;
    last.seq := last.seq + 1;
    last.hash := sha256(last.hash || convert_to(text_, 'UTF8'));
    INSERT INTO audit VALUES (last.seq, text_, last.hash);
    UPDATE audit_head SET seq = last.seq, hash = last.hash;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION take_down() FROM PUBLIC;

CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON artifact
    FOR EACH ROW EXECUTE FUNCTION take_down();
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON environment
    FOR EACH ROW EXECUTE FUNCTION take_down();
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON release
    FOR EACH ROW EXECUTE FUNCTION take_down();
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON release_stage
    FOR EACH ROW EXECUTE FUNCTION take_down();
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON rollout
    FOR EACH ROW EXECUTE FUNCTION take_down();

CREATE TRIGGER audit_is_immutable BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
-- Rows that cannot be deleted cannot be truncated away either.
CREATE TRIGGER audit_stays BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER artifact_stays BEFORE TRUNCATE ON artifact
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER artifact_chunk_stays BEFORE TRUNCATE ON artifact_chunk
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER release_stays BEFORE TRUNCATE ON release
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER release_stage_stays BEFORE TRUNCATE ON release_stage
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Roles belong to the server and not to this database: another one may have made them, or be making them now.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['node', 'promoter', 'approver', 'auditor', 'owner'] LOOP
        name := 'scorewire_' || name;
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), name);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', current_schema(), name);
    END LOOP;
END $$;

-- A node says what it is and how it stands, and settles rollouts.
GRANT INSERT, UPDATE, DELETE ON member TO scorewire_node, scorewire_owner;
GRANT INSERT, UPDATE ON rollout_node TO scorewire_node, scorewire_promoter, scorewire_owner;
GRANT UPDATE (state, reason, finished_at) ON rollout TO scorewire_node, scorewire_promoter, scorewire_owner;
GRANT UPDATE (current) ON environment TO scorewire_node, scorewire_promoter, scorewire_owner;
-- Whoever promotes adds artifacts, releases and rollouts; nobody changes one.
GRANT INSERT ON artifact, artifact_chunk, environment, release, release_stage, rollout
    TO scorewire_promoter, scorewire_owner;
