"""Drift: live transactions are counted in the bins of training, cheaply, and what moved is seen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from models.features.drift import DriftCounter, add, figures
from models.spec import FeatureSpec, SpecError, load_spec

FIELDS: dict[str, Any] = {
    "amount": {"type": "number", "missing": "nan"},
    "constant": {"type": "number"},
    "channel": {"type": "category", "categories": ["chip", "online"], "unknown": -1, "missing": -1},
    "name": {"type": "text", "missing": "nan"},
    "mail": {"type": "text", "missing": "nan", "store": "hash"},
    "known": {"type": "flag", "missing": "nan"},
    "at": {"type": "timestamp", "missing": "nan"},
}
KINDS = {"number": "numeric", "category": "category", "text": "length", "flag": "flag", "timestamp": "hour"}


def spec() -> FeatureSpec:
    features = [{"name": n, "field": n, "kind": KINDS[field["type"]]} for n, field in FIELDS.items()]
    return load_spec(json.dumps({"name": "s", "version": 1, "fields": FIELDS, "features": features}).encode())


def traffic(n: int, seed: int, scale: float = 1, gone: float = 0.1) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [
        {
            "amount": None if random.random() < gone else float(random.lognormal(3, 1) * scale),
            "constant": 5,
            "channel": str(random.choice(["chip", "online"])),
            "name": f"n{random.integers(3)}",
            "mail": f"{random.integers(10**9)}@x.org",
            "known": bool(random.random() < 0.3),
            "at": "2026-01-01T00:00:00Z",
        }
        for _ in range(n)
    ]


@pytest.fixture(scope="module")
def profiled() -> FeatureSpec:
    return load_spec(spec().profiled(traffic(3000, seed=1)))


def counted(profiled: FeatureSpec, transactions: list[dict[str, Any]]) -> DriftCounter:
    counter = profiled.drift_counter()
    assert counter is not None
    for transaction in transactions:
        if counter.sees():
            counter.count(transaction)
    return counter


def test_a_profile_says_how_training_was_and_keeps_no_data(profiled: FeatureSpec) -> None:
    assert spec().profile is None
    assert spec().drift_counter() is None
    profile = profiled.profile
    assert profile is not None
    assert profile.rows == 3000
    amount = profile.fields["amount"]
    assert amount.missing == pytest.approx(0.1, abs=0.02)
    assert amount.shares == pytest.approx([0.1] * 10, abs=0.01)
    assert profile.fields["constant"].shares == (1.0,)
    assert set(profile.fields["channel"].categories or ()) == {"chip", "online"}
    # What is not stored is not in the profile either.
    assert profile.fields["mail"].categories is None
    # The features are the same, the artifact is another.
    assert profiled.digest != spec().digest
    one = traffic(1, seed=5)[0]
    assert profiled.packed(one) == spec().packed(one)


def test_the_same_traffic_does_not_drift_and_other_traffic_does(profiled: FeatureSpec) -> None:
    assert profiled.profile is not None
    same = figures(profiled.profile, counted(profiled, traffic(4000, seed=2)).counts)
    assert set(same) == set(FIELDS)
    assert all((one.psi or 0) < 0.02 for one in same.values())
    assert all((one.unseen or 0) == 0 for one in same.values())
    other = traffic(4000, seed=3, scale=10, gone=0.5)
    for number, one in enumerate(other):
        one["channel"] = "fax" if number % 4 < 2 else one["channel"]
        one["constant"] = 6
    # (Every second transaction is counted: the halves must not be told apart by that.)
    moved = figures(profiled.profile, counted(profiled, other).counts)
    assert (moved["amount"].psi or 0) > 1
    assert moved["amount"].missing == pytest.approx(0.5, abs=0.05)
    assert moved["amount"].missing_trained == pytest.approx(0.1, abs=0.02)
    assert (moved["amount"].outside or 0) > 0
    assert moved["constant"].outside == 1
    assert moved["channel"].unseen == pytest.approx(0.5, abs=0.05)
    assert (moved["name"].psi or 0) < 0.02


def test_of_wide_specs_every_nth_transaction_is_counted(profiled: FeatureSpec) -> None:
    counter = counted(profiled, traffic(100, seed=4))
    assert counter.every == 2
    fields = {f"f{number}": {"type": "number"} for number in range(60)}
    features = [{"name": name, "field": name, "kind": "numeric"} for name in fields]
    wide = load_spec(json.dumps({"name": "w", "version": 1, "fields": fields, "features": features}).encode())
    rows = [dict.fromkeys(fields, float(number)) for number in range(100)]
    counter = counted(load_spec(wide.profiled(rows)), rows)
    assert (counter.seen, counter.counted, counter.every) == (100, 6, 15)


def test_counts_of_nodes_add_up(profiled: FeatureSpec) -> None:
    assert profiled.profile is not None
    left, right = (counted(profiled, traffic(500, seed=seed)) for seed in (6, 7))
    left.refuse("amount", "range")
    right.refuse("amount", "range")
    both = add(left.snapshot(), json.loads(json.dumps(right.snapshot())))
    assert (both["seen"], both["refused"]) == (1000, {"amount: range": 2})
    together = counted(profiled, traffic(500, seed=6) + traffic(500, seed=7))
    assert both["fields"] == together.snapshot()["fields"]
    # Counts of another profile are not taken for this one's.
    assert figures(profiled.profile, {"amount": [1, 2, 3], "other": [1]}) == {}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"edges": [2, 1], "shares": [1]}, "rise"),
        ({"edges": [1], "shares": []}, "rise"),
        ({"edges": [1, 2], "shares": [0.5, 0.5]}, "2 shares for 2 edges"),
        ({"missing": 2}, "less than or equal"),
    ],
)
def test_a_profile_that_is_none_is_refused(profiled: FeatureSpec, change: dict[str, Any], why: str) -> None:
    document = json.loads(profiled._source)
    document["profile"]["fields"]["amount"].update(change)
    with pytest.raises(SpecError, match=why):
        load_spec(json.dumps(document).encode())
    with pytest.raises(ValueError, match="there are none"):
        spec().profiled([])
