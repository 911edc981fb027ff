"""Forest: a large random forest scored by every engine that can load it, in one run.

    python -m benchmarks.forest [--json] [--quick] [--pages file|4k|huge] [--only NAME ...] [--plot FILE]

250 trees of about 100,000 nodes, 100 features, rows that no engine has seen, one thread each, called from
Python. Training takes some minutes once, and some engines need minutes more to load it; what is trained and
converted stays in the cache (~/.cache/scorewire), outside the checkout. --quick takes a smaller forest and
about a minute. Each engine has a process of its own; they are asked in turns, and the figures are medians over
all calls of all turns. --pages: our bundle as the file lies (file), surely in 4 KiB pages (4k), or, as are the
other engines' memory allocations, in huge pages (huge).

The limit is the number of cache lines that a row touches times what an independent random one of them costs on
this machine (benchmarks/limit.py).
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
from rich.table import Table

from benchmarks.cases import FULL, QUICK, Case, prepare
from benchmarks.engine import Engine, is_installed
from benchmarks.limit import limit
from benchmarks.peers import PEERS

TURNS = 5
#: Calls a turn, by rows a call: ours, and the others', which take longer.
_CALLS = {1: (2000, 200), 64: (100, 8), 3000: (3, 1)}
_SLOWEST = {1: 40, 64: 4, 3000: 1}
_COLD_MB = (4, 64)
_CHECKED = 2000
_SINGLE_CHECKED = 200
_SINGLE_ONLY = "C fast path"


def load(names: list[str], case: Case, pages: str, progress: Progress) -> dict[str, Engine]:
    """Prepare what each engine reads, and start them one after the other."""
    task = progress.add_task("loading", total=len(names))
    engines = {}
    for name in names:
        progress.update(task, description=f"loading {name}")
        prepare(case, PEERS[name].suffix)
        engines[name] = Engine(name, case, pages)
        progress.advance(task)
    return engines


def measure(engines: dict[str, Engine], progress: Progress) -> dict[str, dict[str, Any]]:
    """Time all columns of all engines in turns; then cold rows, and how far scores are from scikit-learn's."""
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


def threads(engine: Engine) -> float:
    """Return how many times the rows two threads score, of one."""
    ratios = []
    for _ in range(3):
        one = engine.ask("threads", column="scorewire", threads=1, seconds=1.0)
        two = engine.ask("threads", column="scorewire", threads=2, seconds=1.0)
        ratios.append(two / one)
    return round(float(np.median(ratios)), 2)


def run(case: Case, pages: str, names: list[str]) -> dict[str, Any]:
    """Run the benchmark and return all of its figures."""
    absent = [name for name in names if not is_installed(name)]
    present = [name for name in names if name not in absent]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        engines = load(present, case, pages, progress)
        try:
            figures = measure(engines, progress)
            machine_limit = limit(case, pages)
            ratio = threads(engines["scorewire"])
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
        "absent": absent,
        "limit": {**machine_limit, "of_limit": round(ours / machine_limit["limit_us"], 2)},
        "threads_2_ratio": ratio,
    }


def show(facts: dict[str, Any]) -> None:
    """Print the table."""
    figures = facts["engines"]
    table = Table(title=f"{facts['case']['trees']} trees, pages: {facts['case']['pages']}")
    columns = {
        "us_row_1": "us, one row",
        "us_row_1_p99": "p99",
        "us_row_64": "64 rows",
        "us_row_3000": "3000 rows",
        "us_row_cold_4mb": "cold 4 MB",
        "us_row_cold_64mb": "cold 64 MB",
        "load_s": "load s",
        "bytes": "MB",
        "max_error": "error",
    }
    table.add_column("engine")
    for title in (*columns.values(), "x"):
        table.add_column(title, justify="right")
    ours = figures["scorewire"]["us_row_1"]
    for name, row in sorted(figures.items(), key=lambda item: item[1]["us_row_1"]):
        shown = [row.get(key) for key in columns]
        shown[-2] = round(row["bytes"] / 1e6, 1)
        texts = ["" if value is None else f"{value:,}" for value in shown]
        table.add_row(name, *texts, f"{row['us_row_1'] / ours:.1f}")
    console = Console(width=160)
    console.print(table)
    bound = facts["limit"]
    lines = bound["lines_of_trees"] + bound["lines_of_leaves"]
    console.print(
        f"limit: {lines:,.0f} lines a row x {bound['random_line_ns']} ns = {bound['limit_us']} us; "
        f"scorewire takes {bound['of_limit']} times that. "
        f"Two threads score {facts['threads_2_ratio']} times the rows of one."
    )
    if facts["absent"]:
        console.print(f"not installed: {', '.join(facts['absent'])} (pip install -e '.[bench]')")


def plot(facts: dict[str, Any], file: Path) -> None:
    """Draw one row's time and the memory of each engine, on logarithmic scales."""
    import matplotlib as mpl  # noqa: PLC0415 - only a picture needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = sorted(facts["engines"].items(), key=lambda item: -item[1]["us_row_1"])
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.5 * len(rows) + 1.2), sharey=True, layout="constrained")
    for axis, key, scale, title in (
        (axes[0], "us_row_1", 1.0, "microseconds for one row"),
        (axes[1], "bytes", 1e6, "MB resident"),
    ):
        values = [row[key] / scale for _, row in rows]
        colours = ["#c0392b" if name == "scorewire" else "#7f8c8d" for name, _ in rows]
        bars = axis.barh([name for name, _ in rows], values, color=colours)
        axis.bar_label(
            bars, [f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in values], padding=3
        )
        axis.set_xscale("log")
        axis.set_xlim(right=max(values) * 4)
        axis.set_title(title)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


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
