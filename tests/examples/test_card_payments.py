"""The simulator of card payments."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from examples.card_payments import PAYMENT_SPEC, simulate, stream
from models.spec import load_spec

ROOT = Path(__file__).parents[2]


def test_a_seed_gives_the_same_payments_in_order_of_time() -> None:
    payments, labels = simulate(n=3000, seed=5)
    again, same = simulate(n=3000, seed=5)
    assert payments == again
    assert labels.tolist() == same.tolist()
    assert simulate(n=100, seed=6)[0] != payments[:100]
    times = [payment["timestamp"] for payment in payments]
    assert times == sorted(times)
    assert len({payment["id"] for payment in payments}) == 3000
    assert json.loads(json.dumps(payments)) == payments


def test_a_forest_finds_the_fraud_in_later_payments() -> None:
    payments, labels = simulate(n=16_000, seed=7)
    x = load_spec(PAYMENT_SPEC).matrix(payments)
    model = RandomForestClassifier(40, random_state=0).fit(x[:11_000], labels[:11_000])
    assert 0.002 < labels.mean() < 0.05
    assert roc_auc_score(labels[11_000:], model.predict_proba(x[11_000:])[:, 1]) > 0.8


def test_the_stream_has_the_same_schema() -> None:
    spec = load_spec(PAYMENT_SPEC)
    assert spec.matrix(islice(stream(seed=1), 500)).shape == (500, spec.n_features)


def test_payments_are_written_to_files(tmp_path: Path) -> None:
    out, labels = tmp_path / "payments.jsonl", tmp_path / "labels.csv"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "examples.card_payments",
        "--n",
        "50",
        "--out",
        out,
        "--labels",
        labels,
    ]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "50 payments" in said
    payments = [json.loads(line) for line in out.read_text().splitlines()]
    assert payments == simulate(n=50, seed=7)[0]
    assert len(labels.read_text().splitlines()) == 51
