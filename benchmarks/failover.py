"""Failover: from the kill -9 of a node to the answer of the last request that it held.

    python -m benchmarks.failover [--json] [--kills 10] [--rate 500]

Two preprocessors and two scorers; payments are sent at fixed times, and latencies counted from those. A node
is killed again and again, scorers and preprocessors in turn, once all serve. Affected are the requests
that were under way at the kill; the time is that of the last of them. Beside it, the slowest of all that were
to be sent in the second after the kill, in which the node is started anew on the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from contextlib import ExitStack
from itertools import cycle
from typing import Any

import numpy as np

from benchmarks.round_trip import serve
from examples.card_payments import simulate
from governance.database import connect
from governance.membership import Member, members
from transport.client import Answer, Client

_DEADLINE_S = 5.0


class _Load(threading.Thread):
    """Sends payments at a fixed rate; notes when each was to be sent and when it was answered."""

    def __init__(self, client: Client, rate: float) -> None:
        super().__init__(daemon=True)
        self.sent: list[tuple[float, float]] = []
        self.failed = 0
        self.over = False
        self._client, self._rate = client, rate

    def run(self) -> None:
        """Send until told to stop, a thread for each of sixteen streams."""
        streams = [threading.Thread(target=self._stream, args=(n,), daemon=True) for n in range(16)]
        for stream in streams:
            stream.start()
        for stream in streams:
            stream.join()

    def _stream(self, number: int) -> None:
        period_s = 16 / self._rate
        payments = cycle(simulate(n=500, seed=number)[0])
        at = time.monotonic() + number / self._rate
        while not self.over:
            time.sleep(max(0.0, at - time.monotonic()))
            try:
                found = self._client.score(next(payments))
                self.failed += not isinstance(found, Answer)
            except Exception:  # noqa: BLE001 - whatever it is, it counts
                self.failed += 1
            self.sent.append((at, time.monotonic()))
            at += period_s


def _ready(dsn: str, environment: str) -> list[Member]:
    with connect(dsn) as connection:
        return [node for node in members(connection, environment) if node.state == "ready"]


def _victim(dsn: str, environment: str, role: str, killed: set[int]) -> Member:
    give_up_at = time.monotonic() + 60.0
    while time.monotonic() < give_up_at:
        alive = [node for node in _ready(dsn, environment) if node.pid not in killed]
        if len(alive) == 4:
            return next(node for node in alive if node.role == role)
        time.sleep(0.1)
    raise TimeoutError("the nodes did not come back")


def run(kills: int, rate: float) -> dict[str, Any]:
    """Run the benchmark; return its figures."""
    faults: list[dict[str, Any]] = []
    killed: set[int] = set()
    with ExitStack() as stack:
        settings, addresses = serve(stack, 2, 2)
        client = stack.enter_context(Client(addresses, deadline=_DEADLINE_S))
        load = _Load(client, rate)
        load.start()
        time.sleep(2.0)
        for number in range(kills):
            role = ("scorer", "preprocessor")[number % 2]
            victim = _victim(settings.dsn, settings.environment, role, killed)
            time.sleep(1.0)
            at = time.monotonic()
            os.kill(victim.pid, signal.SIGKILL)
            killed.add(victim.pid)
            time.sleep(1.5)
            under_way = [done for sent, done in list(load.sent) if sent <= at < done]
            affected_ms = (max(under_way) - at) * 1e3 if under_way else 0.0
            after = [done - sent for sent, done in list(load.sent) if at < sent < at + 1.0]
            faults.append(
                {
                    "role": role,
                    "under_way": len(under_way),
                    "last_ms": round(affected_ms, 1),
                    "slowest_after_ms": round(max(after) * 1e3, 1),
                }
            )
        load.over = True
        load.join(_DEADLINE_S + 5.0)
        counters = client.inspect()["counters"]
    quiet = np.array([done - sent for sent, done in load.sent])
    last = np.array([fault["last_ms"] for fault in faults])
    return {
        "kills": kills,
        "requests": len(load.sent),
        "failed": load.failed,
        "last_ms_median": round(float(np.median(last)), 1),
        "last_ms_worst": round(float(last.max()), 1),
        "slowest_after_ms": max(fault["slowest_after_ms"] for fault in faults),
        "p50_ms": round(float(np.quantile(quiet, 0.5)) * 1e3, 2),
        "p99_ms": round(float(np.quantile(quiet, 0.99)) * 1e3, 2),
        "retried": counters["retried"],
        "hedged": counters["hedged"],
        "faults": faults,
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rate", type=float, default=500.0, help="payments a second")
    arguments = parser.parse_args()
    facts = run(arguments.kills, arguments.rate)
    if arguments.json:
        print(json.dumps(facts))
        return
    for fault in facts["faults"]:
        print(f"{fault['role']:>13}: {fault['under_way']} under way, the last after {fault['last_ms']} ms")
    print(f"{facts['requests']:,} requests, {facts['failed']} failed; retried {facts['retried']}")
    print(f"median {facts['last_ms_median']} ms, worst {facts['last_ms_worst']} ms")
    print(f"slowest of what was sent in the second after a kill: {facts['slowest_after_ms']} ms")


if __name__ == "__main__":
    main()
