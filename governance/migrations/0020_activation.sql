-- What counts up with each release that becomes current counts each step of a canary as well, and its end: a key
-- that was given the canary by one node is then not led back by another that has not heard of it yet.
ALTER TABLE environment ADD COLUMN activation bigint NOT NULL DEFAULT 0;
UPDATE environment e SET activation = o.last
FROM (SELECT environment, max(id) AS last FROM rollout WHERE state = 'active' GROUP BY environment) o
WHERE o.environment = e.name;

CREATE FUNCTION count_activation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.activation := OLD.activation + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER activation_counts BEFORE UPDATE ON environment
    FOR EACH ROW WHEN ((NEW.current, NEW.canary, NEW.canary_percent, NEW.canary_key)
                       IS DISTINCT FROM (OLD.current, OLD.canary, OLD.canary_percent, OLD.canary_key))
    EXECUTE FUNCTION count_activation();

CREATE OR REPLACE FUNCTION view_of(env text, fresh_s double precision, keep integer)
RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'current', (SELECT release_of(env, current) FROM environment WHERE name = env),
        'earlier', coalesce((SELECT jsonb_agg(release_of(env, number) ORDER BY last DESC) FROM (
                                 SELECT o.number, max(o.id) AS last FROM rollout o JOIN environment e ON e.name = env
                                 WHERE o.environment = env AND o.state = 'active' AND o.kind <> 'canary'
                                   AND o.number <> e.current
                                 GROUP BY o.number ORDER BY last DESC LIMIT keep) kept), '[]'),
        'activation', coalesce((SELECT activation FROM environment WHERE name = env), 0),
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
