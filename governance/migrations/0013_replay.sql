-- Replays: a shadow evaluates the past. What is to be read is cut into parts, which whoever is free takes.
CREATE TABLE shadow_replay (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment text NOT NULL REFERENCES environment,
    shadow      bigint NOT NULL REFERENCES shadow,
    source      text NOT NULL CHECK (source IN ('kafka', 'database', 'parquet')),
    since       timestamptz NOT NULL,
    until       timestamptz NOT NULL,
    asked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    asked_by    text NOT NULL CHECK (asked_by <> ''),
    CHECK (since < until)
);

-- Its states:
--   waiting -> taken     by a node, which gives a sign every few seconds
--   taken -> taken       by another, when the sign is old; the results that are there already change nothing
--   taken -> done        all of it is evaluated and stored
--   waiting, taken -> failed   for `reason`
CREATE TABLE shadow_replay_part (
    replay  bigint NOT NULL REFERENCES shadow_replay,
    number  integer NOT NULL,
    place   jsonb NOT NULL,            -- where it is: a partition and offsets, a time, or a file
    state   text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'taken', 'done', 'failed')),
    node_id text,
    beat_at timestamptz,
    read    bigint NOT NULL DEFAULT 0, -- records in its time
    fresh   bigint NOT NULL DEFAULT 0, -- results that were not there before
    reason  text NOT NULL DEFAULT '',
    PRIMARY KEY (replay, number),
    CHECK ((state = 'waiting') = (node_id IS NULL))
);
CREATE INDEX shadow_replay_part_open ON shadow_replay_part (replay, number) WHERE state IN ('waiting', 'taken');

CREATE TRIGGER shadow_replay_is_immutable BEFORE UPDATE OR DELETE ON shadow_replay
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audited AFTER INSERT ON shadow_replay FOR EACH ROW EXECUTE FUNCTION take_down();
GRANT SELECT ON shadow_replay, shadow_replay_part TO scorewire_node, scorewire_promoter, scorewire_approver,
    scorewire_auditor, scorewire_owner;
GRANT INSERT ON shadow_replay, shadow_replay_part TO scorewire_promoter, scorewire_owner;
GRANT UPDATE (state, node_id, beat_at, read, fresh, reason) ON shadow_replay_part
    TO scorewire_node, scorewire_promoter, scorewire_owner;
