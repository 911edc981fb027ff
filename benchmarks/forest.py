"""Forest: a large random forest scored by every engine that can load it, in one run.

    python -m benchmarks.forest [--json] [--quick] [--pages file|4k|huge] [--only NAME ...] [--plot FILE]

250 trees of about 100,000 nodes, 100 features, rows that no engine has seen, one thread each, called
from Python. Training takes some minutes once, and some engines need minutes more to load it; what is
trained and converted stays in the cache (~/.cache/scorewire), outside the checkout. --quick takes a
smaller forest and about a minute. Each engine has a process of its own; they are asked in turns, and the
figures are medians over all calls of all turns. --pages: our bundle as the file lies (file), surely in
4 KiB pages (4k), or, as are the other engines' memory allocations, in huge pages (huge).

The limit is the number of cache lines that a row touches times what an independent random one of them
costs on this machine (benchmarks/limit.py).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from benchmarks.cases import FULL, QUICK, Case, prepare
from benchmarks.engine import Engine, EngineError, is_installed
from benchmarks.limit import limit
from benchmarks.peers import PEERS
from benchmarks.report import plot, show
from benchmarks.small import small

TURNS = 5
#: Calls a turn, by rows a call: ours, and the others', which take longer.
_CALLS = {1: (2000, 200), 64: (100, 8), 3000: (3, 1)}
_SLOWEST = {1: 40, 64: 4, 3000: 1}
_COLD_MB = (4, 64)
_CHECKED = 2000
_SINGLE_CHECKED = 200
_SINGLE_ONLY = "C fast path"


def load(
    names: list[str], case: Case, pages: str, progress: Progress
) -> tuple[dict[str, Engine], dict[str, str]]:
    """Prepare what each engine reads, and start them one after the other; return them and who failed, why."""
    task = progress.add_task("loading", total=len(names))
    engines, failed = {}, {}
    for name in names:
        progress.update(task, description=f"loading {name}")
        if not is_installed(name):
            failed[name] = "not installed (pip install -e '.[bench]')"
            continue
        prepare(case, PEERS[name].suffix)
        try:
            engines[name] = Engine(name, case, pages)
        except EngineError as error:
            failed[name] = str(error)
        progress.advance(task)
    return engines, failed


def measure(engines: dict[str, Engine], progress: Progress) -> dict[str, dict[str, Any]]:
    """Time all columns in turns; then cold rows, and the distance of scores from scikit-learn's."""
    columns = {column: engine for engine in engines.values() for column in engine.loaded["columns"]}
    times: dict[tuple[str, int], list[NDArray[np.float64]]] = {}
    task = progress.add_task("measuring", total=TURNS * len(columns) * len(_CALLS))
    for turn in range(TURNS):
        for column, engine in columns.items():
            for batch, (ours, theirs) in _CALLS.items():
                progress.advance(task)
                if batch > 1 and column.endswith(_SINGLE_ONLY):
                    continue
                calls = ours if column == "scorewire" else theirs
                if column == "scikit-learn" and batch == 1:
                    calls = _SLOWEST[batch]
                first = turn * calls
                taken = engine.ask("time", column=column, batch=batch, calls=calls, first=first)
                times.setdefault((column, batch), []).append(taken)
    found: dict[str, dict[str, Any]] = {column: {} for column in columns}
    for (column, batch), taken in times.items():
        every = np.concatenate(taken)
        found[column][f"us_row_{batch}"] = round(float(np.median(every)), 2)
        if batch == 1:
            found[column]["us_row_1_p99"] = round(float(np.quantile(every, 0.99)), 2)
    for column, engine in columns.items():
        found[column] |= {key: round(engine.loaded[key], 3) for key in ("load_s", "bytes")}
        if column in {"scorewire", "lightgbm C fast path"}:
            for megabytes in _COLD_MB:
                cold = engine.ask("cold", column=column, megabytes=megabytes, calls=200)
                found[column][f"us_row_cold_{megabytes}mb"] = round(float(np.median(cold)), 2)
    _compare(columns, found)
    return found


def _compare(columns: dict[str, Engine], found: dict[str, dict[str, Any]]) -> None:
    """Note the largest distance of each column's scores from scikit-learn's."""
    if "scikit-learn" not in columns:
        return
    expected = columns["scikit-learn"].ask("scores", column="scikit-learn", count=_CHECKED, single=False)
    for column, engine in columns.items():
        single = column.endswith(_SINGLE_ONLY)
        count = _SINGLE_CHECKED if single else _CHECKED
        scores = engine.ask("scores", column=column, count=count, single=single)
        found[column]["max_error"] = float(np.abs(scores - expected[:count]).max())


def threads(engine: Engine, batch: int) -> float:
    """Return how many times the rows two threads score, of one, with so many rows a call."""
    ratios = []
    for _ in range(3):
        one = engine.ask("threads", column="scorewire", threads=1, batch=batch, seconds=1.0)
        two = engine.ask("threads", column="scorewire", threads=2, batch=batch, seconds=1.0)
        ratios.append(two / one)
    return round(float(np.median(ratios)), 2)


def run(case: Case, pages: str, names: list[str]) -> dict[str, Any]:
    """Run the benchmark and return all of its figures."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        engines, failed = load(names, case, pages, progress)
        try:
            figures = measure(engines, progress)
            machine_limit = limit(case, pages)
            ratios = {batch: threads(engines["scorewire"], batch) for batch in (64, 1)}
        finally:
            for engine in engines.values():
                engine.close()
    ours = figures["scorewire"]["us_row_1"]
    return {
        "case": {"trees": case.trees, "training_rows": case.rows, "pages": pages},
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
        },
        "engines": figures,
        "failed": failed,
        "limit": {**machine_limit, "of_limit": round(ours / machine_limit["limit_us"], 2)},
        "threads_2_ratio": ratios[64],
        "threads_2_ratio_row_1": ratios[1],
        "small": small(),
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="a smaller forest, in about a minute")
    parser.add_argument("--pages", choices=["file", "4k", "huge"], default="file")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--plot", type=Path, help="draw a picture into this file (.svg, .png)")
    arguments = parser.parse_args()
    names = list(dict.fromkeys(["scorewire", *arguments.only]))
    facts = run(QUICK if arguments.quick else FULL, arguments.pages, names)
    if arguments.plot:
        plot(facts, arguments.plot)
    if arguments.json:
        json.dump(facts, sys.stdout)
        print()
    else:
        show(facts)


if __name__ == "__main__":
    main()
