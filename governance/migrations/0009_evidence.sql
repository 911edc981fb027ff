-- A release says which report on a shadow run was its evidence.

ALTER TABLE release ADD COLUMN evidence bigint REFERENCES shadow_report;
ALTER TABLE proposal ADD COLUMN evidence bigint REFERENCES shadow_report;

CREATE FUNCTION check_evidence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.evidence IS NOT NULL AND NOT EXISTS (
        SELECT FROM shadow_report r JOIN shadow s ON s.id = r.shadow
        WHERE r.id = NEW.evidence AND s.environment = NEW.environment) THEN
        RAISE EXCEPTION 'report % is of no shadow of %', NEW.evidence, NEW.environment;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER evidence_is_of_the_environment BEFORE INSERT ON release
    FOR EACH ROW EXECUTE FUNCTION check_evidence();
CREATE TRIGGER evidence_is_of_the_environment BEFORE INSERT OR UPDATE ON proposal
    FOR EACH ROW EXECUTE FUNCTION check_evidence();
