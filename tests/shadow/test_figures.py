"""Figures: against the same worked out by hand, with what is not known left out, at a bounded cost."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg.types.json import Jsonb
from scipy import stats
from sklearn.metrics import roc_auc_score

from governance.database import Connection, connect
from shadow.errors import ReportError
from shadow.figures import Figures, Options, figures
from shadow.pairs import Bounds
from shadow.reading import find_shadow, read
from shadow.summaries import read_summary, settle
from shadow.summary import fold, merge_all
from tests.shadow.reported import Made, make, put, put_labels, put_live, start_shadow

#: The names that policies may rely on.
CONTRACT = {
    *("observations", "coverage", "agreement_exact", "agreement_epsilon", "rank_correlation", "psi", "ks"),
    *("flip_rate", "flip_amount", "lag_s", "latency_ratio", "labels", "auc_champion", "auc_shadow"),
    *("auc_gain", "auc_gain_low", "auc_gain_high", "money_gain"),
    *("precision_at_budget_champion", "precision_at_budget_shadow"),
}


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        yield connection


@pytest.fixture
def made(connection: Connection, tmp_path: Path) -> Made:
    found = make(3_000, shadow=start_shadow(connection))
    put(connection, found.rows)
    put_live(connection, found.rows)
    put_labels(connection, found, tmp_path)
    connection.execute(
        "INSERT INTO shadow_progress (environment, partition, node_id, position, high, behind_s)"
        " VALUES ('qa', 0, 'n', 10, 10, 0), ('qa', 1, 'n', 5, 10, 2.5)"
    )
    return found


def test_all_figures_that_policies_may_name_are_there(connection: Connection, made: Made) -> None:
    found = figures(connection, made.rows[0].shadow)
    assert set(found.numbers) >= CONTRACT
    assert all(math.isfinite(value) for value in found.numbers.values())
    json.dumps(found.document(), allow_nan=False)


def test_figures_are_those_of_all_results(connection: Connection, made: Made) -> None:
    numbers = figures(connection, made.rows[0].shadow, Options(budget=0.05)).numbers
    a = np.array([row.champion_score for row in made.rows])
    b = np.array([row.shadow_score for row in made.rows])
    flips = np.array([row.champion_outcome != row.shadow_outcome for row in made.rows])
    amount = np.array([row.amount for row in made.rows])
    assert numbers["observations"] == 3_000
    assert numbers["coverage"] == 1
    assert numbers["lag_s"] == 2.5
    assert numbers["agreement_exact"] == np.mean(a == b)
    assert numbers["agreement_epsilon"] == np.mean(np.abs(a - b) <= 0.01)
    assert numbers["rank_correlation"] == pytest.approx(stats.spearmanr(a, b).statistic)
    assert numbers["ks"] == pytest.approx(stats.ks_2samp(a, b).statistic)
    assert numbers["mean_difference"] == pytest.approx((b - a).mean(), abs=1e-6)
    assert numbers["flip_rate"] == pytest.approx(flips.mean())
    assert numbers["flip_amount"] == pytest.approx(amount[flips].sum())
    assert numbers["latency_ratio"] == pytest.approx(44 / 23, rel=0.06)
    assert numbers["labels"] == 3_000
    assert numbers["positives"] == made.fraud.sum()
    assert numbers["auc_shadow"] == pytest.approx(roc_auc_score(made.fraud, b))
    assert numbers["auc_gain"] == pytest.approx(roc_auc_score(made.fraud, b) - roc_auc_score(made.fraud, a))
    alerted = np.argsort(-b)[:150]
    assert numbers["precision_at_budget_shadow"] == pytest.approx(made.fraud[alerted].mean())
    assert numbers["money_shadow"] == pytest.approx(amount[alerted][made.fraud[alerted]].sum())


def test_the_report_says_that_the_better_one_is_better(connection: Connection, made: Made) -> None:
    found = figures(connection, made.rows[0].shadow)
    assert found.parts["verdict"] == "better"
    assert "run.py shadow promote one" in found.parts["next"]
    assert ("channel", "online") in {(s["field"], s["value"]) for s in found.parts["slices"]["slices"]}


def test_without_results_all_is_unknown(connection: Connection) -> None:
    found = figures(connection, start_shadow(connection))
    assert found.numbers["observations"] == 0
    assert not {"coverage", "psi", "flip_rate", "auc_gain", "lag_s"} & set(found.numbers)
    assert found.parts["verdict"] == "nothing yet"
    json.dumps(found.document(), allow_nan=False)


def test_without_labels_it_says_how_they_come(connection: Connection) -> None:
    made = make(200, shadow=start_shadow(connection))
    put(connection, made.rows)
    found = figures(connection, made.rows[0].shadow)
    assert "auc_gain" not in found.numbers
    assert "coverage" not in found.numbers
    assert any("labels import" in text for text in found.parts["unknown"])
    assert found.parts["verdict"] == "not known yet"


def test_a_shadow_that_is_the_champion_is_identical(connection: Connection, tmp_path: Path) -> None:
    shadow = start_shadow(connection)
    made = make(300, shadow=shadow)
    rows = [
        replace(row, shadow_score=row.champion_score, shadow_outcome=row.champion_outcome)
        for row in made.rows
    ]
    put(connection, rows)
    put_labels(connection, Made(rows, made.fraud), tmp_path)
    found = figures(connection, shadow)
    assert found.parts["verdict"] == "identical"
    assert found.numbers["auc_gain"] == found.numbers["auc_gain_low"] == found.numbers["psi_high"] == 0


def test_missing_results_are_seen_and_come_before_any_conclusion(
    connection: Connection, tmp_path: Path
) -> None:
    made = make(2_000, shadow=start_shadow(connection))
    put_live(connection, made.rows)
    put(connection, [row for i, row in enumerate(made.rows) if i < 800 or i > 1_200])
    put_labels(connection, made, tmp_path)
    found = figures(connection, made.rows[0].shadow)
    assert found.numbers["coverage"] == pytest.approx(0.8, abs=0.05)
    assert "missing" in found.parts["next"]


def test_what_a_lagging_partition_has_not_come_to_is_lag_and_not_missing(connection: Connection) -> None:
    made = make(600, shadow=start_shadow(connection))
    put_live(connection, made.rows)
    # Every other transaction of the last 200 seconds is in a partition that is as far behind.
    put(connection, [row for i, row in enumerate(made.rows) if i < 400 or i % 2])
    connection.execute(
        "INSERT INTO shadow_progress (environment, partition, node_id, position, high, behind_s)"
        " VALUES ('qa', 0, 'n', 10, 10, 0), ('qa', 1, 'n', 5, 10, 280)"
    )
    numbers = figures(connection, made.rows[0].shadow).numbers
    assert numbers["coverage"] == 1
    assert numbers["lag_s"] == 280


def test_a_sampling_shadow_owes_results_of_its_sample_alone(connection: Connection) -> None:
    from shadow.result import rank_of, sampled

    made = make(1_000, shadow=start_shadow(connection, sample=0.25))
    put_live(connection, made.rows)
    put(connection, [row for row in made.rows if sampled(rank_of(row.transaction_id), 0.25)])
    assert figures(connection, made.rows[0].shadow).numbers["coverage"] == 1


def test_rare_positives_are_found_from_the_side_of_the_labels(connection: Connection, tmp_path: Path) -> None:
    made = make(6_000, shadow=start_shadow(connection), rate=0.02)
    put(connection, made.rows)
    put_labels(connection, made, tmp_path)
    everything = figures(connection, made.rows[0].shadow, Options(budget=0.02)).numbers
    bounds = Bounds(sample=500, labelled=1_000, walk=1_000)
    part = figures(connection, made.rows[0].shadow, Options(budget=0.02, bounds=bounds))
    assert part.parts["labelled"]["positives_read"] == made.fraud.sum()
    assert part.numbers["positives"] == made.fraud.sum()
    assert part.numbers["labels"] == pytest.approx(6_000, rel=0.02)
    assert part.numbers["auc_gain"] == pytest.approx(everything["auc_gain"], abs=0.02)
    assert part.numbers["precision_at_budget_shadow"] == pytest.approx(
        everything["precision_at_budget_shadow"], abs=0.1
    )


def test_a_shadow_that_is_not_there_is_named_with_those_that_are(connection: Connection) -> None:
    first = start_shadow(connection, "one")
    assert find_shadow(connection, "qa", "one") == first
    with pytest.raises(ReportError, match=r"no shadow 'two' in qa \(there are: one\)"):
        find_shadow(connection, "qa", "two")
    with pytest.raises(ReportError, match="number 99"):
        figures(connection, 99)


def test_settled_hours_come_to_the_same_and_late_results_are_added(connection: Connection) -> None:
    shadow = start_shadow(connection)
    made = make(40, shadow=shadow, first=datetime.now(UTC) - timedelta(days=30))
    spread = [replace(row, at=row.at + timedelta(hours=20 * i)) for i, row in enumerate(made.rows)]
    put(connection, spread[1:])
    before = read_summary(connection, shadow)
    assert settle(connection, shadow) > 20
    assert settle(connection, shadow) == 0
    assert read_summary(connection, shadow) == before
    put(connection, spread[:2])
    assert settle(connection, shadow) == 1
    assert read_summary(connection, shadow) == fold(spread)


def test_a_report_is_of_one_moment_while_results_come(connection: Connection, dsn: str) -> None:
    shadow = start_shadow(connection)
    made = make(1_500, shadow=shadow)

    def store() -> None:
        with connect(dsn) as other:
            for start in range(0, 1_500, 50):
                put(other, made.rows[start : start + 50])

    seen = []
    with ThreadPoolExecutor(1) as threads:
        storing = threads.submit(store)
        while not storing.done():
            found = read(connection, shadow, Bounds())
            assert len(found.pairs.ids) == found.summary["n"]
            seen.append(found.summary["n"])
        storing.result()
    assert seen == sorted(seen)
    assert len(set(seen)) > 2


def test_those_who_look_may_report_and_nodes_may_settle(connection: Connection, made: Made) -> None:
    for role in ("auditor", "approver", "promoter"):
        connection.execute(f"SET ROLE scorewire_{role}".encode())
        assert figures(connection, made.rows[0].shadow).numbers["coverage"] == 1
    connection.execute("SET ROLE scorewire_node")
    connection.execute("UPDATE shadow_summary SET hour = hour - interval '9 hours'")
    assert settle(connection, made.rows[0].shadow) > 0
    connection.execute("RESET ROLE")


def test_results_that_come_while_hours_are_settled_are_counted_once(connection: Connection, dsn: str) -> None:
    shadow = start_shadow(connection)
    rows = make(600, shadow=shadow, first=datetime.now(UTC) - timedelta(days=30)).rows
    spread = [replace(row, at=row.at + timedelta(hours=i % 7)) for i, row in enumerate(rows)]

    def store(start: int) -> None:
        with connect(dsn) as other:
            for i in range(start, 600, 40):
                put(other, spread[i : i + 20])

    def settle_often(done: threading.Event) -> int:
        merged = 0
        with connect(dsn) as other:
            while not done.is_set():
                merged += settle(other, shadow)
        return merged

    done = threading.Event()
    with ThreadPoolExecutor(4) as threads:
        settling = [threads.submit(settle_often, done) for _ in range(2)]
        storing = [threads.submit(store, start) for start in (0, 20)]
        try:
            for one in storing:
                one.result()
        finally:
            done.set()
        assert sum(one.result() for one in settling) > 7
    settle(connection, shadow)
    assert read_summary(connection, shadow) == fold(spread)


class Counting:
    """A connection that counts what is asked of it, what comes back, and what the server looks at for it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.queries = self.bytes = self.rows_looked_at = 0

    def execute(self, query: Any, terms: Any = None) -> Any:
        self.queries += 1
        if str(query).lstrip().startswith(("SELECT", "WITH")):
            plan = self._connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query, terms).fetchone()
            assert plan is not None
            self.rows_looked_at += _rows(plan["QUERY PLAN"][0]["Plan"])
            rows = self._connection.execute(query, terms).fetchall()
            self.bytes += len(json.dumps(rows, default=str))
        return self._connection.execute(query, terms)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _rows(plan: dict[str, Any]) -> int:
    removed = plan.get("Rows Removed by Filter", 0)
    here = int((plan["Actual Rows"] + removed) * plan["Actual Loops"])
    return here + sum(_rows(one) for one in plan.get("Plans", ()))


def _many(connection: Connection, shadow: int, n: int) -> None:
    """Put so many results, labels and live transactions, as if they had come over 200 hours."""
    terms = {"shadow": shadow, "n": n}
    connection.execute(
        "INSERT INTO shadow_result SELECT %(shadow)s, 't' || i,"
        " ('x' || left(md5(i::text), 16))::bit(64)::bigint,"
        " now() - make_interval(secs => 720000.0 * i / %(n)s), 1, random(), random(), '{}', '{}', 'approve',"
        " CASE WHEN i %% 9 = 0 THEN 'decline' ELSE 'approve' END,"
        " '[]', '[]', i %% 100, '{}', '{}', '{}', '{}' FROM generate_series(1, %(n)s) i",
        terms,
    )
    connection.execute(
        "INSERT INTO label SELECT 'qa', 't' || i, i %% 50 = 0, '', now(), now(), 'ann'"
        " FROM generate_series(1, %(n)s) i",
        terms,
    )
    connection.execute("SELECT make_transaction_days('qa', current_date - 10, current_date)")
    connection.execute(
        "INSERT INTO transaction SELECT 'qa', transaction_id, at, 'n', 1, 1, false, NULL, '{}', '{}', '{}',"
        " '{}', '{}', json_build_object('padding', repeat('x', 300)), '{}', '{}' FROM shadow_result"
        " WHERE shadow = %(shadow)s AND amount < 20",
        terms,
    )
    parts = [fold(make(n // 200, shadow=shadow, seed=seed).rows) for seed in range(5)]
    for hour in range(200):
        moment = int((datetime.now(UTC) - timedelta(hours=hour)).timestamp()) * 1_000_000
        document = parts[hour % 5] | {"first": moment, "last": moment}
        connection.execute(
            "INSERT INTO shadow_summary VALUES"
            " (%s, date_trunc('hour', now()) - make_interval(hours => %s), %s)",
            (shadow, hour, Jsonb(document)),
        )
    settle(connection, shadow)
    connection.execute("ANALYZE shadow_result, label")


def test_a_report_costs_the_same_after_200_times_as_many_results(connection: Connection) -> None:
    bounds = Bounds(sample=500, labelled=300, walk=800, live=500)
    costs = {}
    for name, n in (("few", 1_000), ("many", 200_000)):
        connection.execute("TRUNCATE shadow_result, label, transaction")
        shadow = start_shadow(connection, name, started_at=datetime.now(UTC) - timedelta(days=9))
        _many(connection, shadow, n)
        counting = Counting(connection)
        found: Figures = figures(counting, shadow, Options(bounds=bounds))  # type: ignore[arg-type]
        assert found.numbers["observations"] > 0
        assert "auc_gain" in found.numbers
        assert "coverage" in found.numbers
        costs[name] = counting
    assert costs["many"].queries == costs["few"].queries
    # More of the buckets are filled, and there are 300 positives to read where there were 20.
    assert costs["many"].bytes < 2.5 * costs["few"].bytes
    assert costs["many"].rows_looked_at < 2.5 * costs["few"].rows_looked_at


def test_merging_all_is_what_reading_does(connection: Connection) -> None:
    shadow = start_shadow(connection)
    made = make(100, shadow=shadow)
    put(connection, made.rows)
    assert read_summary(connection, shadow) == merge_all([fold(made.rows)])
