-- What was answered, kept for a while; labels, which come back later; and the nodes of the stream between.

-- How long an environment keeps what it answered. Without a row: 400 days.
CREATE TABLE retention (
    environment text PRIMARY KEY REFERENCES environment,
    days        integer NOT NULL CHECK (days BETWEEN 1 AND 36500)
);

-- A transaction and its answer, as the tee's record has them. A table for each environment, and in it one for each
-- day (UTC), so that what is over its time goes at once and costs nothing.
-- A record that comes twice is the same row. A transaction that was asked twice has two answers, and two rows.
CREATE TABLE transaction (
    environment text NOT NULL,
    id          text NOT NULL,
    at          timestamptz NOT NULL,      -- when the answer left, by the clock of the node that answered
    node        text NOT NULL,
    seq         bigint NOT NULL,           -- of the node's answers
    release     integer NOT NULL,          -- which has the pipeline
    canary      boolean NOT NULL,
    outcome     text,                      -- null: its pipeline decides nothing
    reasons     text[] NOT NULL,
    outputs     text[] NOT NULL,           -- names of the scores, in the model's order
    scores      double precision[] NOT NULL,
    stages      text[] NOT NULL,           -- names of the features stages
    vectors     bytea[] NOT NULL,          -- float32 little-endian, one for each of them
    fields      json NOT NULL,             -- the transaction after the field policy; json keeps each number's digits
    nodes       jsonb NOT NULL,            -- role to node
    us          jsonb NOT NULL,            -- part of the way to microseconds
    stored_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, id, at),
    CHECK (cardinality(outputs) = cardinality(scores)),
    CHECK (cardinality(stages) = cardinality(vectors))
) PARTITION BY LIST (environment);

-- An environment's name may be as long as an identifier, so its tables bear a digest of it.
CREATE FUNCTION transaction_table(env text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'transaction_' || left(md5(env), 12)
$$;

CREATE FUNCTION retention_of(env text) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT days FROM retention WHERE environment = env), 400)
$$;

-- Makes the tables of an environment from one day to another, and returns how many days it made; days that are
-- over, or more than a week ahead, are left out. A table is made first and attached then, so that neither readers
-- nor writers of the others wait.
CREATE FUNCTION make_transaction_days(env text, first date, last date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    parent text := transaction_table(env);
    today  date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    made   integer := 0;
    day    date;
    name   text;
BEGIN
    IF NOT EXISTS (SELECT FROM environment WHERE environment.name = env) THEN
        RAISE EXCEPTION 'there is no environment %', env;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext(parent));
    IF to_regclass(quote_ident(parent)) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE transaction INCLUDING ALL) PARTITION BY RANGE (at)', parent);
        EXECUTE format('ALTER TABLE transaction ATTACH PARTITION %I FOR VALUES IN (%L)', parent, env);
    END IF;
    day := greatest(first, today - retention_of(env));
    WHILE day <= least(last, today + 7) LOOP
        name := parent || to_char(day, '_YYYYMMDD');
        IF to_regclass(quote_ident(name)) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE transaction INCLUDING ALL)', name);
            EXECUTE format('CREATE TRIGGER is_immutable BEFORE UPDATE ON %I'
                           ' FOR EACH ROW EXECUTE FUNCTION refuse_change()', name);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name,
                           day::text || ' 00:00+00', (day + 1)::text || ' 00:00+00');
            made := made + 1;
        END IF;
        day := day + 1;
    END LOOP;
    RETURN made;
END $$;

-- Drops the days that are over, and returns their names. One that somebody is reading is left for the next time.
CREATE FUNCTION drop_transaction_days(env text) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE
    parent text := transaction_table(env);
    oldest text := parent || to_char((clock_timestamp() AT TIME ZONE 'UTC')::date - retention_of(env), '_YYYYMMDD');
    name   text;
BEGIN
    FOR name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = to_regclass(quote_ident(parent)) AND c.relname COLLATE "C" < oldest ORDER BY 1
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE %I', name);
            RETURN NEXT name;
        EXCEPTION WHEN lock_not_available THEN
            RETURN;
        END;
    END LOOP;
END $$;

-- What a transaction turned out to be. The later word counts.
CREATE TABLE label (
    environment    text NOT NULL REFERENCES environment,
    transaction_id text NOT NULL CHECK (transaction_id <> ''),
    positive       boolean NOT NULL,
    source         text NOT NULL,
    labelled_at    timestamptz NOT NULL,
    imported_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    imported_by    text NOT NULL CHECK (imported_by <> ''),
    PRIMARY KEY (environment, transaction_id)
);

-- Each import, with what came of it. Labels themselves are too many for the audit log; this is their entry there.
CREATE TABLE label_import (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment text NOT NULL REFERENCES environment,
    file        text NOT NULL,
    sha256      text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    imported_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    imported_by text NOT NULL CHECK (imported_by <> ''),
    added       bigint NOT NULL,
    changed     bigint NOT NULL,
    unchanged   bigint NOT NULL,
    older       bigint NOT NULL,           -- a later word was there already
    bad         bigint NOT NULL            -- lines that could not be read
);
CREATE TRIGGER label_import_is_immutable BEFORE UPDATE OR DELETE ON label_import
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Tees and sinks, each by its own word. Not in `member`: no release waits for them.
CREATE TABLE stream_node (
    node_id     text PRIMARY KEY,
    environment text NOT NULL,
    role        text NOT NULL CHECK (role IN ('tee', 'sink')),
    host        text NOT NULL,
    pid         integer NOT NULL,
    joined_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    counters    jsonb NOT NULL DEFAULT '{}'    -- counter to number, in this life
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['retention', 'label_import'] LOOP
        EXECUTE format('CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON %I'
                       ' FOR EACH ROW EXECUTE FUNCTION take_down()', name);
        EXECUTE format('CREATE TRIGGER stays BEFORE TRUNCATE ON %I'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['retention', 'transaction', 'label', 'label_import', 'stream_node'] LOOP
        EXECUTE format('GRANT SELECT ON %I TO scorewire_node, scorewire_promoter, scorewire_approver,'
                       ' scorewire_auditor, scorewire_owner', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['make_transaction_days(text, date, date)', 'drop_transaction_days(text)'] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO scorewire_node, scorewire_owner', name);
    END LOOP;
END $$;

GRANT INSERT ON transaction TO scorewire_node, scorewire_owner;
GRANT INSERT, UPDATE, DELETE ON stream_node TO scorewire_node, scorewire_owner;
GRANT INSERT, UPDATE ON label TO scorewire_promoter, scorewire_owner;
GRANT INSERT ON label_import TO scorewire_promoter, scorewire_owner;
GRANT INSERT, UPDATE ON retention TO scorewire_owner;
