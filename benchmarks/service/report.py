"""The table and the picture of the service benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_OURS = "Scorewire"
_BEGIN, _END = "<!-- services -->", "<!-- /services -->"
_COLUMNS = (
    "service",
    "a second at p99 < 10 ms",
    "x",
    "p50 ms there",
    "p99",
    "p99.9",
    "p50 ms at 50 a second",
    "p99",
    "CPU s a thousand",
    "MB",
)
_TITLES = {
    "big": "Big forest: 250 trees, 25.4 million nodes",
    "small": "Small model: 100 trees of 31 leaves",
    "tiny": "Tiny model",
}


def _rows(services: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Return the cells of each service, the fastest first; `x` compares with the best peer."""
    peers = [row["rate"] for name, row in services.items() if "rate" in row and not name.startswith(_OURS)]
    best_peer = max(peers, default=0)
    for name, row in sorted(services.items(), key=lambda item: -item[1].get("rate", -1)):
        if "rate" not in row:
            yield (name, "not measured", *[""] * (len(_COLUMNS) - 2))
            continue
        best, light = row["best"], row["light"]
        there = [f"{best[key]:.2f}" for key in ("p50_ms", "p99_ms", "p999_ms")] if best else [""] * 3
        yield (
            name,
            f"{row['rate']:,}" if row["rate"] else "none",
            f"{row['rate'] / best_peer:.2f}" if best_peer and row["rate"] else "",
            *there,
            f"{light['p50_ms']:.2f}",
            f"{light['p99_ms']:.2f}",
            f"{(best or light)['cpu_s']:.2f}",
            f"{row['mb']:,}",
        )


def show(results: Mapping[str, Any]) -> None:
    """Print the tables."""
    console = Console(width=150)
    for case, services in results.items():
        table = Table(title=_TITLES[case])
        for number, name in enumerate(_COLUMNS):
            table.add_column(name, justify="right" if number else "left")
        for cells in _rows(services):
            table.add_row(*cells)
        console.print(table)
        for name, row in services.items():
            if "failed" in row:
                console.print(f"without {name}: {row['failed'][:300]}")


def document(results: Mapping[str, Any], page: Path) -> None:
    """Write the tables into a page, between its two marks."""
    lines = []
    for case, services in results.items():
        lines += [f"**{_TITLES[case]}**", "", f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
        for name, *cells in _rows(services):
            shown = f"**{name}**" if name.startswith(_OURS) else name
            lines.append(f"| {' | '.join((shown, *cells))} |")
        lines.append("")
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    page.write_text(f"{before}{_BEGIN}\n" + "\n".join(lines) + f"{_END}{after}", encoding="utf-8")


def plot(results: Mapping[str, Any], file: Path) -> None:
    """Draw the 99th percentile against the rate that was offered, of each service."""
    import matplotlib as mpl  # noqa: PLC0415 - only a picture needs it

    mpl.use("Agg")
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(
        1, len(results), figsize=(6 * len(results), 4.6), squeeze=False, layout="constrained"
    )
    for axis, (case, services) in zip(axes[0], results.items(), strict=True):
        for name, row in services.items():
            points = sorted(
                (one["rate"], one["p99_ms"]) for one in row.get("tried", ()) if one["answered"] > 0
            )
            ours = name.startswith(_OURS)
            axis.plot(
                *zip(*points, strict=True) if points else ([], []),
                "o-",
                markersize=3,
                linewidth=2.5 if ours else 1.2,
                label=name,
                **({"color": "#c0392b"} if name == f"{_OURS}, ZeroMQ" else {}),
            )
        axis.axhline(10, color="#7f8c8d", linestyle=":")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(_TITLES[case])
        axis.set_xlabel("offered a second")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("99th percentile, ms")
    axes[0][0].legend(fontsize=8)
    figure.savefig(file)
    plt.close(figure)
