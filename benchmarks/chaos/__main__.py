"""Chaos: steady load at half the capacity while everything is killed, stopped, filled and replaced.

    python -m benchmarks.chaos --minutes 10 --seed 1 [--json] [--rate R] [--deadline 5]

The load is an open loop, and latency counts from the time at which a request was to be sent, so that a stall
is not hidden. Each fault waits for the full strength after the last one. The exit code is 1 if a request
failed, or an answer was wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from benchmarks.chaos.checks import activations, failed, gone_backwards, not_answered_once, wrong_scores
from benchmarks.chaos.faults import Fault, catalogue, deck
from benchmarks.chaos.load import Load
from benchmarks.chaos.report import Done, latencies, show, with_worst
from benchmarks.chaos.world import World, running
from governance.database import connect
from governance.errors import GovernanceError
from haproxy.errors import HaproxyError
from shadow.errors import ShadowError

#: Seconds of the closed loop that finds the capacity, and the shares of a run that are quiet at its begin.
CAPACITY_S, QUIET = 3.0, 0.15
#: Seconds until full strength that are waited for; then the next fault comes all the same.
STRENGTH_S = 30.0
_PAUSE_S = (0.2, 0.8)


def main() -> None:
    """Run it and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long the load lasts")
    parser.add_argument("--seed", type=int, default=1, help="of the order and the choice of faults")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--rate", type=float, help="requests a second (default: half the capacity)")
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds that a request may take")
    parser.add_argument("--only", nargs="+", help="faults whose names contain one of these")
    options = parser.parse_args()
    with running(_tell) as world:
        facts = bench(world, options)
    if options.json:
        print(json.dumps(facts))
    else:
        show(facts)
    sys.exit(1 if facts["failed"] or facts["wrong"] else 0)


def bench(world: World, options: argparse.Namespace) -> dict[str, Any]:
    """Load the system, do the faults, and judge the history."""
    load = Load(world.addresses(), world.payments, options.deadline)
    rate = options.rate or load.capacity(min(CAPACITY_S, options.minutes * 6)) / 2
    faults, skipped = catalogue(world)
    if options.only:
        faults = {name: one for name, one in faults.items() if any(word in name for word in options.only)}
    stop = threading.Event()
    began = time.time()
    thread = threading.Thread(target=load.run, args=(rate, stop), name="load")
    thread.start()
    try:
        time.sleep(QUIET * options.minutes * 60)
        chaos_at = time.time()
        done = _rage(world, faults, random.Random(options.seed), began, began + options.minutes * 60)
        world.wait_for_full_strength(STRENGTH_S)
    finally:
        stop.set()
        thread.join()
    facts = _judge(world, load, done, began, chaos_at)
    return {"seed": options.seed, "rate": rate, **facts, "skipped": skipped}


def _rage(world: World, faults: dict[str, Fault], rng: random.Random, began: float, end: float) -> list[Done]:
    deal = deck(faults, rng)
    done = []
    while time.time() < end:
        name, at = deal(), time.time()
        try:
            note = faults[name](world, rng)
        except (GovernanceError, HaproxyError, ShadowError, OSError) as error:
            _tell(f"{at - began:6.1f} s  {name} could not be done: {error}")
            world.wait_for_full_strength(STRENGTH_S)
            continue
        healed = time.time()
        took = world.wait_for_full_strength(STRENGTH_S)
        strength = None if took is None else round(time.time() - at, 2)
        done.append(Done(name, round(at - began, 2), round(healed - began, 2), strength, note))
        _tell(f"{at - began:6.1f} s  {name}: {note}; full strength after {strength} s {world.weakness()}")
        time.sleep(rng.uniform(*_PAUSE_S))
    return done


def _judge(world: World, load: Load, done: list[Done], began: float, chaos_at: float) -> dict[str, Any]:
    with connect(world.settings.dsn) as connection:
        found = activations(connection, world.settings.environment)
    history = load.history
    lost, not_once = failed(history), not_answered_once(history)
    scores, backwards = wrong_scores(history, world.expected, found), gone_backwards(history, found)
    chaos = [entry for entry in history if entry.intended >= chaos_at]
    return {
        "requests": len(history),
        "failed": len(lost),
        "wrong": len(not_once) + len(scores) + len(backwards),
        "faults": len(done),
        **latencies(chaos),
        "quiet": latencies([entry for entry in history if entry.intended < chaos_at]),
        "seconds": round(time.time() - began, 1),
        "not_once": len(not_once),
        "wrong_scores": len(scores),
        "backwards": len(backwards),
        "releases": len(found),
        "spent": load.counters,
        "restarts": dict(world.host.restarts()),
        "each_fault": [asdict(fault) for fault in with_worst(done, history, began)],
        "examples": [
            *(f"failed at {entry.intended - began:.2f} s: {entry.error}" for entry in lost[:20]),
            *(f"wrong score: {entry}" for entry in scores[:5]),
            *(f"release {entry.release} at {entry.sent - began:.2f} s again" for entry in backwards[:20]),
        ],
    }


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
