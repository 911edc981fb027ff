"""A second pattern of fraud starts in the middle of a stream; a shadow that knows it meets the champion.

    python -m examples.second_pattern [--html FILE] [--picture FILE] [--payments N] [--rate N] [--json]

Everything is real: PostgreSQL, Kafka's protocol, nodes, tee, sink and shadow. The champion was trained on
payments without the second pattern, the shadow on those of another place, which has seen it; both score the
same stream, in whose second half it starts. Its labels are imported, and the report says which is better.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.config import Settings, load_settings
from actors.host import Host
from examples.browser import Browser
from examples.card_payments import PAYMENT_SPEC, Payment, simulate
from examples.operations import promote_and_wait, register_file, wait_for_nodes
from governance import shadows
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.labels import LabelFile, import_labels
from models.importers import import_model
from models.spec import load_spec
from shadow.broker import EmbeddedBroker
from shadow.figures import Figures, Options, figures
from shadow.report_html import page
from transport.client import AsyncClient

ENVIRONMENT = "demo"
SHADOW = "retrained"
RULES = Path(__file__).with_name("card_decisions.toml")
#: The share of its payments before the other place saw the second pattern first.
SEEN_FROM = 0.4
#: Payments of a day, about.
A_DAY = 1_200
#: The share of payments that may be looked into.
BUDGET = 0.02
#: Seconds that the last results may take to arrive.
ARRIVE_S = 120.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stream:
    """Payments, and which of them are fraud.

    Attributes:
        payments: in order of time.
        fraud: uint8 [n].
    """

    payments: Sequence[Payment]
    fraud: NDArray[np.uint8]


def live_stream(n: int, *, seed: int = 2026) -> Stream:
    """Simulate payments in whose second half the second pattern starts."""
    return Stream(*simulate(n=n, seed=seed, start="2026-07-01", second_from=n // 2 // A_DAY))


def run(say: Say, *, payments: int, rate: float, trained_on: int) -> tuple[Figures, dict[str, Any]]:
    """Run all of it; return the figures, and what happened on the way.

    Args:
        say: is told what happens.
        payments: how many.
        rate: how many a second; 0 for as fast as they are answered.
        trained_on: how many payments each model learns from.

    Raises:
        RuntimeError: nodes do not come up, or results do not arrive.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scorewire-pattern-")))
        say("starting PostgreSQL, a Kafka broker and the nodes")
        postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
        broker = stack.enter_context(EmbeddedBroker(directory / "broker"))
        migrate(postgres.dsn)
        settings = _settings(directory, postgres.dsn, broker)
        stack.enter_context(Host(settings, directory / "scorewire.toml"))
        say("training the champion without the second pattern, and a candidate with it")
        stages, candidate = _register(directory, settings, trained_on)
        addresses = wait_for_nodes(settings)
        promote_and_wait(settings, stages)
        with connect(settings.dsn) as connection:
            shadow = shadows.start(
                connection, ENVIRONMENT, SHADOW, {"model": candidate}, by="demo", comment="knows the pattern"
            )
        say(f"sending {payments} payments, of which the second half has the second pattern")
        stream = live_stream(payments)
        began = time.monotonic()
        asyncio.run(_send(addresses, stream.payments, rate))
        answered_s = time.monotonic() - began
        _wait_for_results(settings, shadow.id, payments)
        late_s = time.monotonic() - began - answered_s
        say(f"answered in {answered_s:.0f} s; the last result was there {late_s:.1f} s later")
        file = directory / "labels.csv"
        _write_labels(file, stream)
        with connect(settings.dsn) as connection:
            imported = import_labels(connection, ENVIRONMENT, LabelFile(file, "review"), by="demo")
            say(f"imported {imported.added} labels")
            found = figures(connection, shadow.id, Options(budget=BUDGET))
        return found, {"payments": payments, "fraud": int(stream.fraud.sum()), "labels": imported.added}


def _settings(directory: Path, dsn: str, broker: EmbeddedBroker) -> Settings:
    """Write the configuration, as an operator would, and read it."""
    text = {
        "environment": ENVIRONMENT,
        "dsn": dsn,
        "cache": str(directory / "cache"),
        "logs": str(directory / "logs"),
    }
    kafka = broker.settings
    options = ", ".join(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in kafka.options.items())
    lines = [f"{name} = {json.dumps(value)}" for name, value in text.items()]
    lines += ["[preprocessor]", "port = 0", "nodes = 1", "[scorer]", "nodes = 1", "actors = 1"]
    lines += ["[shadow]", "nodes = 1", "[tee]", f"spool = {json.dumps(str(directory / 'spool'))}"]
    lines += ["[kafka]", f"bootstrap_servers = {json.dumps(kafka.bootstrap_servers)}"]
    lines += [
        f"partitions = {kafka.partitions}",
        f"replication = {kafka.replication}",
        f"options = {{{options}}}",
    ]
    file = directory / "scorewire.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_settings(file)


def _register(directory: Path, settings: Settings, trained_on: int) -> tuple[dict[str, str], str]:
    """Train both models and register all artifacts; return the champion's pipeline, and the candidate."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 - heavy, and only here something is trained

    spec = load_spec(PAYMENT_SPEC)
    digests = []
    for name, seed, second_from in (("before", 7, None), ("after", 8, int(SEEN_FROM * trained_on / A_DAY))):
        payments, labels = simulate(n=trained_on, seed=seed, second_from=second_from)
        forest = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=-1, random_state=1)
        forest.fit(spec.matrix(payments), labels)
        path = directory / f"{name}.bundle"
        import_model(forest, path, feature_names=spec.feature_names)
        digests.append(register_file(settings, path, "bundle", name))
    stages = {
        "features": register_file(settings, PAYMENT_SPEC, "feature_spec", "card-payments"),
        "model": digests[0],
        "decision": register_file(settings, RULES, "decision_rules", "card-decisions"),
    }
    return stages, digests[1]


async def _send(addresses: list[str], payments: Sequence[Mapping[str, Any]], rate: float) -> None:
    """Have all payments scored, at most 64 at once."""
    gate = asyncio.Semaphore(64)
    async with AsyncClient(addresses, deadline=10.0) as client:

        async def one(payment: Mapping[str, Any]) -> None:
            async with gate:
                await client.score(payment)

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, payment in enumerate(payments):
                due = began + number / rate if rate else 0.0
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await gate.acquire()
                gate.release()
                group.create_task(one(payment))


def _wait_for_results(settings: Settings, shadow: int, expected: int) -> None:
    """Wait until every payment has a result, and is stored as it was answered."""
    give_up_at = time.monotonic() + ARRIVE_S
    with connect(settings.dsn) as connection:
        while True:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM shadow_result WHERE shadow = %s) AS results,"
                " (SELECT count(*) FROM transaction) AS stored",
                (shadow,),
            ).fetchone()
            if row is not None and min(row["results"], row["stored"]) >= expected:
                return
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"of {expected} payments there are: {row}; see {settings.logs}")
            time.sleep(0.1)


def _write_labels(file: Path, stream: Stream) -> None:
    with file.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(("id", "label"))
        rows.writerows((p["id"], int(f)) for p, f in zip(stream.payments, stream.fraud, strict=True))


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--html", type=Path, help="where the report goes, as a page")
    parser.add_argument(
        "--picture", type=Path, help="where a picture of the page goes, as PNG (needs Chromium)"
    )
    parser.add_argument("--payments", type=int, default=12_000, help="how many")
    parser.add_argument("--trained-on", type=int, default=30_000, help="payments that each model learns from")
    parser.add_argument("--rate", type=float, default=400, help="how many a second; 0 for as many as can be")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    say: Say = lambda text: print(text, file=sys.stderr)  # noqa: E731 - a line of its own says less
    found, facts = run(say, payments=arguments.payments, rate=arguments.rate, trained_on=arguments.trained_on)
    with tempfile.TemporaryDirectory() as directory:
        html = arguments.html or Path(directory) / "report.html"
        html.write_text(page(found), encoding="utf-8")
        if arguments.picture:
            with Browser(width=1100) as browser:
                browser.open(html)
                arguments.picture.write_bytes(browser.picture(height=2350, scale=0.75))
    if arguments.json:
        print(json.dumps({**facts, "verdict": found.parts["verdict"], "figures": dict(found.numbers)}))
        return
    print(found.parts["headline"])
    for one in found.parts["findings"]:
        print(f"  {one['text']}")


if __name__ == "__main__":
    main()
