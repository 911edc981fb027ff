"""Overload: what is answered in time, and how soon, while more and more is offered.

    python -m benchmarks.overload [--json] [--seconds 3] [--rounds 3] [--deadline 0.1] [--plot FILE]

Open loop: payments are sent at times of a Poisson process, whatever becomes of those before, and each latency
is counted from the time at which it was to be sent. The callers are on one half of the processor's cores; all
nodes are on the other half, so that offering more takes nothing from them. A caller is a bare socket with the
pool's restraint (`Throttle`): a whole pool would be the first to be overloaded. Capacity is what a closed
loop gets; loads are taken in turns. Goodput is what was answered within its deadline.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import count, islice
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
from transport.client.throttle import Throttle
from transport.client.wire import Kind

LOADS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
_WINDOW = 64
#: Seconds that the first answer may take.
_PATIENT_S = 10.0
_MOMENT_S = 50e-6
#: Replies that are read before it is looked again at what is to be sent.
_READS = 16
_HEADER_BYTES = len(wire.pack_header(Kind.ERROR, 0))
#: Seconds at the beginning of each load that are not counted: what there is to learn is learned then.
_SETTLE_S = 1.5


@dataclass
class Outcomes:
    """What became of the payments of one caller."""

    offered: int
    latencies_s: list[float]
    overloaded: int = 0
    other: int = 0

    @property
    def settled(self) -> int:
        """How many there is an outcome of."""
        return len(self.latencies_s) + self.overloaded + self.other


@lru_cache(maxsize=1_000)
def _error(body: bytes) -> Exception:
    """Return what an error's body says; refusals are the same bytes again and again."""
    return wire.unpack_error(wire.pack_header(Kind.ERROR, 0) + body)


class Caller:
    """One socket that is fed by a schedule: what the pool does, without what a process of its own would cost.

    It restrains itself as the pool does. Packed payments are sent, and of replies the header is read.
    """

    def __init__(self, addresses: list[str], deadline_s: float) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.connect(addresses[0])
        self._deadline_s = deadline_s
        self._bodies = [wire.pack_transaction(one) for one in islice(stream(seed=5), 5_000)]
        self._throttle = Throttle()
        self._ids = count(1)
        self._sent: dict[int, float] = {}
        self._again_at = 0.0
        self._counts_from = 0.0
        # The first answer, after which there is a connection.
        self._send(0, time.monotonic() + _PATIENT_S)
        self._socket.poll(int(_PATIENT_S * 1e3))
        self._socket.recv()

    def _send(self, number: int, at: float) -> None:
        id_ = next(self._ids)
        budget_us = max(1, int((at + self._deadline_s - time.monotonic()) * 1e6))
        body = self._bodies[number % len(self._bodies)]
        self._socket.send(wire.pack_header(Kind.SCORE, id_, budget_us) + body, copy=True)
        self._sent[id_] = at

    def _submit(self, number: int, at: float, outcomes: Outcomes) -> None:
        if self._throttle.admits():
            self._send(number, at)
        elif at >= self._counts_from:
            outcomes.overloaded += 1

    def _read(self, outcomes: Outcomes) -> None:
        """Take some of what has come, or wait for a moment; what comes too late is as good as nothing."""
        if not self._socket.poll(0):
            time.sleep(_MOMENT_S)  # in which the socket's own thread has the core
        with suppress(zmq.Again):
            for _ in range(_READS):
                frame = self._socket.recv(zmq.NOBLOCK)
                now, header = time.monotonic(), wire.unpack_header(frame)
                at = self._sent.pop(header.id, None)
                if at is None:  # of a load before
                    continue
                error = None if header.kind is Kind.ANSWER else _error(frame[_HEADER_BYTES:])
                full = isinstance(error, OverloadedError)
                if isinstance(error, OverloadedError):
                    self._again_at = now + error.retry_after
                self._throttle.note(now, refused=full)
                if at < self._counts_from:
                    continue
                if header.kind is Kind.ANSWER and now - at <= self._deadline_s:
                    outcomes.latencies_s.append(now - at)
                elif full:
                    outcomes.overloaded += 1
                else:
                    outcomes.other += 1

    def open_loop(self, rate: float, seconds: float, seed: int) -> Outcomes:
        """Send at the times of a Poisson process; count what is sent after some seconds of it."""
        settle = int(rate * _SETTLE_S)
        counted = max(1, int(rate * seconds))
        total = settle + counted
        gaps = np.random.default_rng(seed).exponential(1.0 / rate, total)
        times = (time.monotonic() + 0.01 + np.cumsum(gaps)).tolist()
        outcomes, sent = Outcomes(counted, []), 0
        self._counts_from = times[settle]
        give_up_at = times[-1] + 2 * self._deadline_s
        self._sent.clear()
        while outcomes.settled < counted and (now := time.monotonic()) < give_up_at:
            while sent < total and times[sent] <= now:
                self._submit(sent, times[sent], outcomes)
                sent += 1
            self._read(outcomes)
        return outcomes

    def closed_loop(self, seconds: float) -> Outcomes:
        """Keep some under way at any time."""
        end, outcomes = time.monotonic() + seconds, Outcomes(0, [])
        self._counts_from = 0.0
        self._sent.clear()
        while (now := time.monotonic()) < end:
            while outcomes.offered - outcomes.settled < _WINDOW and now >= self._again_at:
                outcomes.offered += 1
                self._send(outcomes.offered, now)
            self._read(outcomes)
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
