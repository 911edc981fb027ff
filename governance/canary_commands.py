"""The sub-commands `canary set`, `canary finish` and `canary stop`; `promote --canary` starts one."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from governance.canary import finish, set_percent, stop
from governance.change_commands import ReasonOption, follow
from governance.promotion import PREPARE_S
from governance.terminal import ByOption, ConfigOption, JsonOption, Locate, connected, say


def canary_app(locate: Locate) -> typer.Typer:
    """Return the sub-commands, which find their database by `locate`."""
    commands = _CanaryCommands(locate)
    app = typer.Typer(help="The release that some keys are given.", no_args_is_help=True)
    app.command(name="set")(commands.set_)
    app.command()(commands.finish)
    app.command()(commands.stop)
    return app


class _CanaryCommands:
    def __init__(self, locate: Locate) -> None:
        self._locate = locate

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
