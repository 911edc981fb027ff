-- Code packages: wheels that stand for a stage of the evaluation.

ALTER TABLE artifact DROP CONSTRAINT artifact_kind_check,
    ADD CONSTRAINT artifact_kind_check
        CHECK (kind IN ('bundle', 'feature_spec', 'decision_rules', 'code_package'));

-- Whoever writes a release: no stage holds what cannot stand for it. A stage may be named further, as `model:x`;
-- a code package says in its provenance which stage it is for.
CREATE FUNCTION check_stage() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found artifact%ROWTYPE;
    takes text;
BEGIN
    SELECT * INTO found FROM artifact WHERE digest = NEW.digest;
    takes := CASE found.kind
        WHEN 'feature_spec' THEN 'features'
        WHEN 'bundle' THEN 'model'
        WHEN 'decision_rules' THEN 'decision'
        ELSE found.provenance ->> 'stage' END;
    -- What is not there at all is refused by its reference.
    IF found.digest IS NOT NULL AND split_part(NEW.stage, ':', 1) IS DISTINCT FROM takes THEN
        RAISE EXCEPTION 'stage % cannot be a % that stands for %', NEW.stage, found.kind, takes;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stage_takes_its_kind BEFORE INSERT ON release_stage
    FOR EACH ROW EXECUTE FUNCTION check_stage();
