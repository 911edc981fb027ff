"""The sub-commands of this room: `haproxy render`, `check`, `apply` and `status`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from governance.database import connect
from governance.membership import members
from governance.terminal import ConfigOption, JsonOption, fail, failing_plainly, say, table, to_json
from haproxy.binary import check, find_binary
from haproxy.errors import HaproxyError
from haproxy.plan import Options, servers_of, slots_for
from haproxy.process import Process
from haproxy.render import render, structure
from haproxy.runtime import Runtime, Slot
from haproxy.setup import Setup

#: Finds the HAProxies of a --config option; given by the front door, which knows the configuration.
FindSetup = Callable[[Path | None], Setup]

IndexOption = Annotated[int, typer.Option(help="Which HAProxy of this host.", min=0)]


def haproxy_app(find: FindSetup) -> typer.Typer:
    """Return this room's sub-commands for the front door."""
    app = typer.Typer(help="HAProxy in front of the nodes.", no_args_is_help=True)
    commands = _Commands(find)
    for command in (commands.render, commands.check, commands.apply, commands.status):
        app.command()(command)
    return app


class _Commands:
    def __init__(self, find: FindSetup) -> None:
        self._find = find

    def render(self, index: IndexOption = 0, config: ConfigOption = None) -> None:
        """Print the configuration for the nodes that are in the membership now."""
        with _failing_plainly():
            setup = self._find(config)
            typer.echo(_rendered(setup, _instance(setup, index))[0], nl=False)

    def check(self, index: IndexOption = 0, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Have HAProxy judge the configuration that `render` prints. Exit code 2 if it refuses it."""
        with _failing_plainly():
            setup = self._find(config)
            options = _instance(setup, index)
            binary = find_binary(setup.binary)
            text, name = _rendered(setup, options)
            options.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            judged = options.configuration.with_suffix(".check")
            try:
                judged.write_text(text, encoding="utf-8")
                check(binary, judged)
            finally:
                judged.unlink(missing_ok=True)
            facts = {"valid": True, "structure": name, "binary": str(binary)}
            say(facts, f"{binary} takes it ({name})", as_json=as_json)

    def apply(self, index: IndexOption = 0, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Write the configuration and have HAProxy take it up: started if need be, reloaded if it is another.

        The agent of `up` does so by itself. No connection is dropped; nodes alone come and go with no reload.
        """
        with _failing_plainly():
            setup = self._find(config)
            options = _instance(setup, index)
            process = Process(find_binary(setup.binary), options, setup.log(index))
            text, name = _rendered(setup, options)
            changed = process.write(text)
            done = "started"
            if process.pid() is None:
                process.start()
            elif changed or process.structure() != name:
                process.reload(name)
                done = "reloaded"
            else:
                done = "unchanged"
            say({"done": done, "structure": name, "pid": process.pid()}, f"{done}: {name}", as_json=as_json)

    def status(self, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Show each HAProxy of this host and its servers. Exit code 1 if one does not answer."""
        with _failing_plainly():
            setup = self._find(config)
        told = [_told(options) for options in setup.instances]
        if as_json:
            typer.echo(to_json({"haproxies": told}))
        else:
            for one in told:
                _show(one)
        raise typer.Exit(0 if all(one["running"] for one in told) else 1)


def _rendered(setup: Setup, options: Options) -> tuple[str, str]:
    with connect(setup.dsn) as connection:
        servers = servers_of(members(connection, setup.environment))
    slots = slots_for(servers, setup.slots)
    return render(options, servers, slots), structure(options, slots)


def _instance(setup: Setup, index: int) -> Options:
    if index >= len(setup.instances):
        fail(f"this host has {len(setup.instances)} HAProxies, counted from 0: there is no {index}")
    return setup.instances[index]


def _told(options: Options) -> dict[str, Any]:
    runtime = Runtime(options.socket)
    try:
        info, slots = runtime.info(), runtime.slots()
    except HaproxyError as error:
        return {"running": False, "address": f"tcp://{options.tcp}", "why": str(error), "servers": []}
    return {
        "running": True,
        "address": f"tcp://{options.tcp}",
        "http": str(options.http),
        "stats": f"http://{options.stats}/",
        "metrics": f"http://{options.stats}/metrics",
        "version": info.get("Version", ""),
        "pid": int(info.get("Pid", 0)),
        "up_s": int(info.get("Uptime_sec", 0)),
        "connections": int(info.get("CurrConns", 0)),
        "structure": info.get("description", ""),
        "free_slots": sum(slot.idle for slot in slots),
        "servers": [_server(slot) for slot in slots if not slot.idle],
    }


def _server(slot: Slot) -> dict[str, Any]:
    return {
        "role": slot.backend,
        "slot": slot.name,
        "address": str(slot.address),
        "status": slot.status,
        "check": slot.check,
        "sessions": slot.sessions,
        "connections": slot.total,
    }


def _show(told: dict[str, Any]) -> None:
    if not told["running"]:
        typer.echo(f"{told['address']}: not running: {told['why']}")
        return
    title = (
        f"{told['address']}: HAProxy {told['version']}, {told['connections']} connections, {told['stats']}"
    )
    columns = ("role", "slot", "address", "status", "check", "sessions", "connections")
    table(title, columns, [[str(server[name]) for name in columns] for server in told["servers"]])


@contextmanager
def _failing_plainly() -> Iterator[None]:
    with failing_plainly():
        try:
            yield
        except (HaproxyError, ValueError) as error:
            fail(str(error))
