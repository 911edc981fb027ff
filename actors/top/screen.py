"""How `top` looks: one picture of a view, with a little history."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from actors.top.view import Row, View
from governance.terminal import local_time

#: Views of which the small curves are drawn.
HISTORY: Final = 36
_BARS: Final = " ▁▂▃▄▅▆▇█"
#: Milliseconds below which a unit is used, its share of a millisecond, and its name.
_UNITS: Final = ((1.0, 1e3, "us"), (1e3, 1.0, "ms"), (float("inf"), 1e-3, "s"))
_COLOURS: Final = {"ready": "green", "starting": "yellow", "draining": "yellow", "hung": "red"}
_SETTLED: Final = {"active": "green", "abandoned": "red", "preparing": "yellow", "suspended": "red"}


class Screen:
    """Draws view after view."""

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=HISTORY)
        self._slow: deque[float] = deque(maxlen=HISTORY)

    def draw(self, view: View) -> RenderableType:
        """Return the picture of a view."""
        self._rates.append(view.rate)
        self._slow.append(view.stages["total"].get("p99", 0.0))
        parts = [self._head(view), _stages(view), _processes(view), _governance(view)]
        if view.lost:
            parts.insert(1, _lost(view))
        return Group(*parts)

    def _head(self, view: View) -> RenderableType:
        held = view.held
        release = f"release [bold]{held.release}[/]" if held.release else "no release yet"
        beside = ""
        if held.canary:
            beside = f", canary {held.canary['release']} for {held.canary['percent']:g} % of keys"
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        errors = sum(view.errors.values())
        told = ", ".join(f"{escape(code)} {rate:.1f}" for code, rate in view.errors.items())
        grid.add_row(
            f"[bold]{view.rate:,.0f}[/] answers a second  {_curve(self._rates)}",
            f"p99 [bold]{_ms(view.stages['total'].get('p99'))}[/]  {_curve(self._slow)}",
        )
        grid.add_row(
            f"errors a second: [red]{errors:.1f}[/] ({told})" if errors else "errors a second: 0",
            f"retried {view.retried:.1f}, hedged {view.hedged:.1f}, fallbacks {view.fallbacks:.1f} a second",
        )
        body: RenderableType = grid
        if held.trouble:
            body = Group(grid, Text(f"the database cannot be asked: {held.trouble}", style="red"))
        title = f"Scorewire · {escape(view.environment)} · {release}{beside}"
        return Panel(
            body, title=title, subtitle=f"{datetime.now().astimezone():%H:%M:%S}", title_align="left"
        )


def _stages(view: View) -> RenderableType:
    table = Table(box=None, expand=True, title="Where the time goes", title_justify="left")
    table.add_column("stage")
    for name in ("p50", "p90", "p99", "p99.9"):
        table.add_column(name, justify="right")
    for stage, found in view.stages.items():
        if found:
            table.add_row(stage, *(_ms(found.get(name)) for name in ("p50", "p90", "p99", "p999")))
    return table


def _processes(view: View) -> RenderableType:
    table = Table(box=None, expand=True, title="Processes", title_justify="left")
    table.add_column("node", no_wrap=True)
    table.add_column("state")
    for name in (
        "release",
        "a second",
        "errors",
        "p50",
        "p99",
        "queue",
        "under way",
        "CPU",
        "MB",
        "restarts",
    ):
        table.add_column(name, justify="right")
    table.add_column("note", ratio=1)
    for row in view.rows:
        table.add_row(*_cells(row, view.held.release))
    return table


def _cells(row: Row, current: int | None) -> tuple[str, ...]:
    colour = _COLOURS.get(row.state, "red")
    release = "" if row.release is None else str(row.release)
    if release and row.release != current:
        release = f"[yellow]{release}[/]"
    serves = row.role in ("preprocessor", "scorer", "gateway")
    return (
        escape(row.node),
        f"[{colour}]{row.state}[/]",
        release,
        f"{row.rate:,.0f}" if row.role not in ("haproxy", "up") else "",
        (f"[red]{row.errors:.1f}[/]" if row.errors else "0") if serves else "",
        _ms(row.p50_ms),
        _ms(row.p99_ms),
        str(row.queue) if serves else "",
        str(row.in_flight) if serves else "",
        f"{row.cpu:.0%}",
        f"{row.memory_mb:,.0f}",
        f"[yellow]{row.restarts}[/]" if row.restarts else "0",
        escape(row.note),
    )


def _governance(view: View) -> RenderableType:
    table = Table(box=None, expand=True, title="Rollouts and shadows", title_justify="left")
    for name in ("what", "state", "since"):
        table.add_column(name, no_wrap=True)
    table.add_column("", ratio=1)
    for one in view.held.rollouts:
        waits = f"waits for {', '.join(one['waits_for'])}" if one["waits_for"] else ""
        canary = f" to {one['percent']:g} % of keys" if one["percent"] is not None else ""
        colour = _SETTLED.get(one["state"], "white")
        what, since = f"release {one['release']}{canary}", local_time(one["started_at"])
        more = one["reason"] or (waits if one["state"] == "preparing" else "")
        table.add_row(what, f"[{colour}]{one['state']}[/]", since, escape(more))
    for one in view.held.shadows:
        colour = _SETTLED.get(one["state"], "green")
        table.add_row(
            f"shadow {escape(one['name'])}", f"[{colour}]{one['state']}[/]", "", escape(one["reason"])
        )
    for node, silent_s in view.held.silent.items():
        table.add_row(
            escape(node), "[red]silent[/]", f"{silent_s:.0f} s", "dead, or cut off from the database"
        )
    for node in view.held.hidden:
        table.add_row(escape(node), "", "", "shows its figures to its own host alone (host = 127.0.0.1)")
    return table


def _lost(view: View) -> RenderableType:
    told = "\n".join(f"{endpoint}: {why}" for endpoint, why in view.lost.items())
    return Panel(escape(told), title="do not answer", border_style="red", title_align="left")


def _curve(values: deque[float]) -> str:
    most = max(values, default=0.0)
    if not most:
        return ""
    return "[cyan]" + "".join(_BARS[round(value / most * (len(_BARS) - 1))] for value in values) + "[/]"


def _ms(ms: float | None) -> str:
    if ms is None:
        return ""
    for limit, factor, unit in _UNITS:
        if ms < limit:
            return f"{ms * factor:.0f} {unit}" if factor > 1 else f"{ms * factor:.1f} {unit}"
    return ""
