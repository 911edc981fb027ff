"""What the demo shows: live card payments, redundant nodes, one killed, the model swapped.

Everything in it is real: PostgreSQL, the broker, the node processes, the kill, the promotion. At the end
each answer is compared with the library that trained the model which gave it, and one is traced and computed
again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.table import Table

from actors.balancer import setup_of
from actors.config import KafkaSettings, Settings, load_settings
from actors.host import Host
from examples.card_payments import PAYMENT_SPEC, simulate, stream
from examples.operations import (
    promote_and_wait,
    register_file,
    score_over_http,
    wait_for_http,
    wait_for_nodes,
)
from examples.tracing import Traced, trace_one
from governance.database import migrate
from governance.embedded import EmbeddedPostgres
from haproxy.plan import Options
from models.importers import import_model
from models.spec import FeatureSpec, load_spec
from shadow.broker import EmbeddedBroker
from transport.client import Answer, AsyncClient, ScorewireError
from transport.ports import free_ports_in_a_row, is_free

Matrix = NDArray[np.float32]
Scores = NDArray[np.float64]

#: The decision rules of the demo.
DECISIONS = PAYMENT_SPEC.with_name("card_decisions.toml")
#: Within so many units in the last place a score is the library's: 0 where only additions are made, 1
#: where an exponential is, since libraries of mathematics differ there.
ULPS = {"scikit-learn": 0, "lightgbm": 1}


@dataclass(frozen=True)
class Candidate:
    """A trained model, its bundle's digest, and its library's own answer."""

    title: str
    library: str
    digest: str
    predict: Callable[[Matrix], Scores]


@dataclass
class Traffic:
    """What was sent, and what came back."""

    payments: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Answer | Exception] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Requests that got no answer."""
        return sum(isinstance(outcome, Exception) for outcome in self.outcomes)


class Narrator:
    """Tells what happens: live on a terminal, plain lines elsewhere; never on standard output with --json."""

    def __init__(self, *, quiet_stdout: bool) -> None:
        self._console = Console(stderr=quiet_stdout, highlight=False)
        self._began = time.monotonic()

    @property
    def live(self) -> bool:
        """Whether a line may be drawn over."""
        return self._console.is_terminal

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        if self.live:  # over whatever is left of the line that is drawn again and again
            self._console.control(Control((ControlType.ERASE_IN_LINE, 2)))
        self._console.print(f"[dim]{time.monotonic() - self._began:5.1f} s[/]  {text}")

    def tick(self, traffic: Traffic) -> None:
        """Draw the state of the stream over the last one."""
        recent = sorted(traffic.seconds[-500:]) or [0.0]
        p50, p99 = (recent[int(len(recent) * part)] * 1e3 for part in (0.5, 0.99))
        line = (
            f"{len(traffic.outcomes):>7} answered   {traffic.failed} failed   "
            f"p50 {p50:.2f} ms   p99 {p99:.2f} ms"
        )
        if self.live:
            self._console.print(f"         {line}", end="\r")
        else:
            self.say(line)

    def table(self, summary: Mapping[str, Any]) -> None:
        """Print the summary."""
        table = Table(title="Summary", show_header=False)
        for name, value in summary.items():
            table.add_row(name, str(value))
        self._console.print(table)


def run(narrator: Narrator, *, seconds: float, rate: int, http_port: int = 0) -> dict[str, Any]:
    """Run the whole demo; return its summary."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scorewire-demo-")))
        narrator.say("starting PostgreSQL")
        postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
        migrate(postgres.dsn)
        narrator.say("starting a broker that speaks Kafka's protocol")
        broker = stack.enter_context(EmbeddedBroker(directory / "broker"))
        settings = _settings(directory, postgres.dsn, broker.settings, http_port)
        narrator.say(
            f"starting {settings.preprocessor.nodes} preprocessors, {settings.scorer.nodes} scorers, "
            "a gateway, HAProxy"
        )
        host = stack.enter_context(Host(settings, directory / "scorewire.toml"))
        spec = load_spec(PAYMENT_SPEC)
        first, second = _candidates(directory, settings, spec, narrator)
        features = register_file(settings, PAYMENT_SPEC, "feature_spec", "card-payments")
        wait_for_nodes(settings)
        haproxies = setup_of(settings).instances
        rules = register_file(settings, DECISIONS, "decision_rules", "card-decisions")
        stages = {"features": features, "model": first.digest, "decision": rules}
        swap_ms = promote_and_wait(settings, stages)
        narrator.say(f"{first.title} is live on all nodes {swap_ms:.0f} ms after its promotion")
        wait_for_http(f"http://{haproxies[0].http}")
        narrator.say(f"and answers over HTTP as well, at http://{haproxies[0].http}/v1/score")
        show = _Show(settings, host, narrator, haproxies, second, seconds, rate)
        traffic = asyncio.run(show.run())
        narrator.say("comparing each score with the library that trained its model")
        models = {first.digest: first, second.digest: second}
        mismatched = _mismatches(traffic, spec, models)
        narrator.say("waiting for the last answer to come through Kafka to the database")
        traced = trace_one(settings, [one for one in traffic.outcomes if isinstance(one, Answer)])
        narrator.say(traced.told)
        narrator.say(f"computed again from the artifacts in the database: {traced.rescored}")
        return _summary(traffic, mismatched, show, traced)


class _Show:
    """The live part: a steady stream, a kill after a third of it, a promotion after two."""

    def __init__(
        self,
        settings: Settings,
        host: Host,
        narrator: Narrator,
        haproxies: Sequence[Options],
        second: Candidate,
        seconds: float,
        rate: int,
    ) -> None:
        self.killed = ""
        self.swap_ms = 0.0
        self.over_http = ""
        self._settings = settings
        self._host = host
        self._narrator = narrator
        self._addresses = [f"tcp://{one.tcp}" for one in haproxies]
        self._door = f"http://{haproxies[0].http}"
        self._second = second
        self._seconds = seconds
        self._rate = rate
        self._traffic = Traffic()

    async def run(self) -> Traffic:
        events = asyncio.create_task(self._events())
        async with AsyncClient(self._addresses, deadline=5.0, connections=4) as client:
            under_way = set()
            began = time.monotonic()
            for number, payment in enumerate(stream(seed=2026)):
                due = began + number / self._rate
                if due > began + self._seconds:
                    break
                # An open loop: a slow answer holds up no other request, and hides in no pause.
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                task = asyncio.create_task(self._score(client, payment))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                if number % self._rate == 0:
                    self._narrator.tick(self._traffic)
            await asyncio.gather(*under_way)
        await events
        await asyncio.to_thread(self._ask_over_http)
        return self._traffic

    async def _score(self, client: AsyncClient, payment: dict[str, Any]) -> None:
        began = time.perf_counter()
        outcome: Answer | Exception
        try:
            outcome = await client.score(payment)
        except ScorewireError as error:
            outcome = error
        self._traffic.seconds.append(time.perf_counter() - began)
        self._traffic.payments.append(payment)
        self._traffic.outcomes.append(outcome)

    def _ask_over_http(self) -> None:
        """Ask a payment that was answered last once more, through the other door."""
        pairs = zip(self._traffic.payments, self._traffic.outcomes, strict=True)
        payment, answer = max(pairs, key=lambda pair: str(pair[0]["timestamp"]))
        again = score_over_http(self._door, payment)
        same = isinstance(answer, Answer) and again.get("scores") == answer.scores
        self.over_http = "same" if same else f"{again}, and not {answer}"

    async def _events(self) -> None:
        await asyncio.sleep(self._seconds / 3)
        self.killed, pid = next((name, pid) for name, pid in self._host.pids().items() if "scorer" in name)
        os.kill(pid, signal.SIGKILL)
        self._narrator.say(f"[red]killed[/] {self.killed} (kill -9 {pid})")
        await asyncio.sleep(self._seconds / 3)
        self._narrator.say(f"promoting {self._second.title}")
        stages = {"model": self._second.digest}
        self.swap_ms = await asyncio.to_thread(promote_and_wait, self._settings, stages)
        self._narrator.say(f"[green]swapped[/]: the last node took it up after {self.swap_ms:.0f} ms")


def _settings(directory: Path, dsn: str, kafka: KafkaSettings, http_port: int) -> Settings:
    """Write the demo's configuration, as an operator would, and read it."""
    file = directory / "scorewire.toml"
    lines = {
        "environment": "demo",
        "dsn": dsn,
        "cache": str(directory / "cache"),
        "logs": str(directory / "logs"),
    }
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
    port = free_ports_in_a_row(3)
    http_port = http_port if http_port and is_free(http_port) else port + 1
    text += f"[haproxy]\nport = {port}\nhttp_port = {http_port}\nstats_port = {port + 2}\n"
    text += f"directory = {json.dumps(str(directory / 'haproxy'))}\n"
    text += "[preprocessor]\nport = 0\n[scorer]\nactors = 1\n[gateway]\nnodes = 1\nport = 0\n"
    text += "[kafka]\nreplication = 1\n"
    text += f"bootstrap_servers = {json.dumps(kafka.bootstrap_servers)}\npartitions = {kafka.partitions}\n"
    options = ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in kafka.options.items())
    file.write_text(f"{text}options = {{ {options} }}\n", encoding="utf-8")
    return load_settings(file)


def _candidates(
    directory: Path,
    settings: Settings,
    spec: FeatureSpec,
    narrator: Narrator,
) -> tuple[Candidate, Candidate]:
    """Train two models on simulated payments and register their bundles."""
    import lightgbm  # noqa: PLC0415 - heavy, and only the demo trains
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    narrator.say("simulating card payments and training two models on them")
    payments, labels = simulate(n=30_000, seed=7)
    x = spec.matrix(payments)
    forest = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=-1, random_state=1).fit(x, labels)
    forest.set_params(n_jobs=1)
    data = lightgbm.Dataset(x, labels, feature_name=list(spec.feature_names))
    # One thread: several wait for one another in loops, which takes ten times as long on busy cores.
    params = {"objective": "binary", "num_leaves": 63, "verbosity": -1, "seed": 1, "num_threads": 1}
    booster = lightgbm.train(params, data, num_boost_round=150)
    found = []
    for title, model, predict in (
        ("a random forest", forest, lambda x: forest.predict_proba(x)[:, 1]),
        ("gradient boosting", booster, booster.predict),
    ):
        path = directory / f"{title.replace(' ', '-')}.bundle"
        trained_at = datetime.now(UTC).isoformat(timespec="seconds")
        bundle = import_model(model, path, feature_names=spec.feature_names, trained_at=trained_at)
        digest = register_file(settings, path, "bundle", title)
        found.append(Candidate(title, bundle.meta.library, digest, predict))
        narrator.say(
            f"registered {title}: {bundle.meta.n_trees} trees, {bundle.meta.n_nodes} nodes, {digest[:12]}"
        )
    return found[0], found[1]


def _mismatches(traffic: Traffic, spec: FeatureSpec, models: Mapping[str, Candidate]) -> int:
    """Count the scores that are not the training library's own."""
    answered = [
        (payment, outcome)
        for payment, outcome in zip(traffic.payments, traffic.outcomes, strict=True)
        if isinstance(outcome, Answer)
    ]
    wrong = 0
    for digest, candidate in models.items():
        mine = [(payment, answer) for payment, answer in answered if answer.trace.pipeline["model"] == digest]
        if mine:
            expected = candidate.predict(spec.matrix(payment for payment, _ in mine))
            got = np.array([answer.score for _, answer in mine])
            apart = np.abs(got - expected) / np.spacing(np.abs(expected))
            wrong += int(np.count_nonzero(~(apart <= ULPS[candidate.library])))
    return wrong


def _summary(traffic: Traffic, mismatched: int, show: _Show, traced: Traced) -> dict[str, Any]:
    p50, p99, p999 = (round(float(q) * 1e3, 3) for q in np.quantile(traffic.seconds, (0.5, 0.99, 0.999)))
    answers = [outcome for outcome in traffic.outcomes if isinstance(outcome, Answer)]
    releases = Counter(str(answer.trace.release) for answer in answers)
    return {
        "transactions": len(traffic.outcomes),
        "failed": traffic.failed,
        "mismatched": mismatched,
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": p999,
        "swap_ms": round(show.swap_ms, 1),
        "killed": show.killed,
        "releases": dict(sorted(releases.items())),
        "kept": traced.kept,
        "rescored": traced.rescored,
        "over_http": show.over_http,
    }
