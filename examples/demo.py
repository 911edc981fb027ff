"""The demo, as a command: live card payments scored by redundant nodes, one killed, the model swapped."""

from __future__ import annotations

import json
import signal
import sys
from typing import Annotated

import typer

from governance.errors import GovernanceError
from shadow.errors import ShadowError


def demo(
    seconds: Annotated[float, typer.Option(help="How long the live stream lasts.", min=3)] = 18.0,
    rate: Annotated[int, typer.Option(help="Transactions a second.", min=1)] = 250,
    http_port: Annotated[
        int,
        typer.Option(help="Where it answers over HTTP, if that is free; 0 picks a port.", min=0, max=65535),
    ] = 7221,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on standard output.")
    ] = False,
) -> None:
    """Show it all in a minute: score a live stream while a scorer is killed and the model is swapped.

    Starts its own PostgreSQL, broker and nodes in a temporary directory and leaves nothing behind. The exit
    code is 1 if any transaction failed, any score differs from the training library's or over HTTP, or any
    answer was lost on its way to the database or does not come out the same again.
    """
    # Heavy, and no other command needs it.
    from examples.show import Narrator, run  # noqa: PLC0415

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    narrator = Narrator(quiet_stdout=as_json)
    try:
        summary = run(narrator, seconds=seconds, rate=rate, http_port=http_port)
    except KeyboardInterrupt:
        narrator.say("stopped")
        raise typer.Exit(130) from None
    except (GovernanceError, ShadowError, RuntimeError) as error:
        narrator.say(f"[red]the demo cannot go on:[/] {error}")
        raise typer.Exit(2) from error
    narrator.table(summary)
    if as_json:
        typer.echo(json.dumps(summary))
    kept = summary["kept"] == summary["transactions"] - summary["failed"]
    same = summary["rescored"] == summary["over_http"] == "same"
    fine = not summary["failed"] and not summary["mismatched"] and kept and same
    raise typer.Exit(0 if fine else 1)
