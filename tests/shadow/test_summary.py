"""Summaries: merged in any order and grouping they are what all rows together come to, and stay small."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.database import connect
from shadow.errors import SummaryError
from shadow.mergeable import Bag, Newest, Sum, Top
from shadow.result import ResultRow
from shadow.summary import fold, merge, merge_all

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
names = st.text(max_size=3) | st.sampled_from(["amount", "channel", "x" * 70 + "a", "x" * 70 + "b"])
numbers = st.floats() | st.sampled_from([0.0, -0.0, 1.0, 0.5, 0.02])
scalars = st.none() | st.booleans() | numbers | st.text(max_size=4) | st.integers(-(2**63), 2**64)
outcomes = st.none() | st.sampled_from(["approve", "review", "decline"])
codes = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(tuple)
times = st.dictionaries(st.sampled_from(["features", "model"]), st.integers(0, 10**9), max_size=2)


@st.composite
def rows(draw: st.DrawFn) -> list[ResultRow]:
    found: list[ResultRow] = draw(
        st.lists(
            st.builds(
                ResultRow,
                shadow=st.just(1),
                transaction_id=st.text(max_size=4),
                at=st.timedeltas(timedelta(days=-3), timedelta(days=3)).map(lambda d: NOON + d),
                release=st.integers(1, 40),
                champion_score=numbers,
                shadow_score=numbers,
                champion_scores=st.dictionaries(names, numbers, max_size=2),
                shadow_scores=st.dictionaries(names, numbers, max_size=2),
                champion_outcome=outcomes,
                shadow_outcome=outcomes,
                champion_reasons=codes,
                shadow_reasons=codes,
                amount=st.none() | numbers,
                fields=st.dictionaries(names, scalars, max_size=3),
                champion_us=times,
                shadow_us=times,
                drift=st.dictionaries(names, st.tuples(numbers, numbers), max_size=2),
            ),
            max_size=8,
        )
    )
    # An id is a result's own: the store keeps one a transaction.
    return [
        dataclasses.replace(row, transaction_id=f"{i}{row.transaction_id}") for i, row in enumerate(found)
    ]


def a_row(number: int, **changes: Any) -> ResultRow:
    facts: dict[str, Any] = {
        "shadow": 1,
        "transaction_id": f"t{number}",
        "at": NOON + timedelta(seconds=number),
        "release": 3,
        "champion_score": 0.25,
        "shadow_score": 0.75,
        "champion_scores": {"p": 0.25},
        "shadow_scores": {"p": 0.75},
        "champion_outcome": "approve",
        "shadow_outcome": "decline",
        "champion_reasons": (),
        "shadow_reasons": ("high",),
        "amount": 12.5,
        "fields": {"channel": "online", "amount": 12.5},
        "champion_us": {"model": 20},
        "shadow_us": {"model": 30},
        "drift": {},
    }
    return ResultRow(**{**facts, **changes})


@settings(max_examples=60, deadline=None)
@given(st.lists(rows(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_parts_merged_in_any_order_are_what_all_rows_come_to(
    parts: list[list[ResultRow]], random: Any
) -> None:
    parts = [
        [dataclasses.replace(row, transaction_id=f"{i}-{row.transaction_id}") for row in part]
        for i, part in enumerate(parts)
    ]
    together = fold([row for part in parts for row in part])
    documents = [json.loads(json.dumps(fold(part), allow_nan=False)) for part in parts]
    random.shuffle(documents)
    assert merge_all([{}, *documents]) == together
    # From the right, which is another grouping.
    assert reduce(lambda done, one: merge(one, done), reversed(documents), fold([])) == together


@settings(max_examples=60, deadline=None)
@given(*[st.dictionaries(st.text(max_size=2), st.integers(0, 9)) for _ in range(3)])
def test_a_bag_keeps_the_same_names_whole_however_it_is_merged(
    a: dict[str, int], b: dict[str, int], c: dict[str, int]
) -> None:
    for kind in (Bag(3, Sum()), Newest(3, Sum())):
        left = kind.merge(kind.merge(a, b), c)
        assert left == kind.merge(a, kind.merge(b, c)) == kind.merge(kind.merge(c, a), b)
        assert len(left) <= 3
        for name, total in left.items():
            assert total == sum(part.get(name, 0) for part in (a, b, c))


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=3, max_size=3))
def test_the_top_is_the_same_however_it_is_merged(weights: list[list[int]]) -> None:
    top = Top(4)
    parts = [[{"id": f"{i}-{j}", "weight": w} for j, w in enumerate(part)] for i, part in enumerate(weights)]
    a, b, c = parts
    assert top.merge(top.merge(a, b), c) == top.merge(c, top.merge(b, a)) == top.kept([*b, *a, *c])


def test_a_summary_counts_what_it_says() -> None:
    same = a_row(1, shadow_score=0.25, shadow_outcome="approve", shadow_reasons=())
    near = a_row(2, shadow_score=0.2505, shadow_outcome="approve", amount=None)
    found = fold([a_row(0), same, near, a_row(3, champion_score=math.nan, champion_outcome=None)])
    assert found["n"] == 4
    assert found["unknown"] == 1
    assert found["exact"] == 1
    assert found["within"] == {"1e-06": 1, "0.001": 2, "0.01": 2, "0.1": 2}
    assert found["outcomes"] == {"approve>decline": [1, 1, 12_500], "approve>approve": [2, 1, 12_500]}
    assert found["decided"] == 3
    assert found["reasons"] == {"high": [0, 3]}
    assert found["all"] == [4, 1, 3, 500_500, 250_000, 12_500]
    assert found["slices"]["channel"]["values"] == {"online": found["all"]}
    assert found["slices"]["amount"]["values"] == {"10 to 20": found["all"]}
    assert [entry["id"] for entry in found["different"]] == ["t0", "t2"]
    assert [entry["id"] for entry in found["dearest"]] == ["t0"]
    assert found["us"]["shadow"]["model"]["sum"] == 120
    assert found["hours"] == {"2026-07-01T12": found["all"]}
    assert found["releases"] == {"0000000003": 4}


def test_a_summary_has_a_bound_whatever_goes_in() -> None:
    def hostile(start: int, n: int) -> list[ResultRow]:
        return [
            a_row(
                i,
                at=NOON + timedelta(hours=i),
                champion_score=10.0 ** (i % 600 - 300),
                fields={f"field {i * 7 + j}": f"{i} {j}" * 40 for j in range(7)} | {"id": f"{i}"},
                champion_reasons=tuple(f"{i}-{j}" for j in range(10)),
                champion_scores={f"s{i}": 1.0},
                shadow_us={f"stage {i}": i},
                drift={f"feature {i}": (float(i), -float(i))},
                transaction_id=f"{i}" * 500,
            )
            for i in range(start, start + n)
        ]

    first = fold(hostile(0, 2_000))
    more = merge_all(fold(hostile(start, 500)) for start in range(0, 4_000, 500))
    assert len(json.dumps(more)) < 300_000
    assert len(json.dumps(more)) < 1.2 * len(json.dumps(first))


def test_a_summary_goes_through_the_database_unchanged(dsn: str) -> None:
    from psycopg.types.json import Jsonb

    odd = a_row(5, fields={"\x00\ud800": "\x00"}, transaction_id="\x00", amount=1e300, shadow_score=1e300)
    document = fold([odd, a_row(6), a_row(7, champion_reasons=("\udfff",))])
    with connect(dsn) as connection:
        row = connection.execute("SELECT %s::jsonb AS found", (Jsonb(document),)).fetchone()
    assert row is not None

    def with_more(document: dict[str, Any]) -> Any:
        # jsonb writes 1e300 with all its digits, and so it comes back as an integer: the same number.
        return json.loads(json.dumps(merge(document, fold([a_row(8)]))), parse_int=float)

    assert with_more(row["found"]) == with_more(document)


def test_a_summary_of_another_version_is_not_merged() -> None:
    with pytest.raises(SummaryError, match="version 2"):
        merge(fold([a_row(1)]), {"v": 2})
