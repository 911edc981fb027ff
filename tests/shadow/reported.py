"""A shadow with results, labels and live transactions, for the tests of reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governance.database import Connection
from governance.labels import LabelFile, import_labels
from governance.transactions import Transaction, make_days, store
from shadow.result import ResultRow
from shadow.store import Summarise, store_results
from shadow.summary import fold, merge

SUMMARISE = Summarise(fold, merge)
CHANNELS = ("chip", "contactless", "online")


def start_shadow(connection: Connection, name: str = "one", environment: str = "qa", **more: Any) -> int:
    """Enter a shadow as `run.py shadow start` would."""
    connection.execute("INSERT INTO environment VALUES (%s) ON CONFLICT DO NOTHING", (environment,))
    facts = {"environment": environment, "name": name, "overrides": json.dumps({"model": "ab" * 32})}
    facts |= {"started_by": "ann", "state_by": "ann"} | more
    columns = ", ".join(facts)
    marks = ", ".join(["%s"] * len(facts))
    row = connection.execute(
        f"INSERT INTO shadow ({columns}) VALUES ({marks}) RETURNING id".encode(), list(facts.values())
    ).fetchone()
    assert row is not None
    return int(row["id"])


@dataclass(frozen=True)
class Made:
    """Results, and which of their transactions are fraud."""

    rows: list[ResultRow]
    fraud: NDArray[np.bool_]


def make(
    n: int,
    *,
    shadow: int,
    seed: int = 1,
    better: float = 1.5,
    rate: float = 0.05,
    first: datetime | None = None,
) -> Made:
    """Make results, a second apart. The shadow finds fraud better, and is apart from the champion online."""
    random = np.random.default_rng(seed)
    first = first or datetime.now(UTC) - timedelta(seconds=n + 60)
    fraud = random.random(n) < rate
    common = random.normal(-3, 1, n)
    online = random.random(n) < 0.3
    champion = 1 / (1 + np.exp(-(common + 2.0 * fraud)))
    shadow_score = 1 / (1 + np.exp(-(common + (2.0 + better) * fraud + 0.8 * online)))
    amounts = np.round(random.lognormal(3.5, 1, n), 2)
    rows = [
        ResultRow(
            shadow=shadow,
            transaction_id=f"{seed}-{i:07}",
            at=first + timedelta(seconds=i),
            release=3,
            champion_score=float(a),
            shadow_score=float(b),
            champion_scores={"fraud": float(a)},
            shadow_scores={"fraud": float(b)},
            champion_outcome=_outcome(a),
            shadow_outcome=_outcome(b),
            champion_reasons=("high",) if a >= 0.5 else (),
            shadow_reasons=("high",) if b >= 0.5 else (),
            amount=float(amount),
            fields={
                "id": f"{seed}-{i:07}",
                "amount": float(amount),
                "channel": "online" if is_online else CHANNELS[i % 2],
                "customer_id": int(i % 600),
            },
            champion_us={"features": 30, "model": 20 + i % 7},
            shadow_us={"model": 40 + i % 9},
            drift={},
        )
        for i, (a, b, amount, is_online) in enumerate(
            zip(champion, shadow_score, amounts, online, strict=True)
        )
    ]
    return Made(rows, fraud)


def _outcome(score: float) -> str:
    return "decline" if score >= 0.5 else "review" if score >= 0.2 else "approve"


def put(connection: Connection, rows: Sequence[ResultRow]) -> None:
    """Store results as shadow nodes do."""
    store_results(connection, rows, SUMMARISE)


def put_live(connection: Connection, rows: Sequence[ResultRow], environment: str = "qa") -> None:
    """Store the live transactions as the sink does."""
    make_days(connection, environment, rows[0].at.date(), rows[-1].at.date())
    store(
        connection,
        [
            Transaction(environment=environment, id=row.transaction_id, at=row.at, node="n", seq=i, release=3)
            for i, row in enumerate(rows)
        ],
    )


def put_labels(connection: Connection, made: Made, directory: Path, environment: str = "qa") -> None:
    """Import labels of all transactions."""
    file = directory / "labels.csv"
    lines = (f"{row.transaction_id},{int(fraud)}\n" for row, fraud in zip(made.rows, made.fraud, strict=True))
    file.write_text("id,label\n" + "".join(lines))
    import_labels(connection, environment, LabelFile(file), by="ann")
