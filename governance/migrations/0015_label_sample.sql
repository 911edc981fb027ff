-- A uniform sample of the positive labels, however many there are: those of the lowest md5. Reports walk it.
CREATE INDEX label_positive_by_chance ON label (environment, md5(transaction_id)) WHERE positive;
