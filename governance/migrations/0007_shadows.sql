-- Shadows: candidates that evaluate copies of live transactions, their results, and the reports on them.

-- A shadow overrides stages of its environment's champion; whatever it does not override is taken from the
-- live record. Its states:
--   running   -> suspended   a node gives it up, since it fails whatever it is given; `state_reason` says how
--   running, suspended -> stopped    by a person; it can be started again
--   stopped, suspended -> running    by a person
--   any of these -> promoted   what it overrides was promoted; `release` says where to, once that is known
--   any of these -> retired    nobody wants it any more
CREATE TABLE shadow (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment  text NOT NULL REFERENCES environment,
    name         text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,49}$'),
    overrides    jsonb NOT NULL CHECK (jsonb_typeof(overrides) = 'object' AND overrides <> '{}'),
    sample       double precision NOT NULL DEFAULT 1 CHECK (sample > 0 AND sample <= 1),
    amount_field text NOT NULL DEFAULT 'amount' CHECK (amount_field <> ''),
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_by   text NOT NULL CHECK (started_by <> ''),
    comment      text NOT NULL DEFAULT '',
    state        text NOT NULL DEFAULT 'running'
                 CHECK (state IN ('running', 'suspended', 'stopped', 'promoted', 'retired')),
    state_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    state_by     text NOT NULL CHECK (state_by <> ''),
    state_reason text NOT NULL DEFAULT '',
    release      integer,
    FOREIGN KEY (environment, release) REFERENCES release (environment, number),
    CHECK (release IS NULL OR state = 'promoted')
);
-- One of a name at a time; those that are over stay known, and their name can be used again.
CREATE UNIQUE INDEX shadow_of_a_name ON shadow (environment, name)
    WHERE state IN ('running', 'suspended', 'stopped');

CREATE FUNCTION check_shadow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.environment, NEW.name, NEW.overrides, NEW.sample, NEW.amount_field, NEW.started_at, NEW.started_by)
       IS DISTINCT FROM
       (OLD.environment, OLD.name, OLD.overrides, OLD.sample, OLD.amount_field, OLD.started_at, OLD.started_by)
    THEN
        RAISE EXCEPTION 'shadow % is immutable: start another', OLD.name;
    END IF;
    IF OLD.state = 'retired' OR (OLD.state = 'promoted' AND (NEW.state <> 'promoted' OR OLD.release IS NOT NULL)) THEN
        RAISE EXCEPTION 'shadow % is over: %', OLD.name, OLD.state;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER shadow_ends_once BEFORE UPDATE ON shadow
    FOR EACH ROW EXECUTE FUNCTION check_shadow();
CREATE TRIGGER shadow_is_kept BEFORE DELETE ON shadow
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- One row for each transaction that a shadow evaluated, whatever number of times it was handed the record.
-- `rank` is the first 8 bytes of blake2b (8-byte digest) of the id, big endian, signed: the rows of the lowest
-- ranks are a uniform sample. No foreign key, which would be a check for each of millions of rows: shadow_summary,
-- written in the same transaction, has it.
CREATE TABLE shadow_result (
    shadow            bigint NOT NULL,
    transaction_id    text NOT NULL,
    rank              bigint NOT NULL,
    at                timestamptz NOT NULL,      -- of the live answer
    release           integer NOT NULL,
    champion_score    double precision NOT NULL,
    shadow_score      double precision NOT NULL,
    champion_scores   jsonb NOT NULL,
    shadow_scores     jsonb NOT NULL,
    champion_outcome  text,
    shadow_outcome    text,
    champion_reasons  jsonb NOT NULL,
    shadow_reasons    jsonb NOT NULL,
    amount            double precision,
    fields            jsonb NOT NULL,
    champion_us       jsonb NOT NULL,
    shadow_us         jsonb NOT NULL,
    drift             jsonb NOT NULL,            -- name to [champion's, shadow's]; null is NaN
    PRIMARY KEY (shadow, transaction_id)
);
CREATE INDEX shadow_result_by_rank ON shadow_result (shadow, rank);
CREATE TRIGGER shadow_result_is_immutable BEFORE UPDATE ON shadow_result
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What the rows of an hour come to (shadow.summary): changed in the transaction that stores the rows, by those
-- that were new alone.
CREATE TABLE shadow_summary (
    shadow   bigint NOT NULL REFERENCES shadow,
    hour     timestamptz NOT NULL,
    document jsonb NOT NULL,
    PRIMARY KEY (shadow, hour)
);

-- What a promotion used as its evidence.
CREATE TABLE shadow_report (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shadow  bigint NOT NULL REFERENCES shadow,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    made_by text NOT NULL DEFAULT session_user,
    figures jsonb NOT NULL
);
CREATE INDEX shadow_report_by_shadow ON shadow_report (shadow, id DESC);
CREATE TRIGGER shadow_report_is_immutable BEFORE UPDATE OR DELETE ON shadow_report
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Shadow nodes, each by its own word. Not in `member`: whoever is there must be ready before a release is current,
-- and no live release waits for a shadow.
CREATE TABLE shadow_node (
    node_id     text PRIMARY KEY,
    environment text NOT NULL,
    host        text NOT NULL,
    pid         integer NOT NULL,
    joined_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    counters    jsonb NOT NULL DEFAULT '{}',   -- counter to number, in this life
    shadows     jsonb NOT NULL DEFAULT '{}'    -- shadow's id to counter to number, in this life
);

-- How far the group has come in each partition of the live topic.
CREATE TABLE shadow_progress (
    environment text NOT NULL,
    partition   integer NOT NULL,
    node_id     text NOT NULL,
    position    bigint NOT NULL,               -- the offset that comes next
    high        bigint NOT NULL,               -- the end of the partition, as the broker said
    behind_s    double precision NOT NULL,     -- age of the newest answer whose results are stored; 0 at the end
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, partition)
);

-- What a node may do to a shadow: give it up.
CREATE FUNCTION suspend_shadow(wanted bigint, node text, why text) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE shadow SET state = 'suspended', state_at = clock_timestamp(), state_by = node, state_reason = why
    WHERE id = wanted AND state = 'running';
    RETURN FOUND;
END $$;
REVOKE ALL ON FUNCTION suspend_shadow(bigint, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION suspend_shadow(bigint, text, text) TO scorewire_node, scorewire_owner;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['shadow', 'shadow_report'] LOOP
        EXECUTE format('CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON %I'
                       ' FOR EACH ROW EXECUTE FUNCTION take_down()', name);
        EXECUTE format('CREATE TRIGGER stays BEFORE TRUNCATE ON %I'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['shadow', 'shadow_result', 'shadow_summary', 'shadow_report', 'shadow_node',
                                'shadow_progress'] LOOP
        EXECUTE format('GRANT SELECT ON %I TO scorewire_node, scorewire_promoter, scorewire_approver,'
                       ' scorewire_auditor, scorewire_owner', name);
    END LOOP;
END $$;

GRANT INSERT ON shadow TO scorewire_promoter, scorewire_owner;
GRANT UPDATE (state, state_at, state_by, state_reason, release) ON shadow
    TO scorewire_promoter, scorewire_approver, scorewire_owner;
GRANT INSERT ON shadow_report TO scorewire_promoter, scorewire_owner;
GRANT INSERT ON shadow_result TO scorewire_node, scorewire_owner;
GRANT INSERT, UPDATE ON shadow_summary TO scorewire_node, scorewire_owner;
GRANT INSERT, UPDATE, DELETE ON shadow_node, shadow_progress TO scorewire_node, scorewire_owner;
-- Rows whose time is over are taken away by whoever owns them; what they came to stays in shadow_summary.
GRANT DELETE ON shadow_result TO scorewire_owner;
