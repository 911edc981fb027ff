"""The sub-command `broker`: a broker of one's own, to try things where no Kafka is at hand."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from governance.terminal import fail
from shadow.errors import ShadowError


def broker(
    directory: Annotated[Path, typer.Argument(help="Where its log goes; made if it is missing.")],
) -> None:
    """Run a broker that speaks Kafka's protocol in the foreground, to try things where no Kafka is at hand.

    Prints the section that scorewire.toml needs. It listens on loopback and keeps all in memory: when it
    stops, by Ctrl-C or SIGTERM, what it held is gone.
    """
    from shadow.broker import EmbeddedBroker  # noqa: PLC0415 - it loads Kafka's client

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with EmbeddedBroker(directory) as running:
            kafka = running.settings
            options = ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in kafka.options.items())
            typer.echo(f"[kafka]\nbootstrap_servers = {json.dumps(kafka.bootstrap_servers)}")
            typer.echo(f"partitions = {kafka.partitions}\nreplication = {kafka.replication}")
            typer.echo(f"options = {{ {options} }}")
            sys.stdout.flush()
            while not stop.wait(1.0):  # with a limit, so that Python runs its signal handlers
                pass
    except ShadowError as error:
        fail(str(error))
