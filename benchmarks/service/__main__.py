"""Services under load: Scorewire beside other ways to serve the same forest.

    python -m benchmarks.service [--json] [--only NAME...] [--cases big small] [--results FILE] [--docs]

Open loop: transactions of 100 named numbers are sent at times of a Poisson process, whatever becomes of
those before, and each latency counts from the time at which its transaction was to be sent. Each service has
one half of the processor's cores to itself, and one worker a core; the callers have the other half. The
highest rate is the one at which all are answered, 99 of 100 within 10 ms: found by doubling, then by halving
the gap, and held for longer at last; a rate that is sure to miss is given up at once. All of it takes about
25 minutes once forests and peers are there: the forests, the same in each peer's own format, and environments
for those peers whose libraries are not here are made on demand (`--prepare` makes them and measures nothing),
in $SCOREWIRE_CACHE or ~/.cache/scorewire. `--results` keeps what was measured, to make the table in pieces.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cases import FULL, SMALL, Case
from benchmarks.service.environments import MissingPeerError
from benchmarks.service.report import document, plot, show
from benchmarks.service.search import figures
from benchmarks.service.services import NAMES, ServiceError, prepare_service, running

CASES = {"big": FULL, "small": SMALL, "tiny": Case(10, 2_000, 31)}
_DOCS = Path(__file__).parents[2] / "docs"


def run(
    names: list[str], cases: list[str], seconds: float, long_s: float
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Measure services one after another; give case, service, and its figures or why there are none."""
    cores = sorted(os.sched_getaffinity(0))
    half = max(1, len(cores) // 2)
    serves_on, calls_on = set(cores[:half]), set(cores[half:] or cores)
    facts = {"cores": half, "machine": _machine()}
    for case in cases:
        for name in names:
            load, began = os.getloadavg()[0], time.monotonic()
            try:
                with running(name, CASES[case], serves_on, calls_on) as service:
                    row = figures(service, seconds, long_s)
            except (ServiceError, MissingPeerError) as error:
                row = {"failed": str(error)}
            took_s = round(time.monotonic() - began, 1)
            yield case, name, {**row, "load": round(load, 2), "took_s": took_s, **facts}


def made_ready(name: str, case: Case) -> str:
    """Make what a service needs; return why that cannot be, if so."""
    try:
        prepare_service(name, case)
    except MissingPeerError as error:
        return str(error)
    return ""


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    system = f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    return f"{model or platform.machine()}, {system}"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--only", nargs="*", default=NAMES, choices=NAMES, metavar="NAME", help="; ".join(NAMES)
    )
    parser.add_argument("--cases", nargs="+", default=["big", "small"], choices=CASES)
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds for each rate that is tried")
    parser.add_argument("--long", type=float, default=6.0, help="seconds that the highest rate must hold")
    parser.add_argument("--results", type=Path, help="a file that keeps what was measured, and what comes")
    parser.add_argument("--docs", action="store_true", help="write the table and the plot into docs/")
    parser.add_argument("--prepare", action="store_true", help="make forests and environments, and end")
    arguments = parser.parse_args()
    if arguments.prepare:
        for case, name in itertools.product(arguments.cases, arguments.only):
            print(f"{case}, {name}: {made_ready(name, CASES[case]) or 'ready'}", file=sys.stderr)
        return
    results: dict[str, Any] = {}
    if arguments.results and arguments.results.exists():
        results = json.loads(arguments.results.read_text())
    for case, name, row in run(list(arguments.only), arguments.cases, arguments.seconds, arguments.long):
        results.setdefault(case, {})[name] = row
        print(f"{case}, {name}: {row.get('rate', row.get('failed'))} ({row['took_s']} s)", file=sys.stderr)
        if arguments.results:
            arguments.results.write_text(json.dumps(results, indent=1))
    if arguments.docs:
        document(results, _DOCS / "performance.md")
        plot(results, _DOCS / "service.svg")
    if arguments.json:
        print(json.dumps(results))
    else:
        show(results)


if __name__ == "__main__":
    main()
