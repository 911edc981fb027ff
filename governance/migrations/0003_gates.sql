-- Signatures, policies, proposals with approvals, freezes, and rollouts that lead back.

-- Decision rules are artifacts too, and a stage of the pipeline.
ALTER TABLE artifact DROP CONSTRAINT artifact_kind_check,
    ADD CHECK (kind IN ('bundle', 'feature_spec', 'decision_rules'));
ALTER TABLE release_stage DROP CONSTRAINT release_stage_stage_check,
    ADD CHECK (stage IN ('features', 'model', 'decision'));

-- A signature says that whoever holds a key answers for an artifact. Which keys count, each node is told.
CREATE TABLE signature (
    digest     text NOT NULL REFERENCES artifact,
    key        text NOT NULL CHECK (key ~ '^[a-zA-Z0-9][a-zA-Z0-9._@-]{0,62}$'),
    public_key bytea NOT NULL CHECK (length(public_key) = 32),
    signature  bytea NOT NULL CHECK (length(signature) = 64),
    signed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    signed_by  text NOT NULL CHECK (signed_by <> ''),
    PRIMARY KEY (digest, key, public_key)
);

-- An artifact that was retired is promoted no more; where it serves, it serves on.
CREATE TABLE retirement (
    digest     text PRIMARY KEY REFERENCES artifact,
    retired_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    retired_by text NOT NULL CHECK (retired_by <> ''),
    reason     text NOT NULL CHECK (reason <> '')
);

-- What an environment asks of a promotion; the newest version counts, none asks for nothing.
CREATE TABLE policy (
    environment text NOT NULL REFERENCES environment,
    version     integer NOT NULL CHECK (version > 0),
    document    jsonb NOT NULL,
    set_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    set_by      text NOT NULL CHECK (set_by <> ''),
    PRIMARY KEY (environment, version)
);

-- A canary: a release that all nodes hold and some keys are given, beside the current one. Whose keys: those whose
-- hash lies below the percentage; `canary_key` names the transaction's field, '' its id.
ALTER TABLE environment
    ADD COLUMN canary         integer,
    ADD COLUMN canary_percent double precision NOT NULL DEFAULT 0 CHECK (canary_percent BETWEEN 0 AND 100),
    ADD COLUMN canary_key     text NOT NULL DEFAULT '',
    ADD FOREIGN KEY (name, canary) REFERENCES release (environment, number);

-- A frozen environment takes no promotion; it can still be led back.
ALTER TABLE environment
    ADD COLUMN frozen_at     timestamptz,
    ADD COLUMN frozen_by     text NOT NULL DEFAULT '',
    ADD COLUMN frozen_reason text NOT NULL DEFAULT '',
    ADD CHECK ((frozen_at IS NULL) = (frozen_by = ''));

-- A promotion that waits for people. Its states:
--   open -> released    approved by all that the policy names; `number` is the release
--   open -> rejected    by one of them, for a reason
CREATE TABLE proposal (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment text NOT NULL REFERENCES environment,
    slot        text NOT NULL,
    stages      jsonb NOT NULL,
    proposed_by text NOT NULL CHECK (proposed_by <> ''),
    proposed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    comment     text NOT NULL DEFAULT '',
    prepare_s   double precision NOT NULL,
    percent     double precision CHECK (percent BETWEEN 0 AND 100),  -- of a canary
    key         text NOT NULL DEFAULT '',
    state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'released', 'rejected')),
    number      integer,
    closed_at   timestamptz,
    FOREIGN KEY (environment, number) REFERENCES release,
    CHECK ((state = 'released') = (number IS NOT NULL)),
    CHECK ((state = 'open') = (closed_at IS NULL))
);

-- Who may approve, in which role.
CREATE TABLE approver (
    person text NOT NULL CHECK (person <> ''),
    role   text NOT NULL CHECK (role ~ '^[a-z][a-z0-9_-]{0,62}$'),
    PRIMARY KEY (person, role)
);

-- A person's word on a proposal: one word a person.
CREATE TABLE approval (
    proposal bigint NOT NULL REFERENCES proposal,
    person   text NOT NULL,
    role     text NOT NULL,
    approves boolean NOT NULL,
    comment  text NOT NULL DEFAULT '',
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (proposal, person)
);

-- A rollout says who started it and why; one that leads back leads to a release that was active before.
ALTER TABLE rollout
    ADD COLUMN kind       text NOT NULL DEFAULT 'promotion' CHECK (kind IN ('promotion', 'rollback', 'canary')),
    ADD COLUMN percent    double precision CHECK (percent BETWEEN 0 AND 100),
    ADD COLUMN key        text NOT NULL DEFAULT '',
    ADD CHECK ((kind = 'canary') = (percent IS NOT NULL)),
    ADD COLUMN started_by text NOT NULL DEFAULT '',
    ADD COLUMN comment    text NOT NULL DEFAULT '';

CREATE FUNCTION policy_of(wanted text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT document FROM policy WHERE environment = wanted ORDER BY version DESC LIMIT 1), '{}')
$$;

-- The database itself holds what must not depend on who calls with what code: nobody approves without being
-- an approver, or approves a proposal of their own.
CREATE FUNCTION check_approval() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found proposal%ROWTYPE;
BEGIN
    SELECT * INTO found FROM proposal WHERE id = NEW.proposal;
    IF found.state <> 'open' THEN
        RAISE EXCEPTION 'proposal % is %', NEW.proposal, found.state;
    END IF;
    IF NOT EXISTS (SELECT FROM approver WHERE person = NEW.person AND role = NEW.role) THEN
        RAISE EXCEPTION '% is no approver of the role %', NEW.person, NEW.role;
    END IF;
    IF NEW.approves AND NEW.person = found.proposed_by
       AND NOT coalesce((policy_of(found.environment) ->> 'own_approval')::boolean, false) THEN
        RAISE EXCEPTION '% may not approve a proposal of their own', NEW.person;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER approval_is_allowed BEFORE INSERT ON approval
    FOR EACH ROW EXECUTE FUNCTION check_approval();

-- Nor is there a release without the approvals that its environment's policy names.
CREATE FUNCTION check_release() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    needed jsonb := coalesce(policy_of(NEW.environment) -> 'approvals', '{}');
BEGIN
    IF needed <> '{}' AND NOT EXISTS (
        SELECT FROM proposal p
        WHERE p.environment = NEW.environment AND p.state = 'open' AND p.proposed_by = NEW.created_by
          AND NOT EXISTS (
            SELECT FROM jsonb_each_text(needed) AS need (role, count)
            WHERE need.count::integer > (
                SELECT count(*) FROM approval a
                WHERE a.proposal = p.id AND a.role = need.role AND a.approves))
    ) THEN
        RAISE EXCEPTION 'release % of % lacks approvals: %', NEW.number, NEW.environment, needed;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER release_is_approved BEFORE INSERT ON release
    FOR EACH ROW EXECUTE FUNCTION check_release();

-- Nor does an environment flip to what no rollout brought there.
CREATE FUNCTION check_current() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.current IS DISTINCT FROM OLD.current AND NOT EXISTS (
        SELECT FROM rollout WHERE environment = NEW.name AND number = NEW.current AND state = 'active') THEN
        RAISE EXCEPTION 'no rollout has brought % to release %', NEW.name, NEW.current;
    END IF;
    IF NEW.canary IS NOT NULL AND NOT EXISTS (
        SELECT FROM rollout WHERE environment = NEW.name AND number = NEW.canary AND state = 'active') THEN
        RAISE EXCEPTION 'no rollout has brought % to release %', NEW.name, NEW.canary;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER current_was_rolled_out BEFORE UPDATE ON environment
    FOR EACH ROW EXECUTE FUNCTION check_current();

CREATE FUNCTION refuse_reopening_proposal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'open' OR (NEW.environment, NEW.slot, NEW.stages, NEW.proposed_by, NEW.percent)
       IS DISTINCT FROM (OLD.environment, OLD.slot, OLD.stages, OLD.proposed_by, OLD.percent) THEN
        RAISE EXCEPTION 'proposal % is immutable: it is %', OLD.id, OLD.state;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER proposal_ends_once BEFORE UPDATE ON proposal
    FOR EACH ROW EXECUTE FUNCTION refuse_reopening_proposal();

CREATE TRIGGER signature_is_immutable BEFORE UPDATE OR DELETE ON signature
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER policy_is_immutable BEFORE UPDATE OR DELETE ON policy
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER retirement_is_immutable BEFORE UPDATE OR DELETE ON retirement
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER approval_is_immutable BEFORE UPDATE OR DELETE ON approval
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What a node looks at, in one statement and so at one moment: hundreds of them look at once when a hint comes.
CREATE FUNCTION release_of(env text, wanted integer) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT to_jsonb(r) || jsonb_build_object('slots', coalesce((
        SELECT jsonb_object_agg(slot, jsonb_build_object('stages', stages)) FROM (
            SELECT slot, jsonb_object_agg(stage, digest) AS stages FROM release_stage s
            WHERE s.environment = env AND s.number = wanted GROUP BY slot) held), '{}'))
    FROM release r WHERE r.environment = env AND r.number = wanted
$$;
CREATE FUNCTION rollout_of(wanted bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT to_jsonb(o) - 'number' || jsonb_build_object(
        'release', release_of(o.environment, o.number),
        'nodes', coalesce((SELECT jsonb_object_agg(node_id, ready) FROM rollout_node n
                           WHERE n.rollout = o.id), '{}'))
    FROM rollout o WHERE o.id = wanted
$$;
CREATE FUNCTION view_of(env text, fresh_s double precision) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'current', (SELECT release_of(env, current) FROM environment WHERE name = env),
        'previous', (SELECT release_of(env, o.number) FROM rollout o JOIN environment e ON e.name = env
                     WHERE o.environment = env AND o.state = 'active' AND o.kind <> 'canary' AND o.number <> e.current
                     ORDER BY o.id DESC LIMIT 1),
        'canary', (SELECT jsonb_build_object('release', release_of(env, canary), 'percent', canary_percent,
                                             'key', canary_key)
                   FROM environment WHERE name = env AND canary IS NOT NULL),
        'coming', (SELECT rollout_of(id) FROM rollout WHERE environment = env AND state = 'preparing'),
        'members', coalesce((SELECT jsonb_agg(to_jsonb(m) ORDER BY node_id) FROM member m
                             WHERE m.environment = env
                               AND m.beat_at > clock_timestamp() - make_interval(secs => fresh_s)), '[]'))
$$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['signature', 'retirement', 'policy', 'proposal', 'approver', 'approval'] LOOP
        EXECUTE format('CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON %I'
                       ' FOR EACH ROW EXECUTE FUNCTION take_down()', name);
        EXECUTE format('CREATE TRIGGER stays BEFORE TRUNCATE ON %I'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
        EXECUTE format('GRANT SELECT ON %I TO scorewire_node, scorewire_promoter, scorewire_approver,'
                       ' scorewire_auditor, scorewire_owner', name);
    END LOOP;
END $$;

GRANT INSERT ON signature, retirement, proposal TO scorewire_promoter, scorewire_owner;
-- The last approval releases: approvers add what a promoter adds, and the checks above hold for them as well.
GRANT INSERT ON approval, release, release_stage, rollout, rollout_node TO scorewire_approver;
GRANT UPDATE (state, number, closed_at) ON proposal
    TO scorewire_promoter, scorewire_approver, scorewire_owner;
GRANT UPDATE (state, reason, finished_at) ON rollout TO scorewire_approver;
GRANT UPDATE (current) ON environment TO scorewire_approver;
GRANT INSERT ON policy, approval TO scorewire_owner;
GRANT INSERT, DELETE ON approver TO scorewire_owner;
GRANT UPDATE (canary, canary_percent, canary_key) ON environment
    TO scorewire_node, scorewire_promoter, scorewire_approver, scorewire_owner;
GRANT UPDATE (frozen_at, frozen_by, frozen_reason) ON environment TO scorewire_promoter, scorewire_owner;
