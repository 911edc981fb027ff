"""The sub-commands `shadow replay` and `shadow archive`."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from actors.config import Settings
from actors.config_option import settings_or_exit
from governance.database import Connection
from governance.replays import Progress, Source, ask, progress
from governance.shadows import find_shadow
from governance.terminal import (
    ByOption,
    ConfigOption,
    JsonOption,
    Locate,
    connected,
    fail,
    failing_plainly,
    say,
)
from shadow.errors import ShadowError

_ROOT = Path(__file__).parents[1]
_POLL_S = 0.2
_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"]


def replay_command(locate: Locate) -> Callable[..., None]:
    """Return the sub-command `replay`, which finds its database by `locate`."""

    def replay(
        name: Annotated[str, typer.Argument(help="The shadow; one that is stopped will do.")],
        since: Annotated[
            datetime, typer.Option("--from", formats=_FORMATS, help="Answers from this moment on, in UTC,")
        ],
        until: Annotated[
            datetime | None,
            typer.Option("--to", formats=_FORMATS, help="and before this one.", show_default="now"),
        ] = None,
        source: Annotated[
            str, typer.Option(help="kafka, database (what the sink stored), or a directory of Parquet files.")
        ] = "kafka",
        processes: Annotated[
            int,
            typer.Option(help="Processes of this host that work on it, beside the shadow nodes.", min=0),
        ] = os.cpu_count() or 1,
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Have a shadow evaluate the past, as fast as there are cores for it.

        Transactions, features and scores are those of the live record: nothing of now gets in. The results go
        where those of the live stream go, each once, so that `shadow report` tells of both. The work is cut
        into parts; shadow nodes take some, and processes of this host. The exit code is 1 if parts failed.
        """
        settings = settings_or_exit(config)
        first, last = _utc(since), _utc(until) if until else datetime.now(UTC)
        with _failing_plainly(), connected(locate, config) as (connection, environment):
            shadow = find_shadow(connection, environment, name)
            kind, places = _places(settings, source, first, last)
            number = ask(connection, shadow, kind, first, last, places, by=by or getpass.getuser())
            began = time.monotonic()
            with _workers(settings, number, processes):
                found = _follow(connection, number)
            took = time.monotonic() - began
        rate = found.read / took if took else 0.0
        sentence = (
            f"replay {number}: {found.read} transactions in {took:.1f} s ({rate:,.0f} a second), "
            f"{found.fresh} results that were not there before"
        )
        if found.failed:
            sentence += f"; {found.failed} of {found.parts} parts failed: {found.reason}"
        facts = {"replay": number, **asdict(found), "seconds": took, "per_second": rate}
        say(facts, sentence, as_json=as_json)
        raise typer.Exit(1 if found.failed else 0)

    return replay


def archive_command() -> Callable[..., None]:
    """Return the sub-command `archive`."""

    def archive(
        directory: Annotated[Path, typer.Argument(help="Where the files go; made if it is missing.")],
        since: Annotated[
            datetime, typer.Option("--from", formats=_FORMATS, help="Answers from this moment on, in UTC,")
        ],
        until: Annotated[
            datetime | None,
            typer.Option("--to", formats=_FORMATS, help="and before this one.", show_default="now"),
        ] = None,
        source: Annotated[str, typer.Option(help="kafka, or database.")] = "kafka",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Write live records to Parquet files, to replay them when nothing else keeps them any more."""
        from shadow.replay_sources import archive as write  # noqa: PLC0415 - it loads Kafka's client

        settings = settings_or_exit(config)
        first, last = _utc(since), _utc(until) if until else datetime.now(UTC)
        with _failing_plainly(), failing_plainly():
            kind, places = _places(settings, source, first, last)
            count = write(kind, places, settings, first, last, directory)
        facts = {"directory": str(directory), "records": count}
        say(facts, f"{count} live records are in {directory}", as_json=as_json)

    return archive


@contextmanager
def _failing_plainly() -> Iterator[None]:
    try:
        yield
    except (ShadowError, OSError, ValueError) as error:
        fail(str(error))


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def _places(
    settings: Settings, source: str, since: datetime, until: datetime
) -> tuple[Source, list[dict[str, object]]]:
    # They load Kafka's client, which no other command of this room needs.
    from shadow.replay_sources import database_places, kafka_places, parquet_places  # noqa: PLC0415

    if source == "database":
        return "database", database_places(since, until)
    if source != "kafka":
        return "parquet", parquet_places(Path(source))
    if settings.kafka is None:
        fail("the configuration names no Kafka: name one in [kafka], or replay with --source database")
    return "kafka", kafka_places(settings.kafka, settings.environment, since, until)


@contextmanager
def _workers(settings: Settings, replay: int, count: int) -> Iterator[None]:
    """Run processes that work on a replay; those that are left at the end are ended."""
    document = settings.model_dump_json().encode()
    started = []
    try:
        for index in range(count):
            command = [sys.executable, "-m", "shadow.replaying", str(replay), str(index)]
            process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE)  # noqa: S603 - our own
            started.append(process)
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            process.stdin.write(document)
            process.stdin.close()
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def _follow(connection: Connection, replay: int) -> Progress:
    """Wait until a replay is over."""
    with Console(stderr=True).status("replaying") as status:
        while not (found := progress(connection, replay)).over:
            status.update(f"replaying: {found.read} transactions, {found.done} of {found.parts} parts")
            time.sleep(_POLL_S)
    return found
