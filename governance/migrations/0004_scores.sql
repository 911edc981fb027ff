-- Named scores: a pipeline may have further models, and features of their own for them.
ALTER TABLE release_stage DROP CONSTRAINT release_stage_stage_check,
    ADD CONSTRAINT release_stage_stage_check
        CHECK (stage ~ '^(decision|(features|model)(:[a-z][a-z0-9_]{0,30})?)$');
