"""The vocabulary of feature specs: every kind does what it says, and the same for one and for many."""

from __future__ import annotations

import json
import math
import re
import tokenize
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import GoldenMismatchError
from models.features.compile_one import write_source
from models.features.kind import OddError
from models.spec import FeatureSpec, SpecError, TransactionError, load_spec

FIELDS: dict[str, Any] = {
    "x": {"type": "number", "missing": "nan"},
    "y": {"type": "number", "missing": "nan"},
    "code": {"type": "category", "categories": ["a", "b"], "unknown": -1, "missing": -2},
    "on": {"type": "flag", "missing": "nan"},
    "t": {"type": "text", "missing": "nan", "max_length": 40},
    "u": {"type": "text", "missing": "nan", "max_length": 40},
    "at": {"type": "timestamp", "missing": "nan"},
    "since": {"type": "timestamp", "missing": "nan"},
    "ip": {"type": "ip", "missing": "nan"},
}
RATES = {"EUR": 1.0, "USD": 0.9, "x": 0.5}


def of(kind: str, field: str = "x", **more: Any) -> dict[str, Any]:
    return {"name": "f", "field": field, "kind": kind, **more}


def steps(field: str, *found: dict[str, Any]) -> dict[str, Any]:
    return {"name": "f", "field": field, "steps": list(found)}


FUNCTIONS = (
    "log1p", "log", "log2", "log10", "sqrt", "exp", "expm1", "sin", "cos", "tanh", "arcsinh", "cbrt", "abs",
    "square", "negative", "sign", "round", "floor", "ceil",
)  # fmt: skip
#: Every kind at least once, in every form that it has.
EVERY: dict[str, dict[str, Any]] = {
    "numeric": of("numeric"),
    "category": of("category", "code"),
    "flag": of("flag", "on"),
    "clip": of("clip", low=-1, high=10),
    "clip below": of("clip", low=0),
    "clip above": of("clip", high=0),
    "standardise": of("standardise", mean=0.1, scale=3),
    "linear": of("linear", factor=0.1, offset=-0.3),
    "ratio": of("ratio", by="y", zero="nan"),
    "difference": of("difference", by="y"),
    **{
        kind: {"name": "f", "kind": kind, "fields": ["x", "y", "on"]}
        for kind in ("product", "sum", "least", "greatest")
    },
    "bin": of("bin", edges=[-1, 0, 0, 2.5]),
    "impute": of("impute", value=7),
    "replace": of("replace", old=-1, new="nan"),
    "required": of("required"),
    "is_missing": of("is_missing"),
    "is_missing text": of("is_missing", "t"),
    "is_missing ip": of("is_missing", "ip"),
    "distance": {"name": "f", "kind": "distance", "fields": ["x", "y", "y", "x"]},
    **{kind: of(kind) for kind in FUNCTIONS},
    **{f"{kind} or nan": of(kind, invalid="nan") for kind in FUNCTIONS},
    **{
        f"{kind} by numpy": of(kind, invalid="nan", numpy=True)
        for kind in (
            "log1p",
            "log",
            "log2",
            "log10",
            "exp",
            "expm1",
            "sin",
            "cos",
            "tanh",
            "arcsinh",
            "cbrt",
            "abs",
        )
    },
    "cycle_sin": of("cycle_sin", period=24),
    "cycle_cos": of("cycle_cos", period=7),
    "map": of("map", "t", table={"a": 1, "b": 2}, unknown=-1, missing="nan"),
    "map or error": of("map", "t", table={"a": 1, "": 2}),
    "map of a table": of("lookup", "t", table="rates", unknown="nan", missing=0),
    "map of numbers": of("map", keys=[1, 0, 2.5], values=[4, 5, 6], unknown=-1, missing=-2),
    "target rows": of(
        "target", "t", keys=["a", "b"], values=[[0.1, 0.9], [0.5, 0.5]], unknown=[0.3, 0.7], missing=[0, 1]
    ),
    "onehot": of("onehot", "t", categories=["a", "b", ""]),
    "onehot shared": of(
        "onehot", "t", categories=["a", "b", "c"], columns=[0, -1, 0], unknown=1, missing="error"
    ),
    "onehot numbers": of("onehot", categories=[0, 1, 2.5], unknown="error", missing=3),
    "hash": of("hash", "t", buckets=97, seed=5),
    "cross": {
        "name": "f",
        "field": "t",
        "by": "u",
        "steps": [{"kind": "cross"}, {"kind": "hash", "buckets": 9}],
    },
    "currency": of("currency", by="t", table="rates", unknown="nan", missing=1),
    "length": of("length", "t"),
    **{
        f"share {one}": of("share", "t", of=one)
        for one in ("digits", "letters", "upper", "spaces", "other", "not_ascii")
    },
    "entropy": of("entropy", "t"),
    "matches": of("matches", "t", patterns=["*@mail?.*", "[ab]*", "?"]),
    **{
        kind: steps("t", {"kind": kind}, {"kind": "hash", "buckets": 1000})
        for kind in ("lower", "strip", "email_domain", "email_name")
    },
    "slice": steps("t", {"kind": "slice", "start": -3}, {"kind": "length"}),
    "fill": steps("t", {"kind": "fill", "value": "é", "old": ["a", ""]}, {"kind": "hash", "buckets": 99}),
    "looks_random": of("looks_random", "t"),
    "similarity": of("similarity", "t", by="u"),
    "similarity by edits": of("similarity", "t", by="u", measure="edits"),
    **{
        kind: steps("at", {"kind": "local", "timezone": "America/New_York"}, {"kind": kind})
        for kind in ("hour", "minute", "second", "day", "month", "quarter", "weekday", "is_weekend")
    },
    "is_night": of("is_night", "at"),
    **{kind: of(kind, "at") for kind in ("year", "day_of_year", "week", "unix")},
    "on_dates": of("on_dates", "at", dates=["2026-03-29", "1970-01-01"]),
    "elapsed": of("elapsed", "at", by="since"),
    "ip_version": of("ip_version", "ip"),
    "ip_private": of("ip_private", "ip"),
    "ip_octet": of("ip_octet", "ip", position=5),
    "ip_network": steps("ip", {"kind": "ip_network", "bits": 12}, {"kind": "hash", "buckets": 100}),
    "ip_in": of("ip_in", "ip", networks=["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"], values=[1, 2, 3]),
}


def spec_of(*features: dict[str, Any], **more: Any) -> FeatureSpec:
    named = [{**one, "name": f"{one['name']}{number or ''}"} for number, one in enumerate(features)]
    facts = {"name": "s", "version": 1, "timezone": "Europe/Paris", "tables": {"rates": RATES}}
    return load_spec(json.dumps({**facts, "fields": FIELDS, "features": named, **more}).encode())


SPECS = {name: spec_of(feature) for name, feature in EVERY.items()}

numbers = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=False),
    st.sampled_from(
        [0.0, -0.0, 1.0, -1.0, 2.5, 5e-324, -1.0000000000000002, 709.5, 90.0, 1e308, 2**70, 0, 1]
    ),
    st.integers(),
)
texts = (
    st.none()
    | st.text(max_size=40)
    | st.sampled_from(
        [
            "",
            "a",
            "b",
            "c",
            "A@Mail1.com",
            "x+y@mailx.org",
            "xkjq7r2fdddd",
            "EUR",
            "\ud800",
            "é" * 9,
            "@",
            "a\x00b",
        ]
    )
)
#: Around the hours that Paris and New York skip and repeat in 2026, and anywhere.
changes = st.sampled_from(
    [
        datetime(2026, 3, 29, 1, tzinfo=UTC),
        datetime(2026, 10, 25, 1, tzinfo=UTC),
        datetime(2026, 3, 8, 7, tzinfo=UTC),
    ]
)
moments = st.one_of(
    st.none(),
    st.builds(
        lambda at, s: (at + timedelta(seconds=s)).isoformat(),
        changes,
        st.integers(-9000, 9000),
    ),
    st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)).map(lambda at: f"{at.isoformat()}-05:30"),  # noqa: DTZ001 - its offset comes behind
    st.floats(-6e10, 2.5e11),
    st.integers(-62135596800, 253402300799),
)
addresses = st.one_of(
    st.none(),
    st.ip_addresses().map(str),
    st.sampled_from(["10.1.2.3", "10.200.0.1", "::ffff:10.1.2.3", "2001:db8::1", "127.0.0.1", "::1"]),
)
of_type = {
    "number": numbers,
    "text": texts,
    "timestamp": moments,
    "ip": addresses,
    "flag": st.none() | st.booleans(),
}
of_type["category"] = st.sampled_from(["a", "b", "z", None])


def rows(spec: FeatureSpec) -> st.SearchStrategy[list[dict[str, Any]]]:
    fields = {name: of_type[field.type] for name, field in spec.plan.fields.items()}
    return st.lists(st.fixed_dictionaries({}, optional=fields), min_size=1, max_size=5)


@pytest.mark.parametrize("name", EVERY)
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=30, deadline=None)
@given(data=st.data())
def test_one_and_many_agree_to_the_bit(name: str, data: st.DataObject) -> None:
    spec, found = SPECS[name], data.draw(rows(SPECS[name]))
    singles: list[bytes | str] = []
    for transaction in found:
        try:
            singles.append(spec.packed(transaction))
        except TransactionError as error:
            singles.append(str(error))
    good = [one for one, packed in zip(found, singles, strict=True) if isinstance(packed, bytes)]
    expected = b"".join(packed for packed in singles if isinstance(packed, bytes))
    # The numpy form itself, without its way out.
    columns = {field: [one.get(field) for one in good] for field in FIELDS}
    try:
        assert spec._compute_many(columns, len(good)).tobytes() == expected
    except OddError:
        assert any(type(value) is int for one in good for value in one.values()), (
            "a plain batch is no odd one"
        )
    assert spec.matrix(good).tobytes() == expected
    assert spec.columns(columns).tobytes() == expected
    if len(good) < len(found):
        with pytest.raises(TransactionError) as caught:
            spec.matrix(found)
        assert str(caught.value) == next(text for text in singles if isinstance(text, str))


def test_every_kind_there_is_was_asked() -> None:
    from typing import get_args

    from models.features.vocabulary import AnyKind

    known = {
        word
        for kind in get_args(get_args(AnyKind)[0])
        for word in get_args(kind.model_fields["kind"].annotation)
    }
    used = {step.kind for spec in SPECS.values() for one in spec.recipe.features for step in one.steps}
    assert known == used


def one(feature: dict[str, Any], **fields: Any) -> Any:
    found = spec_of(feature).vector(fields).tolist()
    return found[0] if len(found) == 1 else found


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("clip", {"x": 99}, 10),
        ("standardise", {"x": 3.1}, 1),
        ("linear", {"x": 13}, 1),
        ("product", {"x": 2, "y": 5, "on": True}, 10),
        ("least", {"x": 2, "y": -5, "on": True}, -5),
        ("bin", {"x": 0}, 3),
        ("bin", {"x": -2}, 0),
        ("impute", {}, 7),
        ("is_missing", {"x": None}, 1),
        ("is_missing", {"x": 3}, 0),
        ("sqrt", {"x": 16}, 4),
        ("log or nan", {"x": 1}, 0),
        ("cycle_sin", {"x": 6}, 1),
        ("map", {"t": "b"}, 2),
        ("map", {"t": "q"}, -1),
        ("map of a table", {"t": "USD"}, 0.9),
        ("map of numbers", {"x": 1}, 4),
        ("map of numbers", {}, -2),
        ("target rows", {"t": "a"}, [0.1, 0.9]),
        ("target rows", {"t": "?"}, [0.3, 0.7]),
        ("onehot", {"t": "b"}, [0, 1, 0]),
        ("onehot", {"t": "?"}, [0, 0, 0]),
        ("onehot shared", {"t": "c"}, [1, 0]),
        ("onehot shared", {"t": "b"}, [0, 0]),
        ("onehot shared", {"t": "?"}, [0, 1]),
        ("onehot numbers", {}, [0, 0, 0, 1]),
        ("currency", {"x": 10, "t": "USD"}, 9),
        ("length", {"t": "né"}, 2),
        ("share digits", {"t": "a1b2"}, 0.5),
        ("entropy", {"t": "abab"}, 1),
        ("matches", {"t": "me@mail9.com"}, 1),
        ("matches", {"t": "me@mail.com"}, 0),
        ("slice", {"t": "abcdef"}, 3),
        ("looks_random", {"t": "xkcdq77a"}, 7 / 8),
        ("looks_random", {"t": "mary.smith"}, 0),
        ("similarity", {"t": "night", "u": "nacht"}, 0.25),
        ("similarity by edits", {"t": "kitten", "u": "sitting"}, 1 - 3 / 7),
        ("hour", {"at": "2026-07-04T21:30:00Z"}, 17),
        ("quarter", {"at": "2026-07-04T21:30:00Z"}, 3),
        ("day_of_year", {"at": "2026-02-01T12:00:00Z"}, 32),
        ("on_dates", {"at": "2026-03-29T12:00:00Z"}, 1),
        # Over the night in which Paris sets its clocks on.
        ("elapsed", {"at": "2026-03-29T12:00:00+02:00", "since": "2026-03-28T12:00:00+01:00"}, 23 * 3600),
        ("ip_version", {"ip": "::1"}, 6),
        ("ip_version", {"ip": "::ffff:1.2.3.4"}, 4),
        ("ip_private", {"ip": "192.168.1.1"}, 1),
        ("ip_private", {"ip": "8.8.8.8"}, 0),
        ("ip_in", {"ip": "10.1.9.9"}, 2),
        ("ip_in", {"ip": "10.9.9.9"}, 1),
        ("ip_in", {"ip": "11.9.9.9"}, 0),
    ],
)
def test_each_kind_computes_what_it_says(name: str, fields: dict[str, Any], expected: Any) -> None:
    assert one(EVERY[name], **fields) == pytest.approx(expected, rel=1e-6)


def test_the_distance_of_two_points_is_that_on_the_ground() -> None:
    paris, london = (48.8566, 2.3522), (51.5074, -0.1278)
    fields = {name: {"type": "number"} for name in ("a", "b", "c", "d")}
    feature = {"name": "f", "kind": "distance", "fields": ["a", "b", "c", "d"]}
    spec = spec_of(feature, fields=fields)
    transaction = dict(zip("abcd", (*paris, *london), strict=True))
    assert spec.vector(transaction)[0] == pytest.approx(343.6, abs=0.2)
    with pytest.raises(TransactionError, match="latitude"):
        spec.vector({**transaction, "c": 91})


@pytest.mark.parametrize(
    ("name", "fields", "where", "rule"),
    [
        ("log", {"x": 0}, "x", "range"),
        ("sqrt", {"x": -1}, "x", "range"),
        ("exp", {"x": 800}, "x", "range"),
        ("required", {}, "x", "missing"),
        ("map or error", {"t": "z"}, "t", "unknown_category"),
        ("map or error", {}, "t", "missing"),
        ("onehot numbers", {"x": 9}, "x", "unknown_category"),
        ("onehot shared", {}, "t", "missing"),
        ("square", {"x": 1e200}, "f", "infinite"),
        ("length", {"t": "x" * 41}, "t", "length"),
        ("length", {"t": 5}, "t", "type"),
        ("ip_version", {"ip": "1.2.3"}, "ip", "address"),
        ("ip_version", {"ip": "1.2.3.4/8"}, "ip", "address"),
        ("ip_version", {"ip": "x" * 10_000}, "ip", "address"),
    ],
)
def test_what_a_kind_refuses_is_refused_by_field_and_rule(
    name: str, fields: dict[str, Any], where: str, rule: str
) -> None:
    with pytest.raises(TransactionError) as caught:
        SPECS[name].vector(fields)
    assert (caught.value.field, caught.value.rule) == (where, rule)
    assert len(str(caught.value)) < 300


def test_features_are_computed_from_values_and_features_above_them_and_once() -> None:
    value = {"name": "lx", "field": "x", "kind": "log1p"}
    spec = spec_of(
        {"name": "a", "field": "lx", "kind": "standardise", "mean": 1, "scale": 2},
        {
            "name": "b",
            "field": "x",
            "steps": [{"kind": "log1p"}, {"kind": "standardise", "mean": 1, "scale": 2}],
        },
        {"name": "c", "fields": ["a", "y"], "kind": "product"},
        values=[value, {"name": "unused", "field": "t", "kind": "length"}],
    )
    assert spec.feature_names == ("a", "b1", "c2")
    # log1p and standardise stand there once each, and what nobody needs is not read.
    assert len(spec.plan.nodes) == 3
    assert list(spec.plan.fields) == ["x", "y"]
    z = (math.log1p(5) - 1) / 2
    assert spec.vector({"x": 5, "y": 3, "t": 7}).tolist() == np.array([z, z, z * 3], np.float32).tolist()


@pytest.mark.parametrize(
    ("feature", "why"),
    [
        (of("clip"), "`low`, `high`"),
        (of("clip", low=2, high=1), "above"),
        (of("standardise", scale=0), "divided"),
        (of("bin", edges=[2, 1]), "rise"),
        (of("map", "t"), "`table`"),
        (of("map", "t", table="none"), "'none' is not there"),
        (of("map", "t", keys=["a", 1], values=[1, 2]), "all texts or all numbers"),
        (of("map", "t", keys=["a"], values=[1, 2]), "1 keys for 2 values"),
        (of("onehot", "t", categories=["a", "a"]), "twice"),
        (of("onehot", "t", categories=["a", "b"], columns=[0, 2]), "left out"),
        (of("hash", "t", buckets=1), "buckets"),
        (of("ip_in", "ip", networks=["10.0.0.1/8"]), "host bits"),
        (of("hash", "x", buckets=5), "of a text"),
        (of("lower", "t"), "vector holds numbers"),
        (of("local", "at", timezone="Mars/Olympus"), "time zone"),
        (of("on_dates", "at", dates=["soon"]), "isoformat"),
        (of("sum"), "two or more"),
        (of("distance"), "four inputs"),
        (steps("t", {"kind": "onehot", "categories": ["a"]}, {"kind": "clip", "low": 0}), "must come last"),
        (steps("x", {"kind": "clip", "low": 0}, {"kind": "ratio"}), "only be a first step"),
        ({"name": "f", "field": "later", "kind": "numeric"}, "stands above"),
        ({**of("onehot", "t", categories=["a", "b"]), "names": ["one"]}, "names for other columns"),
        ({**of("numeric"), "steps": [{"kind": "numeric"}]}, "kind"),
    ],
)
def test_a_feature_that_cannot_be_is_refused_with_its_reason(feature: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        spec_of(feature)


HOSTILE = [
    "__import__('os').system('id')",
    "x\n    import os",
    '"""',
    "'); raise SystemExit #",
    "{x}",
    "c0",
    "tx",
    "\ud83d\ude00\\",
]


def test_nothing_of_a_spec_gets_into_the_source_that_is_compiled() -> None:
    fields: dict[str, Any] = {text: {"type": "number", "missing": "nan"} for text in HOSTILE}
    fields["t"] = {"type": "text", "missing": "nan"}
    fields["c"] = {"type": "category", "categories": HOSTILE, "unknown": -1, "missing": "nan"}
    features = [
        *(
            {"name": f"n{text}", "field": text, "kind": "standardise", "mean": 1e30, "scale": 3}
            for text in HOSTILE
        ),
        {
            "name": "map",
            "field": "t",
            "kind": "map",
            "table": dict.fromkeys(HOSTILE, 1),
            "unknown": 0,
            "missing": 0,
        },
        {"name": "hot", "field": "t", "kind": "onehot", "categories": HOSTILE},
        {
            "name": "fits",
            "field": "t",
            "kind": "matches",
            "patterns": [*HOSTILE, "(a+)+$", "*a*a*a*a*a*a*a*b"],
        },
        {"name": "code", "field": "c", "kind": "category"},
    ]
    spec = load_spec(
        json.dumps({"name": HOSTILE[0], "version": 1, "fields": fields, "features": features}).encode()
    )
    source, _ = write_source(spec.plan, spec._reads)
    words = {
        token.string
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.NAME
    }
    ours = {
        "def",
        "compute",
        "tx",
        "get",
        "map",
        "type",
        "float",
        "str",
        "len",
        "if",
        "else",
        "not",
        "is",
        "or",
        "and",
        "in",
        "return",
    }
    assert {word for word in words if not re.fullmatch(r"[vc]\d+", word)} <= ours
    assert not {
        token.string
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.STRING
    }
    transaction = {**dict.fromkeys(HOSTILE, 4.0), "t": HOSTILE[0], "c": HOSTILE[1]}
    assert spec.vector(transaction)[-1] == 1
    # A pattern that is made to be slow, on a text that is made for it, is not.
    assert spec.vector({**transaction, "t": "a" * 1000})[-2] == 0


def test_a_spec_of_many_features_is_compiled_and_computes() -> None:
    fields = {f"f{number}": {"type": "number"} for number in range(5000)}
    features = [{"name": name, "kind": "numeric", "field": name} for name in fields]
    spec = spec_of(*({**one, "name": one["name"]} for one in features), fields=fields)
    transaction = {name: float(number) for number, name in enumerate(fields)}
    assert spec.vector(transaction).tolist() == list(range(5000))


def test_golden_transactions_are_computed_again_and_must_give_the_same() -> None:
    spec = spec_of(EVERY["log1p"], EVERY["length"])
    found: list[dict[str, Any]] = [{"x": 5, "t": "abc"}, {"x": None}]
    golden = [{"transaction": one, "vector": spec.packed(one).hex()} for one in found]
    assert spec_of(EVERY["log1p"], EVERY["length"], golden=golden).check_golden() == 2
    wrong = spec_of(EVERY["log1p"], EVERY["length"], golden=[{**golden[0], "transaction": {"x": 6}}])
    with pytest.raises(GoldenMismatchError, match="golden transaction 0"):
        wrong.check_golden()
    refused = spec_of(EVERY["log1p"], EVERY["length"], golden=[{**golden[0], "transaction": {"x": -6}}])
    with pytest.raises(GoldenMismatchError, match="'x'"):
        refused.check_golden()


def test_a_wide_one_hot_encoding_is_like_a_narrow_one() -> None:
    words = [f"w{number}" for number in range(3000)]
    spec = spec_of(of("onehot", "t", categories=words, unknown=3000))
    assert spec.n_features == 3001
    found = spec.matrix([{"t": "w7"}, {"t": "?"}, {}])
    assert found.tobytes() == b"".join(spec.packed({"t": text}) for text in ("w7", "?", None))
    assert (found[0, 7], found[1, 3000], found.sum()) == (1, 1, 2)


def test_a_data_frame_is_taken_as_columns() -> None:
    import pandas as pd

    spec = spec_of(EVERY["numeric"], EVERY["length"], EVERY["flag"])
    frame = pd.DataFrame({"x": [1.0, np.nan], "t": ["abc", None], "on": [True, False], "more": [1, 2]})
    rows: list[dict[str, Any]] = [{"x": 1.0, "t": "abc", "on": True}, {"x": None, "t": None, "on": False}]
    assert spec.columns(frame).tobytes() == spec.matrix(rows).tobytes()


def test_columns_are_rows() -> None:
    spec = spec_of(EVERY["numeric"], EVERY["length"], EVERY["difference"])
    found = [{"x": float(i), "y": 2 * i, "t": "a" * (i % 40)} for i in range(10_000)]
    x = np.arange(10_000.0)
    columns = {"x": x, "y": (2 * x).astype(np.int64), "t": np.array([one["t"] for one in found])}
    assert spec.columns(columns).tobytes() == spec.matrix(found).tobytes()
    assert x[0] == 0  # and the caller's own array is left alone
    with pytest.raises(ValueError, match="lengths"):
        spec.columns({"x": x, "y": x[1:]})
    with pytest.raises(TransactionError, match="'t'"):
        spec.columns({**columns, "t": [5] * 10_000})
    assert spec.columns({}).shape == (0, 3)
