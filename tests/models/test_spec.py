"""Feature specs: the same features in training and serving, and every bad field refused by name and rule."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.spec import FeatureSpec, SpecError, TransactionError, load_spec

TOML = """
name = "all"
version = 3
id = "id"
timezone = "Europe/Paris"
[fields.amount]
type = "number"
min = 0
max = 1e6
[fields.mean]
type = "number"
missing = "nan"
[fields.age]
type = "number"
missing = 30
[fields.channel]
type = "category"
categories = ["chip", "online"]
unknown = -1
missing = -2
[fields.kind]
type = "category"
categories = ["a", "b"]
[fields.known]
type = "flag"
missing = 0
[fields.at]
type = "timestamp"
"""
FEATURES = [
    ("amount", "numeric", "amount", {}),
    ("log", "log1p", "amount", {}),
    ("mean", "numeric", "mean", {}),
    ("age", "numeric", "age", {}),
    ("ratio", "ratio", "amount", {"by": "age", "zero": -5}),
    ("gap", "difference", "amount", {"by": "age"}),
    ("channel", "category", "channel", {}),
    ("kind", "category", "kind", {}),
    ("known", "flag", "known", {}),
    *((kind, kind, "at", {}) for kind in ("hour", "weekday", "day", "month", "is_weekend", "is_night")),
]
GOOD = {"amount": 12.5, "mean": 3.0, "age": 5, "channel": "online", "kind": "b", "known": True, "at": 0}


def toml(features: Any = tuple(FEATURES)) -> bytes:
    parts = [TOML]
    for name, kind, field, more in features:
        facts = {"name": name, "kind": kind, "field": field, **more}
        parts.append("[[features]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in facts.items()))
    return "".join(parts).encode()


@pytest.fixture(scope="module")
def spec() -> FeatureSpec:
    return load_spec(toml())


def value(spec: FeatureSpec, feature: str, **changes: Any) -> float:
    vector = spec.vector({**GOOD, **changes})
    return float(vector[spec.feature_names.index(feature)])


def test_a_spec_has_a_name_a_version_and_a_digest_of_its_bytes(spec: FeatureSpec) -> None:
    assert (spec.name, spec.version, spec.id_field) == ("all", 3, "id")
    assert spec.n_features == len(FEATURES) == len(spec.feature_names)
    assert spec.digest == load_spec(toml()).digest
    assert spec.digest != load_spec(toml() + b"\n").digest


def test_each_kind_of_feature_computes_what_it_says(spec: FeatureSpec) -> None:
    assert value(spec, "amount") == 12.5
    assert value(spec, "log") == np.float32(math.log1p(12.5))
    assert value(spec, "ratio") == 2.5
    assert value(spec, "ratio", age=0) == -5
    assert value(spec, "gap") == 7.5
    assert value(spec, "channel") == 1
    assert value(spec, "channel", channel="fax") == -1
    assert value(spec, "channel", channel=None) == -2
    assert value(spec, "known", known=False) == 0
    assert math.isnan(value(spec, "mean", mean=None))
    assert math.isnan(value(spec, "mean", mean=float("nan")))
    assert value(spec, "age", age=None) == 30


@pytest.mark.parametrize(
    "at", ["2026-07-04T21:30:00+00:00", "2026-07-04T21:30:00Z", 1783200600, 1783200600.0]
)
def test_times_are_read_in_the_specs_time_zone(spec: FeatureSpec, at: Any) -> None:
    # In Paris it is a Saturday, 23:30.
    parts = {name: value(spec, name, at=at) for name in ("hour", "weekday", "day", "month")}
    assert parts == {"hour": 23, "weekday": 5, "day": 4, "month": 7}
    assert value(spec, "is_weekend", at=at) == 1
    assert value(spec, "is_night", at=at) == 1


@pytest.mark.parametrize(
    ("field", "bad", "rule"),
    [
        ("amount", None, "missing"),
        ("amount", "1", "type"),
        ("amount", True, "type"),
        ("amount", [1], "type"),
        ("amount", float("nan"), "not_a_number"),
        ("amount", float("inf"), "infinite"),
        ("amount", 10**400, "infinite"),
        ("amount", -0.1, "range"),
        ("amount", 1e7, "range"),
        ("mean", 1e300, "infinite"),
        ("channel", 5, "type"),
        ("kind", "c", "unknown_category"),
        ("kind", None, "missing"),
        ("known", 1, "type"),
        ("at", "yesterday", "timestamp"),
        ("at", "2026-07-04T21:30:00", "timestamp"),
        ("at", 1e300, "timestamp"),
        ("at", True, "timestamp"),
        ("at", None, "missing"),
    ],
)
def test_a_bad_field_is_refused_by_name_and_rule(spec: FeatureSpec, field: str, bad: Any, rule: str) -> None:
    with pytest.raises(TransactionError) as caught:
        spec.vector({**GOOD, field: bad})
    assert (caught.value.field, caught.value.rule) == (field, rule)
    assert f"field {field!r}" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_a_transaction_is_not_is_named(spec: FeatureSpec) -> None:
    for wrong in (None, 5, "text", [1]):
        with pytest.raises(TransactionError, match="map of named fields"):
            spec.vector(wrong)  # type: ignore[arg-type]


def test_a_spec_says_what_of_a_transaction_is_stored(spec: FeatureSpec) -> None:
    assert (dict(spec.storage), spec.undeclared) == ({}, "keep")
    text = b'undeclared = "drop"\n' + toml()
    text = text.replace(b'missing = "nan"', b'missing = "nan"\nstore = "hash"')
    text = text.replace(b"[fields.at]", b'[fields.card]\ntype = "any"\nstore = "drop"\n[fields.at]')
    found = load_spec(text)
    assert (dict(found.storage), found.undeclared) == ({"mean": "hash", "card": "drop"}, "drop")
    # A field that is there to be dropped may be anything.
    assert found.vector({**GOOD, "card": ["4111"]}).tobytes() == spec.vector(GOOD).tobytes()
    with pytest.raises(SpecError, match=r"fields.mean.store"):
        load_spec(text.replace(b'"hash"', b'"encrypt"'))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
transactions = st.fixed_dictionaries(
    {},
    optional={
        "amount": json_like | st.floats(0, 1e6),
        "mean": json_like,
        "age": json_like,
        "channel": json_like | st.sampled_from(["chip", "online", "fax"]),
        "kind": json_like | st.sampled_from(["a", "b"]),
        "known": json_like,
        "at": json_like | st.datetimes().map(lambda moment: f"{moment.isoformat()}+02:00"),
    },
)


# Text is slow to make the first time; that is no fault.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(transactions, max_size=5))
def test_training_and_serving_agree_to_the_bit_and_nothing_else_is_raised(
    found: list[dict[str, Any]],
) -> None:
    spec = load_spec(toml())
    rows, errors = [], []
    for transaction in found:
        try:
            rows.append(spec.vector(transaction))
        except TransactionError as error:
            errors.append(error)
    if errors:
        with pytest.raises(TransactionError) as caught:
            spec.matrix(found)
        assert str(caught.value) == str(errors[0])
    else:
        matrix = spec.matrix(found)
        assert matrix.shape == (len(found), spec.n_features)
        assert matrix.dtype == np.float32
        assert matrix.tobytes() == b"".join(row.tobytes() for row in rows)
    assert all(not np.isinf(row).any() for row in rows)


def test_json_is_read_as_well_as_toml(tmp_path: Path) -> None:
    recipe = {
        "name": "j",
        "version": 1,
        "fields": {"a": {"type": "number"}},
        "features": [{"name": "a", "kind": "numeric", "field": "a"}],
    }
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(recipe))
    assert load_spec(path).vector({"a": 1.5}).tolist() == [1.5]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((b"version = 3", b"version = 0"), "version"),
        ((b"version = 3", b"vrsion = 3"), "vrsion.*not permitted|version: Field required"),
        ((b'type = "flag"', b'type = "flg"'), "fields.known.type"),
        ((b"Europe/Paris", b"Europe/Atlantis"), "time zone"),
        ((b"min = 0", b"min = 2e6"), "min is above max"),
        ((b'categories = ["a", "b"]', b'categories = ["a", "a"]'), "twice"),
        ((b'categories = ["a", "b"]', b""), "names its categories"),
        ((b'kind = "log1p"', b'kind = "log3"'), "log3"),
        ((b'name = "log"', b'name = "amount"'), "feature is named twice"),
        ((b'field = "mean"', b'field = "men"'), "not declared"),
        ((b'kind = "hour"\nfield = "at"', b'kind = "hour"\nfield = "amount"'), "of a timestamp"),
        ((b'by = "age"', b""), "second field"),
        ((b'name = "all"', b"name = "), "feature spec"),
        ((b'name = "all"', b'name = "\xff"'), "utf-8"),
    ],
)
def test_a_spec_that_is_none_is_refused_with_its_reason(change: tuple[bytes, bytes], why: str) -> None:
    assert change[0] in toml()
    with pytest.raises(SpecError, match=why):
        load_spec(toml().replace(change[0], change[1], 1))


def test_a_spec_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.toml"):
        load_spec(tmp_path / "none.toml")
    for junk in (b"", b"{" * 10_000, b"[]", b"\x00"):
        with pytest.raises(SpecError):
            load_spec(junk)
