"""Overload: what is answered in time, and how soon, while more and more is offered.

    python -m benchmarks.overload [--json] [--seconds 3] [--rounds 3] [--deadline 0.1] [--plot FILE]

Open loop: payments are sent at times of a Poisson process, whatever becomes of those before, and each latency
is counted from the time at which it was to be sent. The callers are the project's own pools, in processes of
their own, on one half of the processor's cores; all nodes are on the other half, so that offering more
takes nothing from them. Capacity is what a closed loop gets; loads are taken in turns. Goodput is what was
answered within its deadline.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from rich.console import Console
from rich.table import Table

from benchmarks.round_trip import serve
from examples.card_payments import stream
from governance.database import connect
from governance.membership import members
from transport.client import OverloadedError, wire
from transport.client.loop import Loop
from transport.client.pool import Pool
from transport.client.wire import Kind

LOADS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
_WINDOW = 64
_DRAIN_S = 5.0
#: Seconds at each load that are not counted: callers that were refused come back little by little.
_SETTLE_S = 1.5


@dataclass
class Outcomes:
    """What became of the payments of one caller."""

    offered: int
    latencies_s: list[float]
    overloaded: int = 0
    other: int = 0

    def take(self, began: float, outcome: bytes | Exception) -> None:
        """Count one."""
        if isinstance(outcome, bytes):
            self.latencies_s.append(time.monotonic() - began)
        elif isinstance(outcome, OverloadedError):
            self.overloaded += 1
        else:
            self.other += 1

    @property
    def settled(self) -> int:
        """How many there is an outcome of."""
        return len(self.latencies_s) + self.overloaded + self.other


class Caller:
    """A pool that is fed by a schedule."""

    def __init__(self, addresses: list[str], deadline_s: float) -> None:
        self._loop = Loop()
        self._pool = Pool(self._loop, zmq.Context(), addresses)
        self._deadline_s = deadline_s
        self._bodies = [wire.pack_transaction(one) for one in islice(stream(seed=5), 5_000)]
        while "ready" not in self._pool.states().values():
            self._turn()

    def _turn(self) -> None:
        for source in self._loop.wait(block=False):
            source.pump()

    def _submit(self, number: int, at: float, outcomes: Outcomes) -> None:
        body = self._bodies[number % len(self._bodies)]
        self._pool.submit(Kind.SCORE, body, at + self._deadline_s, partial(outcomes.take, at))

    def open_loop(self, rate: float, seconds: float, seed: int) -> Outcomes:
        """Send at the times of a Poisson process."""
        count = max(1, int(rate * seconds))
        gaps = np.random.default_rng(seed).exponential(1.0 / rate, count)
        times = (time.monotonic() + 0.01 + np.cumsum(gaps)).tolist()
        outcomes, sent = Outcomes(count, []), 0
        give_up_at = times[-1] + _DRAIN_S
        while outcomes.settled < count and (now := time.monotonic()) < give_up_at:
            while sent < count and times[sent] <= now:
                self._submit(sent, times[sent], outcomes)
                sent += 1
            self._turn()
        return outcomes

    def closed_loop(self, seconds: float) -> Outcomes:
        """Keep some under way at any time."""
        end, outcomes = time.monotonic() + seconds, Outcomes(0, [])
        while time.monotonic() < end:
            while outcomes.offered - outcomes.settled < _WINDOW:
                outcomes.offered += 1
                self._submit(outcomes.offered, time.monotonic(), outcomes)
            self._turn()
        return outcomes


def _call(pipe: Connection, addresses: list[str], deadline_s: float, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    caller = Caller(addresses, deadline_s)
    pipe.send(None)
    for kind, *arguments in iter(pipe.recv, None):
        outcomes = caller.open_loop(*arguments) if kind == "open" else caller.closed_loop(*arguments)
        pipe.send(asdict(outcomes))


def _ask(pipes: list[Connection], *message: Any) -> Outcomes:
    for pipe in pipes:
        pipe.send(message)
    found = [Outcomes(**pipe.recv()) for pipe in pipes]
    latencies = [one for outcomes in found for one in outcomes.latencies_s]
    summed = [sum(getattr(one, name) for one in found) for name in ("offered", "overloaded", "other")]
    return Outcomes(summed[0], latencies, summed[1], summed[2])


def _point(load: float, found: list[Outcomes], seconds: float) -> dict[str, float]:
    """Return one load's figures: rates as means of all rounds, percentiles as medians of each round's."""
    a_second = 1 / (seconds * len(found))
    quantiles = [np.quantile(one.latencies_s or [np.nan], (0.5, 0.99)) * 1e3 for one in found]
    p50, p99 = np.median(np.array(quantiles), axis=0)
    return {
        "load": load,
        "offered": round(sum(one.offered for one in found) * a_second),
        "goodput": round(sum(len(one.latencies_s) for one in found) * a_second),
        "overloaded": round(sum(one.overloaded for one in found) * a_second),
        "late": round(sum(one.other + one.offered - one.settled for one in found) * a_second),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
    }


def _pin(pids: list[int], cores: set[int]) -> None:
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def run(seconds: float, rounds: int, deadline_s: float, loads: tuple[float, ...] = LOADS) -> dict[str, Any]:
    """Run the benchmark; return its figures."""
    cores = sorted(os.sched_getaffinity(0))
    half = max(1, len(cores) // 2)
    nodes_on, callers_on = set(cores[:half]), set(cores[half:] or cores)
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        settings, addresses = serve(stack, 1, 1)
        with connect(settings.dsn) as connection:
            _pin([node.pid for node in members(connection, settings.environment)], nodes_on)
        pipes = []
        for core in sorted(callers_on):
            near, far = spawn.Pipe()
            arguments = (far, addresses, deadline_s, {core})
            spawn.Process(target=_call, args=arguments, daemon=True).start()
            pipes.append(near)
        for pipe in pipes:
            pipe.recv()
        _ask(pipes, "closed", 1.0)
        capacity = np.median([len(_ask(pipes, "closed", 1.0).latencies_s) for _ in range(3)])
        found: dict[float, list[Outcomes]] = {load: [] for load in loads}
        for number in range(rounds):
            for load in loads:
                rate = load * float(capacity) / len(pipes)
                _ask(pipes, "open", rate, _SETTLE_S, rounds + number)
                found[load].append(_ask(pipes, "open", rate, seconds, number))
        for pipe in pipes:
            pipe.send(None)
    return _conclude(float(capacity), deadline_s, [_point(load, one, seconds) for load, one in found.items()])


def _conclude(capacity: float, deadline_s: float, points: list[dict[str, float]]) -> dict[str, Any]:
    peak = max(point["goodput"] for point in points)
    last, first = points[-1], points[0]
    return {
        "capacity": round(capacity),
        "deadline_s": deadline_s,
        "peak_goodput": peak,
        "goodput_of_peak": round(last["goodput"] / peak, 3),
        "p99_times_unloaded": round(last["p99_ms"] / first["p99_ms"], 2),
        "points": points,
    }


def plot(facts: dict[str, Any], file: Path) -> None:
    """Draw offered load against goodput and the 99th percentile."""
    import matplotlib as mpl  # noqa: PLC0415 - only a picture needs it

    mpl.use("Agg")
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    offered = [point["offered"] for point in facts["points"]]
    left.plot(offered, offered, ":", color="#7f8c8d", label="offered")
    left.plot(
        offered, [point["goodput"] for point in facts["points"]], "o-", color="#c0392b", label="goodput"
    )
    left.set_ylim(0, 1.6 * facts["peak_goodput"])
    left.set_title("answered in time, a second")
    left.legend()
    right.plot(offered, [point["p99_ms"] for point in facts["points"]], "o-", color="#c0392b", label="p99")
    right.plot(offered, [point["p50_ms"] for point in facts["points"]], "o-", color="#2980b9", label="median")
    right.set_ylim(0)
    right.set_title("ms, of what was admitted")
    right.legend()
    for axis in (left, right):
        axis.set_xlabel("offered a second")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def show(facts: dict[str, Any]) -> None:
    """Print the table."""
    title = f"capacity {facts['capacity']:,} a second, deadline {facts['deadline_s'] * 1e3:.0f} ms"
    table = Table(title=title)
    for name in facts["points"][0]:
        table.add_column(name, justify="right")
    for point in facts["points"]:
        table.add_row(*(f"{value:,}" for value in point.values()))
    console = Console()
    console.print(table)
    console.print(
        f"At {facts['points'][-1]['load']} times the capacity, goodput is {facts['goodput_of_peak']:.0%} of "
        f"its peak and p99 {facts['p99_times_unloaded']} times that at {facts['points'][0]['load']}."
    )


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds for each load in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deadline", type=float, default=0.1, help="seconds that each payment may take")
    parser.add_argument("--plot", type=Path, help="where to draw the curves, as SVG")
    arguments = parser.parse_args()
    facts = run(arguments.seconds, arguments.rounds, arguments.deadline)
    if arguments.plot:
        plot(facts, arguments.plot)
    if arguments.json:
        print(json.dumps(facts))
    else:
        show(facts)


if __name__ == "__main__":
    main()
