"""What a call costs the client itself: the CPU time of its process while another process answers.

    python -m benchmarks.client [--json] [--calls 4000] [--rounds 5] [--before DIR]

An echo in a process of its own answers each transaction at once, so that all that this process spends is the
client's: packing, threads, sockets, the pool, beats, unpacking. `bare` is a socket alone, which packs, sends,
receives and unpacks the same messages one after another; `own` is what the client takes beyond that. CPU time
is not the time that a caller waits: benchmarks.round_trip measures that. The ways of calling take turns, and
the least of the rounds counts, since what else the machine does only adds; of `own`, which compares two ways
within a round, the median. With --before, the client of another checkout takes turns with this one's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from transport.client import AsyncClient, Client, wire

ROOT = Path(__file__).parents[1]
#: Transactions that are under way at a time where there are several.
WINDOW = 64
PAYMENT = {
    "id": "0193b2a5-7c1f",
    "at": "2026-01-02T03:04:05Z",
    "amount": 125.5,
    "currency": "EUR",
    "card": "c-48213",
    "merchant": "m-1180",
    "country": "FR",
    "mcc": 5411,
    "present": True,
    "entry": "chip",
    "attempts": 1,
    "balance": None,
}
ECHO = """
import sys
from transport.client.testing import Server
with Server({"0": 0.25, "1": 0.75}) as server:
    print(server.address, flush=True)
    while sys.stdin.read(1):
        server.transactions.clear()
"""


def bare(address: str, calls: int) -> float:
    """Ask by a socket alone; as the others."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(address)

    def ask(number: int) -> dict[str, Any]:
        body = wire.pack_transaction(PAYMENT)
        socket.send(wire.pack_header(wire.Kind.SCORE, number, 1_000_000) + body)
        return wire.unpack_body(socket.recv())

    ask(0)
    spent = _cpu(lambda: [ask(number) for number in range(calls)], calls)
    context.destroy(0)
    return spent


def sync(address: str, calls: int) -> float:
    """Return microseconds of CPU time a call, one call after another."""
    with Client(address, deadline=20) as client:
        client.score(PAYMENT)
        return _cpu(lambda: [client.score(PAYMENT) for _ in range(calls)], calls)


def sync_many(address: str, calls: int) -> float:
    """Return microseconds of CPU time a call of a stream, several under way."""
    with Client(address, deadline=20) as client:
        client.score(PAYMENT)
        return _cpu(lambda: list(client.score_many([PAYMENT] * calls, window=WINDOW)), calls)


def async_one(address: str, calls: int) -> float:
    """Return microseconds of CPU time a call by asyncio, one after another."""
    return asyncio.run(_async(address, calls, 1))


def async_many(address: str, calls: int) -> float:
    """Return microseconds of CPU time a call by asyncio, from several callers."""
    return asyncio.run(_async(address, calls, WINDOW))


async def _async(address: str, calls: int, callers: int) -> float:
    async def caller() -> None:
        for _ in range(calls // callers):
            await client.score(PAYMENT)

    async with AsyncClient(address, deadline=20) as client:
        await client.score(PAYMENT)
        began = time.process_time()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return (time.process_time() - began) / (calls // callers * callers) * 1e6


def _cpu(work: Callable[[], object], calls: int) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) / calls * 1e6


WAYS: dict[str, Callable[[str, int], float]] = {
    "bare": bare,
    "sync": sync,
    "sync_many": sync_many,
    "async": async_one,
    "async_many": async_many,
}


def measure(checkouts: dict[str, Path], calls: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return microseconds of CPU time a call, by checkout and way of calling."""
    found: dict[str, dict[str, list[float]]] = {name: {way: [] for way in WAYS} for name in checkouts}
    echo = [sys.executable, "-c", ECHO]
    with subprocess.Popen(echo, cwd=ROOT, stdin=-1, stdout=-1, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        for _ in range(rounds):
            for name, checkout in checkouts.items():
                command = [sys.executable, __file__, "--calls", str(calls), "--worker", address]
                environment = {**os.environ, "PYTHONPATH": str(checkout)}
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                for way, spent in json.loads(done.stdout).items():
                    found[name][way].append(spent)
                server.stdin.write(".")
                server.stdin.flush()
        server.stdin.close()
    return {name: _summary(ways) for name, ways in found.items()}


def _summary(ways: dict[str, list[float]]) -> dict[str, float]:
    summary = {way: round(min(spent), 1) for way, spent in ways.items()}
    for way in ("sync", "async"):
        own = [spent - bare for spent, bare in zip(ways[way], ways["bare"], strict=True)]
        summary[f"{way} own"] = round(statistics.median(own), 1)
    return summary


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--calls", type=int, default=4_000, help="calls in each round of each way")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--before", type=Path, help="another checkout, whose client takes turns with this one's"
    )
    parser.add_argument("--worker", metavar="ADDRESS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps({way: ask(arguments.worker, arguments.calls) for way, ask in WAYS.items()}))
        return
    checkouts = {"before": arguments.before.resolve()} if arguments.before else {}
    load_before = os.getloadavg()[0]
    facts: dict[str, Any] = measure({**checkouts, "now": ROOT}, arguments.calls, arguments.rounds)
    if arguments.before:
        facts["ratio"] = {way: round(facts["now"][way] / facts["before"][way], 3) for way in facts["now"]}
    if arguments.json:
        print(json.dumps({"cpu_us_a_call": facts, "calls": arguments.calls, "load_before": load_before}))
        return
    print(f"{'us of CPU time a call':>24}" + "".join(f"{name:>10}" for name in facts))
    for way in facts["now"]:
        print(f"{way:>24}" + "".join(f"{ways[way]:>10}" for ways in facts.values()))


if __name__ == "__main__":
    main()
