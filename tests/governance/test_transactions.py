from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.database import Connection
from governance.errors import RetentionError
from governance.exact_json import from_json, to_json
from governance.promotion import promote
from governance.transactions import (
    Transaction,
    days_of,
    drop_days,
    find,
    keep,
    kept_days,
    make_days,
    store,
    too_early,
    too_late,
)

NOW = datetime.now(UTC)
ONE = Transaction(
    environment="qa",
    id="tx-1",
    at=NOW,
    node="preprocessor-0@host/1",
    seq=7,
    release=1,
    outcome="review",
    reasons=("a", "b"),
    scores={"z": 0.1, "a": float("nan"), "m": -0.0},
    features={"features": np.array([1.5, np.nan], "<f4").tobytes()},
    fields={"amount": 12.0, "big": 2**64 - 1, "raw": b"\0\xff", "zero": "a\0b", "deep": {"x": [1, None]}},
    nodes={"scorer": "s"},
    us={"total": 5},
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.binary() | st.sampled_from(["$float", "$map"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@pytest.fixture
def qa(connection: Connection, stages: dict[str, str]) -> Connection:
    """An environment with a release, and a day to store in."""
    promote(connection, environment="qa", stages=stages, by="ann")
    make_days(connection, "qa", NOW.date(), NOW.date() + timedelta(days=1))
    return connection


@given(VALUES)
def test_json_gives_back_what_it_was_given_to_the_bit(value: Any) -> None:
    written = to_json(value)
    assert repr(from_json(json.loads(written))) == repr(value)


def test_a_transaction_comes_back_as_it_was_with_the_order_of_its_scores(qa: Connection) -> None:
    assert store(qa, [ONE]) == 1
    (found,) = find(qa, "qa", "tx-1")
    assert repr(found) == repr(ONE)
    assert list(found.scores) == ["z", "a", "m"]


def test_what_comes_twice_is_stored_once_and_new_ones_beside_it_all_the_same(qa: Connection) -> None:
    store(qa, [ONE])
    again = replace(ONE, at=NOW + timedelta(microseconds=1), seq=8)
    assert store(qa, [ONE, again, replace(ONE, id="tx-2")]) == 2
    assert store(qa, [again, ONE]) == 0
    assert [one.seq for one in find(qa, "qa", "tx-1")] == [7, 8]


def test_what_was_stored_is_not_changed(qa: Connection) -> None:
    store(qa, [ONE])
    with pytest.raises(psycopg.errors.RaiseException, match="immutable"):
        qa.execute("UPDATE transaction SET outcome = 'approve'")


def test_days_are_made_as_they_are_needed_and_go_when_their_time_is_over(qa: Connection) -> None:
    today = NOW.date()
    assert make_days(qa, "qa", today - timedelta(days=3), today) == 3
    assert make_days(qa, "qa", today - timedelta(days=3), today) == 0
    old = replace(ONE, id="old", at=NOW - timedelta(days=3))
    store(qa, [old, ONE])
    assert drop_days(qa, "qa") == []
    keep(qa, "qa", 2, by="ann", reason="disks are full")
    assert kept_days(qa, "qa") == 2
    assert [name[-8:] for name in drop_days(qa, "qa")] == [f"{today - timedelta(days=3):%Y%m%d}"]
    assert find(qa, "qa", "old") == []
    assert find(qa, "qa", "tx-1")
    # A day that is over, or far ahead, is not made; what belongs there is told apart before.
    assert make_days(qa, "qa", today - timedelta(days=9), today - timedelta(days=5)) == 0
    assert make_days(qa, "qa", today + timedelta(days=8), today + timedelta(days=9)) == 0
    assert too_early(old.at, 2)
    assert not too_early(ONE.at, 2)
    assert too_late(NOW + timedelta(days=9))
    assert not too_late(NOW)
    with pytest.raises(psycopg.errors.CheckViolation):
        store(qa, [old])


def test_environments_keep_what_they_answered_for_times_of_their_own(qa: Connection, stages: Any) -> None:
    promote(qa, environment="production", stages=stages, by="ann")
    at = NOW - timedelta(days=10)
    for name in ("qa", "production"):
        make_days(qa, name, *days_of([replace(ONE, at=at)]))
        store(qa, [replace(ONE, environment=name, at=at)])
    keep(qa, "qa", 5, by="ann", reason="tests")
    assert len(drop_days(qa, "qa")) == 1
    assert drop_days(qa, "production") == []
    assert find(qa, "production", "tx-1")
    assert not find(qa, "qa", "tx-1")


def test_a_day_that_somebody_reads_is_dropped_later(qa: Connection, dsn: str) -> None:
    make_days(qa, "qa", NOW.date() - timedelta(days=4), NOW.date())
    keep(qa, "qa", 2, by="ann", reason="tests")
    with psycopg.connect(dsn) as reader:
        reader.execute("SELECT * FROM transaction")
        assert drop_days(qa, "qa") == []
    assert len(drop_days(qa, "qa")) == 2


def test_a_node_stores_and_makes_days_and_may_do_nothing_else(qa: Connection) -> None:
    qa.execute("SET ROLE scorewire_node")
    make_days(qa, "qa", NOW.date(), NOW.date() + timedelta(days=2))
    assert store(qa, [ONE]) == 1
    assert store(qa, [ONE]) == 0
    drop_days(qa, "qa")
    for statement in (
        "DELETE FROM transaction",
        "TRUNCATE transaction",
        "DROP TABLE transaction",
        "INSERT INTO retention VALUES ('qa', 1)",
        "INSERT INTO label VALUES ('qa', 'x', true, '', now(), now(), 'n')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            qa.execute(statement.encode())


def test_a_period_that_cannot_be_kept_is_refused(qa: Connection) -> None:
    for days, reason, environment in ((0, "r", "qa"), (5, " ", "qa"), (5, "r", "nowhere")):
        with pytest.raises(RetentionError):
            keep(qa, environment, days, by="ann", reason=reason)
    assert kept_days(qa, "qa") == 400
