-- Canaries that grow by a schedule and return by themselves: what was asked, what nodes count in each step, and
-- how each step ended.

-- Percentages that follow each other, each for step_s seconds at least; after the last it becomes current, unless
-- it stays. Empty: it grows by hand.
ALTER TABLE rollout
    ADD COLUMN schedule double precision[] NOT NULL DEFAULT '{}',
    ADD COLUMN step_s   double precision NOT NULL DEFAULT 0 CHECK (step_s >= 0),
    ADD COLUMN stays    boolean NOT NULL DEFAULT false,
    ADD CHECK (schedule = '{}' OR kind = 'canary');
ALTER TABLE proposal
    ADD COLUMN schedule double precision[] NOT NULL DEFAULT '{}',
    ADD COLUMN step_s   double precision NOT NULL DEFAULT 0 CHECK (step_s >= 0),
    ADD COLUMN stays    boolean NOT NULL DEFAULT false,
    ADD CHECK (schedule = '{}' OR percent IS NOT NULL);
CREATE OR REPLACE FUNCTION refuse_reopening_proposal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'open' OR
       (NEW.environment, NEW.slot, NEW.stages, NEW.proposed_by, NEW.percent, NEW.schedule, NEW.step_s, NEW.stays)
       IS DISTINCT FROM
       (OLD.environment, OLD.slot, OLD.stages, OLD.proposed_by, OLD.percent, OLD.schedule, OLD.step_s, OLD.stays)
    THEN
        RAISE EXCEPTION 'proposal % is immutable: it is %', OLD.id, OLD.state;
    END IF;
    RETURN NEW;
END $$;

-- A step is the time in which a canary has one percentage. How it ends:
--   grew        the schedule gave it to more keys
--   changed     somebody gave it to more keys, or to fewer
--   finished    the release became current
--   returned    a gate broke: nobody gets it any more
--   ended       somebody stopped it, or another release became current
CREATE TABLE canary_step (
    environment text NOT NULL,
    number      integer NOT NULL,
    step        integer NOT NULL CHECK (step > 0),
    percent     double precision NOT NULL CHECK (percent BETWEEN 0 AND 100),
    since       timestamptz NOT NULL DEFAULT clock_timestamp(),
    until       timestamptz,
    outcome     text NOT NULL DEFAULT '' CHECK (outcome IN ('', 'grew', 'changed', 'finished', 'returned', 'ended')),
    figures     jsonb,  -- what its gates were judged by
    PRIMARY KEY (environment, number, step),
    FOREIGN KEY (environment, number) REFERENCES release,
    CHECK ((until IS NULL) = (outcome = ''))
);
CREATE UNIQUE INDEX one_canary_step_at_a_time ON canary_step (environment) WHERE until IS NULL;

CREATE FUNCTION refuse_reopening_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.until IS NOT NULL OR (NEW.environment, NEW.number, NEW.step, NEW.percent, NEW.since)
       IS DISTINCT FROM (OLD.environment, OLD.number, OLD.step, OLD.percent, OLD.since) THEN
        RAISE EXCEPTION 'step % of canary % is immutable', OLD.step, OLD.number;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER canary_step_ends_once BEFORE UPDATE ON canary_step
    FOR EACH ROW EXECUTE FUNCTION refuse_reopening_step();
CREATE TRIGGER canary_step_is_immutable BEFORE DELETE ON canary_step
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER canary_step_stays BEFORE TRUNCATE ON canary_step
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON canary_step
    FOR EACH ROW EXECUTE FUNCTION take_down();

-- What a node counted in a step so far: each says it again and again, whole. Many rows for a short time, so no part
-- of the audit; the figures that decided something are in canary_step.
CREATE TABLE canary_count (
    environment text NOT NULL,
    number      integer NOT NULL,
    step        integer NOT NULL,
    node_id     text NOT NULL,
    counts      jsonb NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, number, step, node_id)
);

-- When a canary was judged last, so that hundreds of nodes judge it as often as one.
CREATE TABLE canary_look (
    environment text PRIMARY KEY REFERENCES environment,
    at          timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE OR REPLACE FUNCTION view_of(env text, fresh_s double precision) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'current', (SELECT release_of(env, current) FROM environment WHERE name = env),
        'previous', (SELECT release_of(env, o.number) FROM rollout o JOIN environment e ON e.name = env
                     WHERE o.environment = env AND o.state = 'active' AND o.kind <> 'canary' AND o.number <> e.current
                     ORDER BY o.id DESC LIMIT 1),
        'canary', (SELECT jsonb_build_object(
                       'release', release_of(env, e.canary), 'percent', e.canary_percent, 'key', e.canary_key,
                       'step', coalesce((SELECT step FROM canary_step s WHERE s.environment = env AND s.until IS NULL), 0),
                       'watched', jsonb_typeof(policy_of(env) -> 'canary') IS NOT DISTINCT FROM 'object'
                           OR EXISTS (SELECT FROM rollout o WHERE o.environment = env AND o.number = e.canary
                                      AND o.kind = 'canary' AND o.schedule <> '{}'))
                   FROM environment e WHERE e.name = env AND e.canary IS NOT NULL),
        'coming', (SELECT rollout_of(id) FROM rollout WHERE environment = env AND state = 'preparing'),
        'members', coalesce((SELECT jsonb_agg(to_jsonb(m) ORDER BY node_id) FROM member m
                             WHERE m.environment = env
                               AND m.beat_at > clock_timestamp() - make_interval(secs => fresh_s)), '[]'))
$$;

GRANT SELECT ON canary_step, canary_count, canary_look
    TO scorewire_node, scorewire_promoter, scorewire_approver, scorewire_auditor, scorewire_owner;
-- Whoever settles a rollout or looks at a canary begins and ends steps: nodes, and people by their commands.
GRANT INSERT, UPDATE (until, outcome, figures) ON canary_step
    TO scorewire_node, scorewire_promoter, scorewire_approver, scorewire_owner;
GRANT INSERT, UPDATE, DELETE ON canary_count TO scorewire_node;
GRANT DELETE ON canary_count TO scorewire_promoter, scorewire_approver, scorewire_owner;
GRANT INSERT, UPDATE ON canary_look TO scorewire_node, scorewire_owner;

-- After its last step a node makes a canary current. It may open no rollout but this one, which whoever promoted the
-- canary asked for with its schedule.
CREATE FUNCTION finish_canary(env text, secs double precision, who text, why text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    asked  rollout%ROWTYPE;
    opened bigint;
BEGIN
    SELECT o.* INTO asked FROM rollout o JOIN environment e ON e.name = env
    WHERE o.environment = env AND o.number = e.canary AND o.kind = 'canary' AND o.state = 'active';
    IF asked.id IS NULL OR asked.schedule = '{}' OR asked.stays THEN
        RAISE EXCEPTION 'no canary of % was asked to become current by itself', env;
    END IF;
    INSERT INTO rollout (environment, number, deadline, started_by, comment)
    VALUES (env, asked.number, clock_timestamp() + make_interval(secs => secs), who, why)
    RETURNING id INTO opened;
    RETURN opened;
END $$;
REVOKE ALL ON FUNCTION finish_canary(text, double precision, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION finish_canary(text, double precision, text, text) TO scorewire_node, scorewire_owner;
