"""Trains a random forest on simulated card payments.

    python -m examples.train payments.jsonl labels.csv fraud.joblib

The features are computed by the very spec that serves them later.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier

from examples.card_payments import PAYMENT_SPEC
from models.spec import load_spec


def main(payments: str, labels: str, out: str) -> None:
    """Read payments and labels, train, and write the model."""
    transactions = [json.loads(line) for line in Path(payments).read_text(encoding="utf-8").splitlines()]
    with Path(labels).open(encoding="utf-8", newline="") as rows:
        fraud = np.array([int(row["fraud"]) for row in csv.DictReader(rows)])
    x = load_spec(PAYMENT_SPEC).matrix(transactions)
    model = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=-1, random_state=1).fit(x, fraud)
    joblib.dump(model, out)
    print(f"{len(model.estimators_)} trees on {len(x)} payments, {int(fraud.sum())} of them fraud")


if __name__ == "__main__":
    main(*sys.argv[1:])
