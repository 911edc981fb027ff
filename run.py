#!/usr/bin/env python3
"""The front door of Scorewire: each room brings its own sub-commands."""

from __future__ import annotations

import typer

import actors.balancer
import actors.code.commands
import actors.commands
import actors.config_commands
import actors.config_option
import actors.doctor.commands
import actors.roles
import actors.top.commands
import actors.trace_commands
import examples.demo
import governance.commands
import haproxy.commands
import models.commands
import shadow.broker_commands
import shadow.commands
import shadow.doctor
import shadow.roles

app = typer.Typer(
    name="run.py",
    cls=actors.config_option.FrontDoor,
    help="Scorewire scores live transactions with very large tree models, and never stops.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command(name="demo")(examples.demo.demo)
_roles = actors.roles.LIVE_ROLES | actors.balancer.BALANCER_ROLES | shadow.roles.SHADOW_ROLES
actors.commands.register_commands(app, _roles)
governance.commands.register_commands(
    app, actors.commands.locate, actors.commands.locate_direct, actors.commands.processes
)
app.command(rich_help_panel="Run")(actors.top.commands.top)
_doctor = actors.doctor.commands.doctor_command([*actors.doctor.commands.CHECKS, shadow.doctor.check_broker])
app.command(name="doctor", rich_help_panel="Run")(_doctor)
actors.trace_commands.register_trace(app, actors.config_option.settings_or_exit)
app.command(rich_help_panel="Set up")(shadow.broker_commands.broker)
app.add_typer(
    shadow.commands.shadow_app(actors.commands.locate), name="shadow", rich_help_panel="Try on live traffic"
)
app.add_typer(haproxy.commands.haproxy_app(actors.commands.find_setup), name="haproxy")
app.add_typer(actors.config_commands.app, name="config", rich_help_panel="Set up")
app.add_typer(models.commands.app, name="model", rich_help_panel="Set up")
app.add_typer(actors.code.commands.app, name="code", rich_help_panel="Set up")

if __name__ == "__main__":
    app()
