"""The table and the picture of benchmarks.forest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


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
        texts = ["" if value is None else f"{value:,}" for value in shown[:-1]]
        texts.append(f"{row['max_error']:.0e}" if row.get("max_error") else str(row.get("max_error", "")))
        table.add_row(name, *texts, f"{row['us_row_1'] / ours:.1f}")
    console = Console(width=160)
    console.print(table)
    bound = facts["limit"]
    lines = bound["lines_of_trees"] + bound["lines_of_leaves"]
    console.print(
        f"limit: {lines:,.0f} lines a row x {bound['random_line_ns']} ns = {bound['limit_us']} us; "
        f"scorewire takes {bound['of_limit']} times that. "
        f"Two threads score {facts['threads_2_ratio']} times the rows of one "
        f"({facts['threads_2_ratio_row_1']} where each call has a single row)."
    )
    small = facts["small"]
    console.print(
        f"A small model ({small['trees']} trees of {small['leaves']} leaves): {small['scorewire']} us a "
        f"call, {small['overhead']} of them overhead (one tree of one feature); "
        f"lightgbm {small['lightgbm']}, its C fast path {small['lightgbm C fast path']}."
    )
    for name, reason in facts["failed"].items():
        console.print(f"without {name}: {reason}")


def plot(facts: dict[str, Any], file: Path) -> None:
    """Draw one row's time and the memory of each engine, on logarithmic scales."""
    import matplotlib as mpl  # noqa: PLC0415 - only a picture needs it

    mpl.use("Agg")
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = sorted(facts["engines"].items(), key=lambda item: -item[1]["us_row_1"])
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.5 * len(rows) + 1.2), sharey=True, layout="constrained")
    for axis, key, scale, title in (
        (axes[0], "us_row_1", 1.0, "microseconds for one row"),
        (axes[1], "bytes", 1e6, "MB resident"),
    ):
        values = [row[key] / scale for _, row in rows]
        colours = ["#c0392b" if name == "scorewire" else "#7f8c8d" for name, _ in rows]
        # A logarithmic axis has no zero: bars begin at the power of ten below the shortest.
        low = 10 ** np.floor(np.log10(min(values)))
        names = [name for name, _ in rows]
        bars = axis.barh(names, [value - low for value in values], left=low, color=colours)
        texts = [f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in values]
        axis.bar_label(bars, texts, padding=3)
        axis.set_xscale("log")
        axis.set_xlim(low, max(values) * 4)
        axis.set_title(title)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)
