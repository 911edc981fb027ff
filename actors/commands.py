"""The sub-commands of this room: `up`, `node` and `score`."""

from __future__ import annotations

import atexit
import csv
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psycopg
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from actors.balancer import setup_of
from actors.blackbox import open_box
from actors.config import Settings
from actors.config_option import configuration_or_exit, settings_or_exit
from actors.errors import ConfigError
from actors.host import Host
from actors.host_commands import here, register_host_commands
from actors.launcher import watch_parent
from actors.logs import start_log
from actors.roles import LIVE_ROLES, Roles
from governance.database import connect, migrate
from governance.membership import members
from haproxy.setup import Setup
from transport.client import Client, ScorewireError

#: Seconds that `score` waits for nodes that are starting.
_NODES_S = 30.0

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The configuration file.", show_default="./scorewire.toml"),
]


def register_commands(app: typer.Typer, roles: Roles) -> None:
    """Add this room's sub-commands to the front door.

    Args:
        app: the front door.
        roles: what a node can be.
    """
    app.command()(up)
    app.command(name="node", epilog=f"Roles: {', '.join(roles)}.")(_node(roles))
    app.command()(score)
    register_host_commands(app, settings_or_exit)


def locate(config: Path | None) -> tuple[str, str]:
    """Return the database and the environment that a configuration names."""
    settings = settings_or_exit(config)
    return settings.dsn, settings.environment


def processes(config: Path | None) -> list[dict[str, Any]]:
    """Return what is known of the processes on this host; empty where no `up` runs."""
    return here(settings_or_exit(config))


def locate_direct(config: Path | None) -> str:
    """Return the database that a configuration names, without a pool in between."""
    return settings_or_exit(config).direct_dsn


def find_setup(config: Path | None) -> Setup:
    """Return the HAProxies that a configuration names, or end the command."""
    try:
        return setup_of(settings_or_exit(config))
    except ConfigError as error:
        raise _fail(str(error)) from error


def up(config: ConfigOption = None) -> None:
    """Run all nodes of this host, as scorewire.toml says, and start again what dies.

    Applies the database's migrations first. Ctrl-C or SIGTERM stops every node in order.
    """
    configuration = configuration_or_exit(config)
    settings = configuration.settings
    if settings.log.format == "json":
        start_log(settings, "up", "up-0")
    else:
        _log_to_terminal(settings.log.level)
    try:
        migrate(settings.direct_dsn)
    except psycopg.OperationalError as error:
        logging.getLogger(__name__).warning("the database is away, and the nodes wait for it: %s", error)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Host(settings, configuration.file, configuration.options).run_until(stop)


def _node(roles: Roles) -> Callable[..., None]:
    names = ", ".join(roles)

    def node(
        role: Annotated[str, typer.Argument(help="What it does.")],
        index: Annotated[int, typer.Option(help="Which of the host's nodes of this role it is.", min=0)] = 0,
        port: Annotated[
            int | None,
            typer.Option(
                help="Where a preprocessor or a gateway listens.", show_default="the configured port + index"
            ),
        ] = None,
        config: ConfigOption = None,
        parent_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    ) -> None:
        """Run one node in the foreground, for systemd, Kubernetes or a terminal.

        It waits for the database and says so; once it holds the current release it serves, and goes on
        serving while the database is away. Exit codes: 0 stopped as asked, 1 crashed, 3 could not start.
        """
        if role not in roles:
            raise _fail(f"there is no role {role!r}: a node is one of {names}")
        settings = settings_or_exit(config)
        start_log(settings, role, f"{role}-{index}")
        if parent_fd is not None:
            watch_parent(parent_fd)
        if role not in LIVE_ROLES:  # which open their own, for their actors to note what they do
            open_box(settings.logs.expanduser(), f"{role}-{index}")
        _end_process(roles[role](settings, index, port))

    return node


def _end_process(code: int) -> NoReturn:
    """End this process without taking the interpreter down piece by piece.

    That takes half a second with a compiler loaded, seconds on a busy host, for each node of a host in turn;
    nothing that matters is left to be done once the exit functions have run.
    """
    atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter itself would call next
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def score(
    file: Annotated[
        Path, typer.Argument(help="Transactions: .jsonl, or .csv with a header; - for JSONL on stdin.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the answers go.", show_default="standard output")
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(
            help="A preprocessor, tcp://host:port; may be repeated.", show_default="from the database"
        ),
    ] = None,
    deadline: Annotated[float, typer.Option(help="Seconds that each transaction may take.")] = 5.0,
    window: Annotated[int, typer.Option(help="Transactions under way at a time.", min=1)] = 64,
    release: Annotated[
        int | None,
        typer.Option(help="A release that the nodes hold.", show_default="the current one, or the canary"),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Let all that is live go first; the tee keeps no copy.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Score a file of transactions on the running system; answers are JSON lines, in the file's order.

    A transaction that is refused becomes a line with "error"; the exit code is then 1.
    """
    if str(file) != "-" and not file.is_file():
        raise _fail(f"there is no file {file}")
    addresses = address or _preprocessors(settings_or_exit(config))
    sink = out.open("w", encoding="utf-8") if out else sys.stdout
    failed = total = 0
    try:
        with Client(addresses, deadline=deadline) as client, _progress() as progress:
            task = progress.add_task("scored", total=None if str(file) == "-" else _count(file))
            for result in client.score_many(
                _transactions(file), window=window, release=release, replay=replay
            ):
                total += 1
                failed += isinstance(result, ScorewireError)
                sink.write(json.dumps(_line(result)) + "\n")
                progress.update(task, advance=1)
    finally:
        if out:
            sink.close()
    Console(stderr=True).print(f"{total} transactions, {failed} refused or failed")
    raise typer.Exit(1 if failed else 0)


def _line(result: Any) -> dict[str, Any]:
    if isinstance(result, ScorewireError):
        return {
            "error": result.code,
            "detail": result.detail,
            "field": result.field,
            "rule": result.rule,
        }
    answer: dict[str, Any] = result.to_dict()
    return answer


def _transactions(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix == ".csv":
        with file.open(encoding="utf-8", newline="") as rows:
            for row in csv.DictReader(rows):
                yield {name: _value(text) for name, text in row.items()}
        return
    lines = sys.stdin if str(file) == "-" else file.open(encoding="utf-8")
    with lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _parsed(line, number, file)


def _parsed(line: str, number: int, file: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except json.JSONDecodeError as error:
        raise _fail(f"{file}, line {number}: not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise _fail(f"{file}, line {number}: a transaction is an object of named fields")
    return parsed


def _value(text: str | None) -> str | int | float | None:
    """Read a CSV cell: empty is missing, a number is a number."""
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _count(file: Path) -> int:
    with file.open("rb") as lines:
        count = sum(1 for line in lines if line.strip())
    return count - 1 if file.suffix == ".csv" else count


def _preprocessors(settings: Settings) -> list[str]:
    """Find the preprocessors in the database; wait for one for a while, since nodes may just be starting."""
    give_up_at = time.monotonic() + _NODES_S
    try:
        with connect(settings.dsn) as connection:
            while time.monotonic() < give_up_at:
                nodes = members(connection, settings.environment)
                found = [e for node in nodes if node.role == "preprocessor" for e in node.endpoints]
                if found:
                    return found
                time.sleep(0.1)
    except psycopg.Error as error:
        why = str(error).strip()
        raise _fail(
            f"the database does not say where the nodes are: {why}: name one with --address"
        ) from error
    raise _fail(f"no preprocessor of {settings.environment} is up: start nodes with `run.py up`")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())


def _log_to_terminal(level: str) -> None:
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=level.upper(), format="%(message)s", handlers=[handler])


def _fail(message: str) -> typer.Exit:
    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", highlight=False)
    return typer.Exit(2)
