"""Services under load: Scorewire beside other ways to serve the same forest.

    python -m benchmarks.service [--json] [--only NAME...] [--cases big small] [--results FILE] [--docs]

Open loop: transactions of 100 named numbers are sent at times of a Poisson process, whatever becomes of
those before, and each latency counts from the time at which its transaction was to be sent. Each service has
one half of the processor's cores to itself, and one worker a core; the callers have the other half. The
highest rate is the one at which all are answered, 99 of 100 within 10 ms: found by doubling, then by halving
the gap, and held for longer at last. Peers whose libraries are not here get an environment of their own
(~/.cache/scorewire/benchmarks). `--results` keeps what was measured, so that the table can be made in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cases import FULL, SMALL, Case
from benchmarks.service.environments import MissingPeerError
from benchmarks.service.report import document, plot, show
from benchmarks.service.search import figures
from benchmarks.service.services import NAMES, ServiceError, running

CASES = {"big": FULL, "small": SMALL, "tiny": Case(10, 2_000, 31)}
_DOCS = Path(__file__).parents[2] / "docs"


def run(
    names: list[str], cases: list[str], seconds: float, long_s: float
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Measure services one after another; give case, service, and its figures or why there are none."""
    cores = sorted(os.sched_getaffinity(0))
    half = max(1, len(cores) // 2)
    serves_on, calls_on = set(cores[:half]), set(cores[half:] or cores)
    for case in cases:
        for name in names:
            load = os.getloadavg()[0]
            try:
                with running(name, CASES[case], serves_on, calls_on) as service:
                    row = figures(service, seconds, long_s)
            except (ServiceError, MissingPeerError) as error:
                row = {"failed": str(error)}
            yield case, name, {**row, "load": round(load, 2), "cores": half, "machine": _machine()}


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
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds for each rate that is tried")
    parser.add_argument("--long", type=float, default=6.0, help="seconds that the highest rate must hold")
    parser.add_argument("--results", type=Path, help="a file that keeps what was measured, and what comes")
    parser.add_argument("--docs", action="store_true", help="write the table and the plot into docs/")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    if arguments.results and arguments.results.exists():
        results = json.loads(arguments.results.read_text())
    for case, name, row in run(list(arguments.only), arguments.cases, arguments.seconds, arguments.long):
        results.setdefault(case, {})[name] = row
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
