"""The JSON Schema of a spec: what it takes the compiled spec takes, what it refuses is refused."""

from __future__ import annotations

import json
import math
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from examples.card_payments import PAYMENT_SPEC, stream
from models.spec import FeatureSpec, TransactionError, load_spec

FIELDS: dict[str, Any] = {
    "bounded": {"type": "number", "min": -3, "max": 5},
    "optional": {"type": "number", "missing": "nan"},
    "filled": {"type": "number", "missing": 4},
    "logged": {"type": "number", "missing": "nan"},
    "rooted": {"type": "number"},
    "raised": {"type": "number"},
    "squared": {"type": "number"},
    "cubed": {"type": "number", "missing": "nan"},
    "needed": {"type": "number", "missing": "nan"},
    "known": {"type": "category", "categories": ["a", "b"]},
    "other": {"type": "category", "categories": ["a", "b"], "unknown": -1, "missing": -2},
    "flag": {"type": "flag"},
    "text": {"type": "text", "max_length": 5},
    "mapped": {"type": "text", "missing": "nan"},
    "number": {"type": "number", "missing": "nan"},
    "currency": {"type": "text", "missing": "nan"},
    "at": {"type": "timestamp", "missing": "nan"},
    "ip": {"type": "ip", "missing": "nan"},
}
FEATURES: list[dict[str, Any]] = [
    {"field": "bounded", "kind": "numeric"},
    {"field": "optional", "kind": "numeric"},
    {"field": "filled", "kind": "log1p"},
    {"field": "logged", "kind": "log"},
    {"field": "rooted", "kind": "sqrt"},
    {"field": "raised", "kind": "exp"},
    {"field": "squared", "kind": "square"},
    {"field": "cubed", "kind": "cbrt"},
    {"field": "needed", "steps": [{"kind": "required"}, {"kind": "clip", "low": 0, "high": 1}]},
    {"field": "known", "kind": "category"},
    {"field": "other", "kind": "category"},
    {"field": "flag", "kind": "flag"},
    {"field": "text", "kind": "length"},
    {"field": "mapped", "kind": "map", "table": {"a": 1, "b": 2}, "missing": 0},
    {"field": "number", "kind": "onehot", "categories": [1, 2.5], "unknown": "error", "missing": "error"},
    {"field": "bounded", "by": "currency", "kind": "currency", "table": {"EUR": 1, "USD": 0.9}},
    {"field": "at", "kind": "hour"},
    {"field": "ip", "kind": "ip_version"},
]
GOOD: dict[str, Any] = {
    "bounded": 1, "optional": 2.5, "filled": 1, "logged": 1, "rooted": 4, "needed": 9, "known": "a",
    "raised": 1, "squared": 2, "cubed": 8,
    "other": "x", "flag": True, "text": "abc", "mapped": "a", "number": 1, "currency": "EUR",
    "at": "2026-03-29T02:30:00+01:00", "ip": "::1",
}  # fmt: skip


@pytest.fixture(scope="module")
def spec() -> FeatureSpec:
    named = [{"name": f"f{number}", **feature} for number, feature in enumerate(FEATURES)]
    return load_spec(json.dumps({"name": "s", "version": 1, "fields": FIELDS, "features": named}).encode())


def takes(spec: FeatureSpec, transaction: dict[str, Any]) -> bool:
    try:
        spec.vector(transaction)
    except TransactionError:
        return False
    return True


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=7),
    st.sampled_from([0, -1, 5, 5.000001, 4e38, 3.4028235677973362e38, 10**400, 2.5, "a", "USD", [], {}]),
    st.lists(st.integers(), max_size=1),
)  # fmt: skip
stamps = st.one_of(
    st.datetimes().map(lambda at: f"{at.isoformat()}+02:00"),
    st.from_regex(
        r"\A[12]\d{3}-[01]\d-[0-3]\d[T ][0-2]\d:[0-6]\d:[0-6]\d(\.\d{1,6})?(Z|[+-][0-2]\d:[0-6]\d)\n?\Z"
    ),
    st.sampled_from(
        ["1900-02-29T00:00:00Z", "2000-02-29T00:00:00Z", "2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z"]
    ),
)
addresses = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(
        r"\A(([0-9a-f]{0,3}:){1,8}[0-9a-f]{0,3}(\.[0-9]{1,3}){0,3}|([0-9]{1,3}\.){2,4}[0-9]{1,3})\n?\Z"
    ),
)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=400, deadline=None)
@given(name=st.sampled_from(list(FIELDS)), value=anything, dropped=st.booleans())
def test_a_field_is_taken_or_refused_alike(
    spec: FeatureSpec,
    name: str,
    value: Any,
    dropped: bool,
) -> None:
    transaction = {**GOOD, name: value}
    if dropped:
        del transaction[name]
    if name in {"at", "ip"} and isinstance(value, str | int | float):
        return  # the two tests below
    assert Draft202012Validator(spec.schema()).is_valid(transaction) == takes(spec, transaction)


@pytest.mark.parametrize("name", ["optional", "rooted", "raised", "squared", "cubed"])
def test_the_largest_number_that_the_schema_takes_is_the_largest_that_is_taken(
    spec: FeatureSpec, name: str
) -> None:
    bounds = spec.schema()["properties"][name]["allOf"]
    largest = min(one["maximum"] for one in bounds if "maximum" in one)
    assert takes(spec, {**GOOD, name: largest})
    assert not takes(spec, {**GOOD, name: math.nextafter(largest, math.inf)})


@settings(max_examples=150, deadline=None)
@given(stamp=stamps)
def test_a_timestamp_that_the_schema_takes_is_taken(spec: FeatureSpec, stamp: str) -> None:
    transaction = {**GOOD, "at": stamp}
    valid = Draft202012Validator(spec.schema()).is_valid(transaction)
    # From the year 1000 to 2999, and as RFC 3339 writes them, they are the same.
    if valid or "1000" <= stamp[:4] <= "2999":
        assert valid == takes(spec, transaction)


@settings(max_examples=500, deadline=None)
@given(address=addresses)
def test_an_address_is_taken_or_refused_alike(spec: FeatureSpec, address: str) -> None:
    transaction = {**GOOD, "ip": address}
    assert Draft202012Validator(spec.schema()).is_valid(transaction) == takes(spec, transaction)


def test_the_schema_is_one_and_the_simulators_payments_fit_it() -> None:
    schema = load_spec(PAYMENT_SPEC).schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for payment in islice(stream(seed=3), 200):
        assert validator.is_valid(payment)
    assert {error.path[0] for error in validator.iter_errors({**payment, "amount": -1})} == {"amount"}
