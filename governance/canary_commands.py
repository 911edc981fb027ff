"""The sub-commands `canary status`, `set`, `finish` and `stop`; `promote --canary` starts one."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from governance.canary import finish, set_percent, stop
from governance.canary_steps import steps
from governance.canary_watch import Standing, standing
from governance.change_commands import ReasonOption, follow
from governance.promotion import PREPARE_S
from governance.terminal import (
    ByOption,
    ConfigOption,
    JsonOption,
    Locate,
    connected,
    local_time,
    say,
    table,
    to_json,
)


def canary_app(locate: Locate) -> typer.Typer:
    """Return the sub-commands, which find their database by `locate`."""
    commands = _CanaryCommands(locate)
    app = typer.Typer(help="The release that some keys are given.", no_args_is_help=True)
    app.command()(commands.status)
    app.command(name="set")(commands.set_)
    app.command()(commands.finish)
    app.command()(commands.stop)
    return app


class _CanaryCommands:
    def __init__(self, locate: Locate) -> None:
        self._locate = locate

    def status(self, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Show the canary beside the champion: errors, time, scores, what its gates say, and what follows."""
        with connected(self._locate, config) as (connection, environment):
            found = standing(connection, environment)
            passed = steps(connection, environment)
        if as_json:
            typer.echo(
                to_json({"environment": environment, "canary": found and asdict(found), "steps": passed})
            )
            return
        if found is None:
            Console().print(f"{environment} has no canary")
        else:
            _show(found)
        rows = [
            (
                *(str(one["number"]), str(one["step"]), f"{one['percent']:g} %", local_time(one["since"])),
                *(local_time(one["until"]) if one["until"] else "now", one["outcome"]),
            )
            for one in passed
        ]
        table("Steps", ("release", "step", "keys", "since", "until", "outcome"), rows)

    def set_(
        self,
        percent: Annotated[float, typer.Argument(help="Of a hundred keys; 0 for none.")],
        reason: ReasonOption = "",
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Give the canary to more keys, or to fewer. Keys that have it keep it when it grows."""
        with connected(self._locate, config) as (connection, environment):
            set_percent(connection, environment, percent, by=by or getpass.getuser(), reason=reason)
        sentence = f"the canary of {environment} has {percent:g} % of keys"
        say({"environment": environment, "percent": percent}, sentence, as_json=as_json)

    def finish(
        self,
        reason: ReasonOption = "",
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make the canary the current release, for all keys."""
        with connected(self._locate, config) as (connection, environment):
            by = by or getpass.getuser()
            rollout = finish(connection, environment, by=by, reason=reason, prepare_s=PREPARE_S)
            follow(connection, rollout, as_json=as_json)

    def stop(
        self,
        reason: ReasonOption,
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Give the canary to nobody any more: all keys are the current release's again."""
        with connected(self._locate, config) as (connection, environment):
            number = stop(connection, environment, by=by or getpass.getuser(), reason=reason)
        facts = {"environment": environment, "stopped": number}
        say(facts, f"release {number} is no canary of {environment} any more", as_json=as_json)


def _show(found: Standing) -> None:
    whose = f"{found.percent:g} % of keys ({found.key or 'the id'})"
    Console().print(f"release {found.release} has {whose} since {local_time(found.since)}")
    Console().print(escape(_what_follows(found)), soft_wrap=True)
    sides = (found.figures.canary, found.figures.champion)
    figures = found.figures
    rows = [
        ("transactions", *(f"{side.requests}" for side in sides), ""),
        ("errors", *(f"{side.error_rate:.2%}" for side in sides), f"{figures.error_rate_above:+.2%}"),
        *(
            (f"  {kind}", *(str(side.errors.get(kind, 0)) for side in sides), "")
            for kind in sorted({*sides[0].errors, *sides[1].errors})
        ),
        ("median ms", *(_number(side.p50_us, 1e3) for side in sides), ""),
        (
            "99th percentile ms",
            *(_number(side.p99_us, 1e3) for side in sides),
            _number(figures.latency_ratio),
        ),
        ("median score", *(_number(side.p50_score) for side in sides), _number(figures.psi, name="PSI ")),
    ]
    table(f"Counted by {figures.nodes} nodes", ("", "canary", "champion", "compared"), rows)
    if figures.keyless:
        key = found.key or "id"
        Console().print(f"{figures.keyless} transactions without {key} are the champion's and not counted")
    if found.judgements:
        gates = [(one.gate, one.state, one.detail) for one in found.judgements]
        table("Gates", ("gate", "state", "figures"), gates)


def _what_follows(found: Standing) -> str:
    if found.due is None:
        return "it grows, and ends, by hand" if not found.plan.schedule else "nothing follows by itself"
    what = "it becomes current" if found.follows is None else f"it grows to {found.follows:g} %"
    held = f", once this allows it: {found.held_up}" if found.held_up else ""
    return f"{what} from {local_time(found.due)}{held}"


def _number(value: float | None, divisor: float = 1.0, *, name: str = "") -> str:
    return "-" if value is None else f"{name}{value / divisor:.3f}"
