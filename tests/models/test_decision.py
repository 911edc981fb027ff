"""Decision rules: what they say, what they refuse, and that no transaction trips them up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decision import Decision, DecisionFile, DecisionRules, _fields_of, load_decision
from models.errors import DecisionError

RULES: list[dict[str, Any]] = [
    {"when": "tx.customer in ['c1', 'c2']", "decide": "approve", "reason": "known"},
    {"when": "score >= 0.95", "decide": "decline", "reason": "R1"},
    {"when": "scores['1'] >= 0.6 && tx.amount > 1000.0", "decide": "review", "reason": "R2"},
    {"when": "has(tx.country) && tx.country == 'XX'", "decide": "review", "reason": "R3"},
]


def rules(*found: dict[str, Any], **more: Any) -> DecisionRules:
    return DecisionRules(DecisionFile.model_validate({"name": "d", "version": 1, "rules": found, **more}))


def decide(score: float, /, **transaction: Any) -> tuple[str, tuple[str, ...]]:
    found = rules(*RULES).decide({"0": 1 - score, "1": score}, transaction)
    return found.outcome, found.reasons


def test_the_first_rule_that_applies_decides_and_all_that_agree_are_told() -> None:
    assert decide(0.1, customer="x", amount=5.0) == ("approve", ())
    assert decide(0.97, customer="x", amount=5.0) == ("decline", ("R1",))
    assert decide(0.97, customer="c2", amount=5.0) == ("approve", ("known",))
    assert decide(0.7, customer="x", amount=2000) == ("review", ("R2",))
    assert decide(0.7, customer="x", amount=2000, country="XX") == ("review", ("R2", "R3"))
    assert decide(0.7, customer="x", amount=1000, country="DE") == ("approve", ())


def test_a_rule_that_cannot_be_evaluated_asks_for_a_review_and_is_counted() -> None:
    found = rules(*RULES).decide({"1": 0.7}, {"amount": "much", "customer": "x"})
    assert found == Decision("review", ("R2.error",), 1)
    found = rules(*RULES).decide({"1": 0.99}, {"customer": "x"})
    # Declined already: what cannot be evaluated after it makes it no milder.
    assert (found.outcome, found.reasons) == ("decline", ("R1",))
    strict = rules({"when": "tx.a", "decide": "review", "reason": "R"}, on_error="decline")
    for wrong in (1, "text", None, [True], {"a": True}):
        assert strict.decide({"1": 0.0}, {"a": wrong}).outcome == "decline"


def test_what_lies_on_a_threshold_is_decided_exactly() -> None:
    found = rules({"when": "score > 0.30000000000000004", "decide": "review", "reason": "R"})
    assert found.decide({"1": 0.1 + 0.2}, {}).outcome == "approve"
    assert found.decide({"1": 0.30000000000000009}, {}).outcome == "review"


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("score >", "Syntax error"),
        ("amount > 3", "'amount' is not there"),
        ("open('x') == ''", "function 'open'"),
        ("[1, 2].exists(x, x > score)", "loops are refused|'x' is not there|not allowed"),
        ("[1, 2].map(x, x * 2) == []", "loops are refused"),
        ("tx.all(k, true)", "loops are refused|not allowed"),
        ("(" * 60 + "true" + ")" * 60, "nests deeper"),
        ("!" * 900 + "true", "nests deeper"),
        ("-" * 900 + "1 < 0", "nests deeper"),
        ("true" * 400, "1000"),
        ("", "1 character"),
    ],
)
def test_a_rule_that_is_none_is_refused_by_its_code(when: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    text = f'name = "d"\nversion = 1\n[[rules]]\nwhen = "{when}"\ndecide = "review"\nreason = "R7"\n'
    file.write_text(text)
    with pytest.raises(DecisionError, match=why):
        load_decision(file)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"decide": "maybe"}, "rules.0.decide"),
        ({"reason": "a b"}, "rules.0.reason"),
        ({"weight": 3}, "rules.0.weight"),
    ],
)
def test_a_file_that_is_not_valid_names_the_key(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    rule = {"when": "true", "decide": "review", "reason": "R", **change}
    body = "\n".join(f"{key} = {value!r}" for key, value in rule.items())
    (tmp_path / "rules.toml").write_text(f'name = "d"\nversion = 1\n[[rules]]\n{body}\n')
    with pytest.raises(DecisionError, match=why):
        load_decision(tmp_path / "rules.toml")
    with pytest.raises(DecisionError, match="cannot be read"):
        load_decision(tmp_path / "none.toml")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ODD = rules(
    *RULES,
    {"when": "tx.a + tx.b > 1.0 || tx.a / tx.b == tx.b % 2", "decide": "review", "reason": "O1"},
    {"when": "tx.a.matches(tx.b) || size(tx.a) > 3", "decide": "review", "reason": "O2"},
    {"when": "int(tx.a) * int(tx.b) > 7 && timestamp(tx.a) == tx.b", "decide": "review", "reason": "O3"},
    {"when": "-tx.a < tx.b && tx.a[tx.b] == duration(tx.a)", "decide": "review", "reason": "O4"},
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "amount", "customer", "country"]) | st.text(), values),
    st.floats(),
)
def test_no_transaction_trips_the_rules_up(transaction: dict[str, Any], score: float) -> None:
    found = ODD.decide({"1": score}, transaction)
    assert found.outcome in {"approve", "review", "decline"}
    assert found == ODD.decide({"1": score}, transaction)


@pytest.mark.parametrize(
    ("when", "fields"),
    [
        ("tx.amount > 3.0 && tx . kind == 'x'", {"amount", "kind"}),
        ("tx['a b'] == 1 || tx[ \"c\" ] == 2", {"a b", "c"}),
        ("has(tx.a) ? tx.a.startsWith('b') : size(tx.c) > 1", {"a", "c"}),
        ("score > 0.5", set()),
        ("'a' in tx", None),
        ("size(tx) > 3", None),
        ("tx[tx.a] == 1", None),
        ("tx == tx", None),
    ],
)
def test_rules_are_given_the_fields_that_they_name_or_all(when: str, fields: set[str] | None) -> None:
    assert _fields_of(when) == fields
    assert rules({"when": when, "decide": "review", "reason": "R"})._fields == fields


def test_a_rule_that_looks_at_any_field_is_given_them_all() -> None:
    found = rules(
        {"when": "tx.amount > 5.0", "decide": "review", "reason": "A"},
        {"when": "'secret' in tx", "decide": "decline", "reason": "B"},
    )
    assert found.decide({"1": 0.0}, {"amount": 1.0, "secret": 1}).outcome == "decline"
    assert found.decide({"1": 0.0}, {"amount": 1.0}).outcome == "approve"
