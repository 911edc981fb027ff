-- What preprocessors counted of the fields of live transactions, against the training profile in the feature spec:
-- each counter says it again and again, whole. Many rows for a short time, so no part of the audit.
CREATE TABLE drift_count (
    environment text NOT NULL,
    number      integer NOT NULL,
    stage       text NOT NULL,
    node_id     text NOT NULL,
    since       timestamptz NOT NULL,  -- a release that is loaded again is counted anew
    counts      jsonb NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment, number, stage, node_id, since)
);
CREATE INDEX drift_count_by_age ON drift_count (at);

GRANT SELECT ON drift_count
    TO scorewire_node, scorewire_promoter, scorewire_approver, scorewire_auditor, scorewire_owner;
GRANT INSERT, UPDATE, DELETE ON drift_count TO scorewire_node, scorewire_owner;
