"""The sub-commands `audit verify`, `audit list` and `audit export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from governance import audit
from governance.audit import Entry
from governance.errors import AuditBrokenError
from governance.terminal import ConfigOption, JsonOption, Locate, connected, fail, say, table


def audit_app(locate: Locate) -> typer.Typer:
    """Return the sub-commands, which find their database by `locate`."""
    commands = _AuditCommands(locate)
    app = typer.Typer(
        help="The log of every change: who, when, why, before and after, chained by hashes.",
        no_args_is_help=True,
    )
    app.command()(commands.verify)
    app.command(name="list")(commands.list_)
    app.command()(commands.export)
    return app


class _AuditCommands:
    def __init__(self, locate: Locate) -> None:
        self._locate = locate

    def verify(
        self,
        anchor: Annotated[
            str | None,
            typer.Option(help="SEQ:HASH, as an earlier run printed it and was kept elsewhere."),
        ] = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Check the whole log: nothing changed, taken out, put in, or cut off since the anchor.

        Prints the anchor for the next time: keep it where whoever may write to this database may not. The
        exit code is 1 where the log does not hold.
        """
        with connected(self._locate, config) as (connection, _):
            try:
                last = audit.verify(connection, _anchor(anchor))
            except AuditBrokenError as error:
                say({"verified": False, "reason": str(error)}, f"BROKEN: {error}", as_json=as_json)
                raise typer.Exit(1) from error
        here = f"{last.seq}:{last.hash.hex()}" if last else ""
        count = last.seq if last else 0
        facts = {"verified": True, "entries": count, "anchor": here}
        say(facts, f"{count} entries hold. Anchor for the next time: {here}", as_json=as_json)

    def list_(
        self,
        everywhere: Annotated[bool, typer.Option("--all", help="Of all environments.")] = False,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """List the changes of this environment: when, who, what, why."""
        with connected(self._locate, config) as (connection, environment):
            found = list(audit.entries(connection, environment=None if everywhere else environment))
        if as_json:
            typer.echo(json.dumps({"entries": [entry.facts for entry in found]}))
            return
        columns = ("seq", "at", "actor", "what", "change", "reason")
        table("Changes", columns, [_row(entry) for entry in found])

    def export(
        self,
        out: Annotated[Path | None, typer.Option(help="The file.", show_default="standard output")] = None,
        after: Annotated[int, typer.Option(help="Only entries after this number.")] = 0,
        config: ConfigOption = None,
    ) -> None:
        """Write the whole log as JSONL: seq, hash, and the entry as the text that was hashed."""
        with connected(self._locate, config) as (connection, _):
            lines = (
                json.dumps({"seq": entry.seq, "hash": entry.hash.hex(), "entry": entry.text}) + "\n"
                for entry in audit.entries(connection, after=after)
            )
            if out is None:
                sys.stdout.writelines(lines)
                return
            try:
                with out.open("w", encoding="utf-8") as file:
                    file.writelines(lines)
            except OSError as error:
                fail(f"{out} cannot be written: {error}")


def _anchor(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    seq, _, digest = text.partition(":")
    if not seq.isdigit() or len(digest) != 64:  # noqa: PLR2004 - a sha256 in hex
        fail(f"{text!r} is no anchor: SEQ:HASH, as `audit verify` prints it")
    return int(seq), digest


def _row(entry: Entry) -> tuple[str, ...]:
    facts = entry.facts
    after = facts["after"] or {}
    subject = next((str(after[key]) for key in ("digest", "number", "name") if key in after), "")
    what = f"{facts['what']} {subject[:12]}"
    return (str(entry.seq), facts["at"][:19], facts["actor"], what, facts["change"], facts["reason"])
