"""The sub-command `top`."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from actors.config_option import settings_or_exit
from actors.top.look import Look, Looker
from actors.top.screen import Screen
from actors.top.view import View, compare, rounded
from governance.terminal import ConfigOption, to_json


def top(
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2, max=60)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, show what was between, and end.")] = False,
    svg: Annotated[
        Path | None, typer.Option(help="With --once: draw it into this file.", show_default="the terminal")
    ] = None,
    config: ConfigOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a look, each in a line.")
    ] = False,
) -> None:
    """Show all processes, rates, percentiles, the release, rollouts and shadows, live on the terminal.

    Reads the figures that the processes of this host's `up` and all members show, and the database; works as
    far as it can without either. Percentiles are of the time between two looks, from histograms, within the
    bounds of their buckets. Exit code of --once: 1 if there is no process to show or one does not answer.
    """
    settings = settings_or_exit(config)
    looker, screen, console = Looker(settings), Screen(), Console()
    try:
        before = looker.look()
        if once:
            view, _ = _next(looker, settings.environment, before, every)
            _show(view, screen, console, svg, as_json=as_json)
            raise typer.Exit(0 if view.rows and not view.lost else 1)
        if as_json:
            while True:
                view, before = _next(looker, settings.environment, before, every)
                typer.echo(to_json(rounded(asdict(view))))
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                view, before = _next(looker, settings.environment, before, every)
                live.update(screen.draw(view), refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    finally:
        looker.close()


def _next(looker: Looker, environment: str, before: Look, every: float) -> tuple[View, Look]:
    time.sleep(max(0.0, before.at + every - time.monotonic()))
    now = looker.look()
    return compare(environment, before, now), now


def _show(view: View, screen: Screen, console: Console, svg: Path | None, *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json(rounded(asdict(view))))
    elif svg is None:
        console.print(screen.draw(view))
    else:
        save(view, screen, svg)


def save(view: View, screen: Screen, svg: Path) -> None:
    """Draw a view into an SVG file, which asks nothing of other places: Rich would have fonts fetched."""
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=150, file=nowhere, force_terminal=True)
        console.print(screen.draw(view))
    drawn = console.export_svg(title="run.py top")
    svg.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL), encoding="utf-8")
