"""Shadow reports: what do they cost after few results, and after many? And what does it cost to summarise?

    python -m benchmarks.shadow_report [--json] [--results N ...]

Results, labels and live transactions are put into a real PostgreSQL, spread over 200 hours; the report is
then made some times, and its parts are timed: reading, statistics, and the page with its pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from psycopg.types.json import Jsonb
from rich.console import Console
from rich.table import Table

from examples.card_payments import simulate
from governance.database import Connection, connect, migrate
from governance.embedded import EmbeddedPostgres
from shadow.figures import Options, work_out
from shadow.reading import read
from shadow.report_html import page
from shadow.result import ResultRow
from shadow.summaries import settle
from shadow.summary import fold, merge_all

_ROUNDS = 3
_HOURS = 200
_ENVIRONMENT = "benchmark"
_FILL = """
INSERT INTO shadow_result SELECT %(shadow)s, %(n)s || '-' || i,
    ('x' || left(md5(i::text), 16))::bit(64)::bigint,
    now() - make_interval(secs => %(seconds)s::float8 * i / %(n)s), 1, random(), random(), '{}', '{}',
    'approve', CASE WHEN i %% 50 = 0 THEN 'review' ELSE 'approve' END, '[]', '[]',
    i %% 100, '{}', '{}', '{}', '{}' FROM generate_series(1, %(n)s) i;
INSERT INTO label SELECT %(environment)s, %(n)s || '-' || i, i %% 200 = 0, '', now(), now(), 'benchmark'
    FROM generate_series(1, %(n)s) i;
INSERT INTO transaction SELECT %(environment)s, transaction_id, at, 'n', 1, 1, false, NULL, '{}', '{}', '{}',
    '{}', '{}', json_build_object('padding', repeat('x', 300)), '{}', '{}' FROM shadow_result
    WHERE shadow = %(shadow)s
"""


def rows(n: int) -> list[ResultRow]:
    """Return results of simulated card payments, with random scores."""
    random = np.random.default_rng(0)
    payments, _ = simulate(n=n, seed=1)
    scores = random.random((n, 2)) ** 3
    return [
        ResultRow(
            shadow=1,
            transaction_id=payment["id"],
            at=datetime.fromisoformat(payment["timestamp"]),
            release=1,
            champion_score=a,
            shadow_score=b,
            champion_scores={"fraud": a},
            shadow_scores={"fraud": b},
            champion_outcome="approve",
            shadow_outcome="review" if b > 0.9 else "approve",
            champion_reasons=(),
            shadow_reasons=(),
            amount=payment["amount"],
            fields=payment,
            champion_us={"features": 30, "model": 20},
            shadow_us={"model": 25},
            drift={},
        )
        for payment, (a, b) in zip(payments, scores.tolist(), strict=True)
    ]


def fill(connection: Connection, n: int, documents: Sequence[dict[str, Any]]) -> int:
    """Put a shadow with so many results; return its number."""
    row = connection.execute(
        "INSERT INTO shadow (environment, name, overrides, started_by, state_by)"
        " VALUES (%s, %s, '{\"model\": \"x\"}', 'benchmark', 'benchmark') RETURNING id",
        (_ENVIRONMENT, f"of-{n}"),
    ).fetchone()
    assert row is not None
    terms = {"shadow": row["id"], "n": n, "environment": _ENVIRONMENT, "seconds": _HOURS * 3600}
    for statement in _FILL.split(";"):
        connection.execute(statement.encode(), terms)
    for hour in range(_HOURS):
        moment = int((datetime.now(UTC) - timedelta(hours=hour)).timestamp()) * 1_000_000
        document = documents[hour % len(documents)] | {"first": moment, "last": moment}
        connection.execute(
            "INSERT INTO shadow_summary"
            " VALUES (%s, date_trunc('hour', now()) - make_interval(hours => %s), %s)",
            (row["id"], hour, Jsonb(document)),
        )
    settle(connection, row["id"])
    connection.execute("ANALYZE shadow_result, label")
    return int(row["id"])


def median_s(work: Callable[[], Any]) -> float:
    """Return the median time of some rounds, in seconds."""
    taken = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return round(float(np.median(taken)), 3)


def run(sizes: Sequence[int]) -> dict[str, Any]:
    """Measure reports after so many results."""
    some = rows(4_000)
    parts = [fold(some[start : start + 800]) for start in range(0, 4_000, 800)]
    facts: dict[str, Any] = {
        "fold_us": round(
            median_s(lambda: [fold(some[i : i + 500]) for i in range(0, 4_000, 500)]) / 4_000 * 1e6, 1
        ),
        "merge_ms": round(median_s(lambda: merge_all(parts)) / len(parts) * 1e3, 2),
        "reports": {},
    }
    with tempfile.TemporaryDirectory(prefix="scorewire-benchmark-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with EmbeddedPostgres(directory / "postgres") as server:
            migrate(server.dsn)
            with connect(server.dsn) as connection:
                connection.execute("INSERT INTO environment VALUES (%s)", (_ENVIRONMENT,))
                connection.execute(
                    "SELECT make_transaction_days(%s, current_date - 10, current_date)", (_ENVIRONMENT,)
                )
                for size in sizes:
                    facts["reports"][size] = _report(connection, fill(connection, size, parts))
    return facts


def _report(connection: Connection, shadow: int) -> dict[str, Any]:
    options = Options(budget=0.01)
    reading = read(connection, shadow, options.bounds)
    found = work_out(reading, options)
    return {
        "results": len(reading.pairs.ids),
        "labelled": len(reading.labelled.pairs.ids),
        "read_s": median_s(lambda: read(connection, shadow, options.bounds)),
        "statistics_s": median_s(lambda: work_out(reading, options)),
        "page_s": median_s(lambda: page(found)),
        "page_kb": round(len(page(found)) / 1e3),
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--results", type=int, nargs="+", default=[20_000, 200_000])
    arguments = parser.parse_args()
    facts = run(arguments.results)
    if arguments.json:
        json.dump(facts, sys.stdout)
        print()
        return
    table = Table("results", "sampled", "labelled", "read s", "statistics s", "page s", "page KB")
    for size, row in facts["reports"].items():
        table.add_row(f"{size:,}", *(f"{value:,}" for value in row.values()))
    Console().print(table)
    Console().print(f"summarising: {facts['fold_us']} us a result, {facts['merge_ms']} ms a merge")


if __name__ == "__main__":
    main()
