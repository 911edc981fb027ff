"""Draws docs/top.svg and docs/dashboard.png from a real system with a real Prometheus.

    python -m benchmarks.pictures [--into docs] [--seconds 90] [--rate 300] [--json]

Payments come at a steady rate through two HAProxies. Meanwhile another model is promoted, a scorer is killed,
and Kafka stands still. The dashboards' own queries are asked.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actors.control import ask
from actors.top.commands import save
from actors.top.look import Looker
from actors.top.screen import Screen
from actors.top.view import compare
from benchmarks.chaos.load import Load
from benchmarks.chaos.world import World, running
from benchmarks.pictures.prometheus import Prometheus, Query, queries
from examples.operations import promote_and_wait
from governance import shadows
from governance.database import connect

#: What is drawn, of which dashboard, in rows of three.
PANELS = (
    ("live", "Answers and errors a second"),
    ("live", "Time of an answer"),
    ("live", "p99 of each stage"),
    ("live", "Asked again"),
    ("live", "Scorers, as preprocessors see them"),
    ("live", "Releases"),
    ("live", "Processors"),
    ("stream", "What waits"),
    ("stream", "Shadows: transactions evaluated a second"),
)
STEP_S = 1.0
_INTERVAL = "5s"
_UNITS: dict[str, tuple[float, str]] = {
    "s": (1e3, "ms"),
    "reqps": (1.0, "a second"),
    "percentunit": (100.0, "%"),
    "bytes": (1e-6, "MB"),
}
_BACK, _PANEL, _TEXT = "#111217", "#181b1f", "#ccccdc"
_COLOURS = ("#73bf69", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#fade2a", "#8ab8ff", "#ffa6b0", "#c0d8ff")


def events(world: World, seconds: float, say: Callable[[str], None]) -> None:
    """Do what the pictures show, in fifths of the time."""
    with connect(world.settings.dsn) as connection:
        shadows.start(
            connection, world.settings.environment, "next", {"model": world.models[2]}, by="pictures"
        )
    time.sleep(seconds / 5)
    say("another model is promoted")
    with connect(world.settings.dsn) as connection:
        features = connection.execute("SELECT digest FROM artifact WHERE kind = 'feature_spec'").fetchone()
    assert features is not None
    promote_and_wait(world.settings, {"features": features["digest"], "model": world.models[1]})
    time.sleep(seconds / 5)
    say("a scorer is killed")
    os.kill(world.host.pids()["scorer-0"], signal.SIGKILL)
    time.sleep(seconds / 5)
    say("Kafka stands still")
    os.kill(world.broker.pid, signal.SIGSTOP)
    time.sleep(seconds / 5)
    os.kill(world.broker.pid, signal.SIGCONT)
    say("Kafka goes on")


def watch(world: World, stop: threading.Event, into: Path) -> None:
    """Look as `top` does until told to stop, and draw the last view."""
    looker, screen = Looker(world.settings), Screen()
    before = looker.look()
    view = compare(world.settings.environment, before, before)
    while not stop.wait(1.0):
        now = looker.look()
        view = compare(world.settings.environment, before, now)
        screen.draw(view)
        before = now
    looker.close()
    save(view, screen, into / "top.svg")


def dashboard(
    prometheus: Prometheus, environment: str, begin: float, end: float, file: Path
) -> dict[str, int]:
    """Draw the panels; return how many series each has."""
    mpl.rcParams.update({"text.color": _TEXT, "axes.labelcolor": _TEXT, "font.size": 8})
    figure = Figure(figsize=(16, 10), facecolor=_BACK, layout="constrained")
    asked = list(queries(environment, _INTERVAL))
    drawn = {}
    for place, (name, title) in enumerate(PANELS):
        axes = figure.add_subplot(3, 3, place + 1)
        lines = [one for one in asked if (one.dashboard, one.panel) == (name, title)]
        drawn[title] = _panel(axes, lines, prometheus, begin, end)
    figure.savefig(file, dpi=80, facecolor=_BACK)
    return drawn


def _panel(axes: Axes, lines: list[Query], prometheus: Prometheus, begin: float, end: float) -> int:
    factor, unit = _UNITS.get(lines[0].unit, (1.0, ""))
    axes.set_facecolor(_PANEL)
    title = lines[0].panel if unit in lines[0].panel else f"{lines[0].panel}, {unit}"
    axes.set_title(title, loc="left", fontsize=9, color=_TEXT)
    count = 0
    for query in lines:
        for labels, points in prometheus.range(query.expression, begin, end, STEP_S):
            at = dates.date2num([datetime.fromtimestamp(when, UTC) for when, _ in points])
            values = [value * factor for _, value in points]
            colour = _COLOURS[count % len(_COLOURS)]
            axes.plot(at, values, lw=1, color=colour, label=_legend(query.legend, labels))
            axes.fill_between(at, values, color=colour, alpha=0.06)
            count += 1
    axes.set_ylim(bottom=0)
    axes.grid(color="#2c3235", lw=0.5)
    axes.tick_params(colors=_TEXT, labelsize=7)
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S"))
    axes.spines[:].set_visible(False)
    if count:
        below = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.08)}
        axes.legend(fontsize=6, frameon=False, ncols=5, labelcolor=_TEXT, **below)
    return count


def _legend(text: str, labels: Any) -> str:
    for name, value in labels.items():
        text = text.replace("{{" + name + "}}", value.partition("@")[0])
    return text


def draw(into: Path, seconds: float, rate: float, say: Callable[[str], None]) -> dict[str, int]:
    """Run it all; return how many series each panel has."""
    with running(say) as world:
        *_, (_, up) = ask(world.settings.logs, "health")
        directory = world.directory / "prometheus"
        directory.mkdir()
        load = Load(world.addresses(), world.payments, deadline=1.0)
        stop = threading.Event()
        with Prometheus(directory, up) as prometheus:
            threads = [
                threading.Thread(target=load.run, args=(rate, stop)),
                threading.Thread(target=watch, args=(world, stop, into)),
            ]
            for thread in threads:
                thread.start()
            time.sleep(5)
            begin = time.time()
            try:
                events(world, seconds, say)
                time.sleep(max(0.0, begin + seconds - time.time()))
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            return dashboard(prometheus, "chaos", begin, begin + seconds, into / "dashboard.png")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=Path("docs"), help="where the pictures go")
    parser.add_argument("--seconds", type=float, default=90.0, help="how long it lasts")
    parser.add_argument("--rate", type=float, default=300.0, help="payments a second")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    drawn = draw(arguments.into, arguments.seconds, arguments.rate, lambda text: print(text, file=sys.stderr))
    empty = [title for title, count in drawn.items() if not count]
    if arguments.json:
        print(json.dumps({"series": drawn, "empty": empty}))
    sys.exit(1 if empty else 0)


if __name__ == "__main__":
    main()
