-- When a node was last not heard of, and since when it is heard again: after an outage of the database, or of a link
-- to it, nodes come back one by one, and a release must not be current before those have it that are still to come.
ALTER TABLE member ADD COLUMN gone_at timestamptz, ADD COLUMN back_at timestamptz;
