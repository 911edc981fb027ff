"""The figures of a run, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.chaos.load import Entry

_SHOWN = 10


@dataclass(frozen=True)
class Done:
    """A fault that was done; times are seconds since the load began.

    Attributes:
        name: what.
        at_s: when it began.
        healed_s: when it was healed, or its process was gone.
        full_strength_s: seconds from its begin until nothing was missing any more; None if it took too long.
        note: what came of it.
        worst_ms: the slowest request that was sent from its begin until full strength.
    """

    name: str
    at_s: float
    healed_s: float
    full_strength_s: float | None
    note: str
    worst_ms: float = 0.0


def latencies(history: Sequence[Entry]) -> dict[str, float]:
    """Return percentiles in milliseconds, counted from the intended times."""
    taken = [(entry.done - entry.intended) * 1e3 for entry in history]
    if not taken:
        return dict.fromkeys(("p50_ms", "p99_ms", "p999_ms", "max_ms"), 0.0)
    p50, p99, p999, most = np.quantile(taken, (0.5, 0.99, 0.999, 1.0))
    return {
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "p999_ms": round(float(p999), 2),
        "max_ms": round(float(most), 2),
    }


def with_worst(faults: Sequence[Done], history: Sequence[Entry], began: float) -> list[Done]:
    """Add to each fault the slowest request of its time."""
    sent = np.array([entry.intended - began for entry in history])
    taken = np.array([(entry.done - entry.intended) * 1e3 for entry in history])
    found = []
    for fault in faults:
        end = fault.at_s + (fault.full_strength_s or fault.healed_s - fault.at_s)
        during = taken[(sent >= fault.at_s - 0.1) & (sent <= end)] if len(taken) else taken
        worst = round(float(during.max()), 1) if len(during) else 0.0
        found.append(Done(**{**asdict(fault), "worst_ms": worst}))
    return found


def show(facts: dict[str, Any]) -> None:
    """Print the faults and the figures."""
    console = Console(width=150)
    table = Table(title=f"{facts['faults']} faults in {facts['seconds']:.0f} s, seed {facts['seed']}")
    for title in ("at s", "fault", "full strength after s", "slowest ms", "what came of it"):
        table.add_column(title)
    for fault in facts["each_fault"]:
        strength = fault["full_strength_s"]
        cells = (
            f"{fault['at_s']:.1f}",
            fault["name"],
            "" if strength is None else f"{strength:.1f}",
            f"{fault['worst_ms']:.0f}",
            fault["note"][:60],
        )
        table.add_row(*cells)
    console.print(table)
    console.print(
        f"{facts['requests']} requests at {facts['rate']:.0f} a second: {facts['failed']} failed, "
        f"{facts['wrong']} wrong (not once {facts['not_once']}, scores {facts['wrong_scores']}, releases "
        f"going back {facts['backwards']})"
    )
    for title, figures in (("quiet", facts["quiet"]), ("chaos", facts)):
        console.print(
            f"{title}: p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']}, p99.9 {figures['p999_ms']}, "
            f"max {figures['max_ms']}"
        )
    console.print(f"spent: {facts['spent']}")
    for name, why in facts["skipped"].items():
        console.print(f"without {name}: {why}")
    for line in facts["examples"][:_SHOWN]:
        console.print(f"[red]{line}[/]")
