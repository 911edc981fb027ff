-- A shadow is promoted when a rollout brings what it overrides to its environment, however long people or a canary
-- took on the way: by the database itself, since the last word may be anybody's.
CREATE FUNCTION champion_of(env text, wanted integer) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_object_agg(stage, digest), '{}') FROM release_stage
    WHERE environment = env AND number = wanted AND slot = 'champion'
$$;

CREATE FUNCTION promote_shadows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    -- Of those that a report speaks for, and whose overrides were not there before.
    UPDATE shadow s SET state = 'promoted', state_at = clock_timestamp(), state_by = r.created_by,
        state_reason = r.comment, release = NEW.number
    FROM release r
    WHERE r.environment = NEW.environment AND r.number = NEW.number AND s.environment = NEW.environment
      AND s.state IN ('running', 'suspended', 'stopped')
      AND EXISTS (SELECT FROM shadow_report p WHERE p.shadow = s.id)
      AND s.overrides <@ champion_of(NEW.environment, NEW.number)
      AND NOT s.overrides <@ champion_of(NEW.environment,
                                         (SELECT current FROM environment WHERE name = NEW.environment));
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION promote_shadows() FROM PUBLIC;
CREATE TRIGGER shadows_are_promoted AFTER UPDATE ON rollout FOR EACH ROW
    WHEN (NEW.state = 'active' AND OLD.state <> 'active' AND NEW.kind = 'promotion')
    EXECUTE FUNCTION promote_shadows();
