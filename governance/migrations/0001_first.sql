-- Artifacts, environments, releases, rollouts and membership.

-- An artifact is governed by its sha256. It never changes.
CREATE TABLE artifact (
    digest        text PRIMARY KEY CHECK (digest ~ '^[0-9a-f]{64}$'),
    kind          text NOT NULL CHECK (kind IN ('bundle', 'feature_spec')),
    name          text NOT NULL CHECK (name <> '' AND length(name) <= 200),
    size          bigint NOT NULL CHECK (size > 0),
    provenance    jsonb NOT NULL DEFAULT '{}',
    registered_at timestamptz NOT NULL DEFAULT now(),
    registered_by text NOT NULL CHECK (registered_by <> '')
);
CREATE INDEX artifact_by_name ON artifact (name, registered_at DESC);

-- Its bytes, in pieces of a size that neither side minds to hold.
CREATE TABLE artifact_chunk (
    digest text NOT NULL REFERENCES artifact,
    number integer NOT NULL CHECK (number >= 0),
    bytes  bytea NOT NULL,
    PRIMARY KEY (digest, number)
);
-- Bundles do not compress; trying would cost time on each side.
ALTER TABLE artifact_chunk ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- An environment serves one release at a time: the number in `current`.
CREATE TABLE environment (
    name    text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
    current integer
);

-- A release is what all slots of an environment hold. It never changes, and is complete.
CREATE TABLE release (
    environment text NOT NULL REFERENCES environment,
    number      integer NOT NULL CHECK (number > 0),
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  text NOT NULL CHECK (created_by <> ''),
    comment     text NOT NULL DEFAULT '',
    PRIMARY KEY (environment, number)
);
ALTER TABLE environment ADD FOREIGN KEY (name, current) REFERENCES release (environment, number);

CREATE TABLE release_stage (
    environment text NOT NULL,
    number      integer NOT NULL,
    slot        text NOT NULL CHECK (slot ~ '^(champion|challenger|shadow:[a-z0-9_-]{1,50})$'),
    stage       text NOT NULL CHECK (stage IN ('features', 'model')),
    digest      text NOT NULL REFERENCES artifact,
    PRIMARY KEY (environment, number, slot, stage),
    FOREIGN KEY (environment, number) REFERENCES release
);

-- A rollout takes an environment to a release. Its states:
--   preparing -> active      all nodes that must be ready are
--   preparing -> abandoned   a node refused, or the deadline passed; `reason` says which
CREATE TABLE rollout (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment text NOT NULL,
    number      integer NOT NULL,
    state       text NOT NULL DEFAULT 'preparing' CHECK (state IN ('preparing', 'active', 'abandoned')),
    reason      text NOT NULL DEFAULT '',
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline    timestamptz NOT NULL,
    finished_at timestamptz,
    FOREIGN KEY (environment, number) REFERENCES release,
    CHECK ((state = 'preparing') = (finished_at IS NULL)),
    CHECK ((state = 'abandoned') = (reason <> ''))
);
CREATE UNIQUE INDEX one_rollout_at_a_time ON rollout (environment) WHERE state = 'preparing';

-- The nodes that must be ready: those that were fresh when the rollout started.
--   ready IS NULL -> true    it has prepared the release
--   ready IS NULL -> false   it refuses it, for `reason`
CREATE TABLE rollout_node (
    rollout bigint NOT NULL REFERENCES rollout,
    node_id text NOT NULL,
    ready   boolean,
    reason  text NOT NULL DEFAULT '',
    at      timestamptz,
    PRIMARY KEY (rollout, node_id)
);

-- The nodes, each by its own word. One whose beat is old is as good as gone.
CREATE TABLE member (
    node_id     text PRIMARY KEY,
    environment text NOT NULL,
    role        text NOT NULL,
    host        text NOT NULL,
    pid         integer NOT NULL,
    endpoints   text[] NOT NULL DEFAULT '{}',
    state       text NOT NULL CHECK (state IN ('starting', 'ready', 'draining')),
    release     integer,             -- the release that it acts on
    release_at  timestamptz,         -- since when
    joined_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX member_by_environment ON member (environment);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is immutable: what ran must stay known', TG_TABLE_NAME;
END $$;
CREATE TRIGGER artifact_is_immutable BEFORE UPDATE OR DELETE ON artifact
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER artifact_chunk_is_immutable BEFORE UPDATE OR DELETE ON artifact_chunk
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER release_is_immutable BEFORE UPDATE OR DELETE ON release
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER release_stage_is_immutable BEFORE UPDATE OR DELETE ON release_stage
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A rollout that is over stays as it ended.
CREATE FUNCTION refuse_reopening() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'preparing' THEN
        RAISE EXCEPTION 'rollout % is over: %', OLD.id, OLD.state;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER rollout_ends_once BEFORE UPDATE ON rollout
    FOR EACH ROW EXECUTE FUNCTION refuse_reopening();
