-- Nodes keep more than one release loaded for a return: `earlier` has those that were current before, the last one
-- first. What counts up with each release that becomes current is told with them.
CREATE INDEX rollout_activation ON rollout (environment, id) WHERE state = 'active' AND kind <> 'canary';

DROP FUNCTION view_of(text, double precision);
CREATE FUNCTION view_of(env text, fresh_s double precision, keep integer) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'current', (SELECT release_of(env, current) FROM environment WHERE name = env),
        'earlier', coalesce((SELECT jsonb_agg(release_of(env, number) ORDER BY last DESC) FROM (
                                 SELECT o.number, max(o.id) AS last FROM rollout o JOIN environment e ON e.name = env
                                 WHERE o.environment = env AND o.state = 'active' AND o.kind <> 'canary'
                                   AND o.number <> e.current
                                 GROUP BY o.number ORDER BY last DESC LIMIT keep) kept), '[]'),
        'activation', (SELECT coalesce(max(id), 0) FROM rollout
                       WHERE environment = env AND state = 'active' AND kind <> 'canary'),
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
