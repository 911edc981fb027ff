"""Results: their columns, their ranks, and what JSON does not hold."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shadow.result import COLUMNS, ResultRow, rank_of, row_of, sampled, to_columns
from tests.shadow.rows import result

NUMBERS = st.floats() | st.integers(-(2**40), 2**40).map(float)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
SCALARS = NAMES | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()


def through_json(row: ResultRow) -> ResultRow:
    record: dict[str, Any] = dict(zip(COLUMNS, to_columns(row), strict=True))
    for name, value in record.items():
        if isinstance(value, str) and name not in ("transaction_id", "champion_outcome", "shadow_outcome"):
            record[name] = json.loads(value, parse_constant=refuse)
    return row_of(record)


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@given(
    scores=st.dictionaries(NAMES, NUMBERS, max_size=3),
    drift=st.dictionaries(NAMES, st.tuples(NUMBERS, NUMBERS), max_size=3),
    fields=st.dictionaries(NAMES, SCALARS, max_size=3),
    reasons=st.lists(NAMES, max_size=3).map(tuple),
)
def test_a_row_survives_its_columns(scores: Any, drift: Any, fields: Any, reasons: Any) -> None:
    row = result(1, shadow_scores=scores, drift=drift, fields=fields, shadow_reasons=reasons)
    assert repr(through_json(row)) == repr(row)  # as text, since NaN is not equal to itself


def test_a_nul_in_a_field_is_replaced_since_postgres_holds_none() -> None:
    found = through_json(result(1, fields={"a\0": "b\0c", "d": "\\u0000"}))
    assert found.fields == {"a\ufffd": "b\ufffdc", "d": "\\u0000"}


def test_ranks_are_uniform_and_a_sample_holds_its_share() -> None:
    ranks = [rank_of(f"tx-{number}") for number in range(20_000)]
    assert all(sampled(rank, 1.0) for rank in ranks)
    share = sum(sampled(rank, 0.1) for rank in ranks) / len(ranks)
    assert math.isclose(share, 0.1, abs_tol=0.01)
    # What a small sample holds, a larger one does as well: two shadows are compared on the same transactions.
    assert all(sampled(rank, 0.2) for rank in ranks if sampled(rank, 0.1))
