-- Where a node says whether it is ready: load balancers ask there.
ALTER TABLE member ADD COLUMN health text NOT NULL DEFAULT '';
