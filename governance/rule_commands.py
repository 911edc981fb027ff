"""The sub-commands for the rules: `policy`, `approvers`, `keys` and `sign`."""

from __future__ import annotations

import getpass
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from governance.artifacts import find_any
from governance.database import Connection
from governance.policy import policy_of, read_policy, set_policy
from governance.proposals import add_approver, remove_approver
from governance.signing import new_key, public_half, read_key, sign
from governance.terminal import (
    ByOption,
    ConfigOption,
    JsonOption,
    Locate,
    connected,
    fail,
    failing_plainly,
    say,
    table,
    to_json,
)

_PANEL = "Rules and keys"

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept in the audit log.")]
PersonArgument = Annotated[str, typer.Argument(help="The person, as --by names them.")]
RoleArgument = Annotated[str, typer.Argument(help="The role, as policies name it.")]


def register_rule_commands(app: typer.Typer, locate: Locate) -> None:
    """Add these sub-commands to the front door."""
    commands = _RuleCommands(locate)
    policy = typer.Typer(help="What an environment asks of a promotion.", no_args_is_help=True)
    policy.command(name="show")(commands.show_policy)
    policy.command(name="set")(commands.set_policy)
    approvers = typer.Typer(help="Who may approve, in which role.", no_args_is_help=True)
    approvers.command(name="list")(commands.list_approvers)
    approvers.command(name="add")(commands.add_approver)
    approvers.command(name="remove")(commands.remove_approver)
    keys = typer.Typer(help="Keys that sign artifacts.", no_args_is_help=True)
    keys.command(name="new")(commands.new_key)
    keys.command(name="show")(commands.show_key)
    for name, sub in (("policy", policy), ("approvers", approvers), ("keys", keys)):
        app.add_typer(sub, name=name, rich_help_panel=_PANEL)
    app.command(rich_help_panel=_PANEL)(commands.sign)


class _RuleCommands:
    def __init__(self, locate: Locate) -> None:
        self._locate = locate

    def show_policy(self, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Show what the environment asks of a promotion now."""
        with connected(self._locate, config) as (connection, environment):
            found = policy_of(connection, environment).model_dump(mode="json")
        if as_json:
            typer.echo(to_json(found))
            return
        table(f"The policy of {environment}", ("rule", "asked"), [(k, str(v)) for k, v in found.items()])

    def set_policy(
        self,
        file: Annotated[Path, typer.Argument(help="A TOML file: docs/governance.md has one.")],
        reason: ReasonOption,
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Set what the environment asks of a promotion, whole. Older versions stay known."""
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            fail(f"{file} cannot be read: {error}")
        with connected(self._locate, config) as (connection, environment):
            policy = read_policy(document)
            version = set_policy(connection, environment, policy, by=by or getpass.getuser(), reason=reason)
        facts = {"environment": environment, "version": version}
        say(facts, f"the policy of {environment} has version {version}", as_json=as_json)

    def list_approvers(self, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """List who may approve, and as what."""
        with connected(self._locate, config) as (connection, _):
            found = _approvers(connection)
        if as_json:
            typer.echo(to_json({"approvers": [{"person": p, "role": r} for p, r in found]}))
            return
        table("Approvers", ("person", "role"), found)

    def add_approver(
        self,
        person: PersonArgument,
        role: RoleArgument,
        reason: ReasonOption = "",
        by: ByOption = "",
        config: ConfigOption = None,
    ) -> None:
        """Let a person approve in a role."""
        with connected(self._locate, config) as (connection, _):
            add_approver(connection, person, role, by=by or getpass.getuser(), reason=reason)
        typer.echo(f"{person} may approve as {role}")

    def remove_approver(
        self,
        person: PersonArgument,
        role: RoleArgument,
        reason: ReasonOption = "",
        by: ByOption = "",
        config: ConfigOption = None,
    ) -> None:
        """Let a person no longer approve in a role. What they approved stays."""
        with connected(self._locate, config) as (connection, _):
            remove_approver(connection, person, role, by=by or getpass.getuser(), reason=reason)
        typer.echo(f"{person} may no longer approve as {role}")

    def new_key(
        self,
        file: Annotated[Path, typer.Argument(help="Where the private half goes; it must not exist.")],
        as_json: JsonOption = False,
    ) -> None:
        """Make a key that signs artifacts; print its public half, which nodes are told to trust.

        Name it under [trusted_keys] in scorewire.toml. Keep the private half where only those who may
        release can read it: whoever has it answers for what nodes will run.
        """
        with failing_plainly():
            public = new_key(file)
        say({"public_key": public, "file": str(file)}, public, as_json=as_json)

    def show_key(
        self,
        file: Annotated[Path, typer.Argument(help="A private key.")],
        as_json: JsonOption = False,
    ) -> None:
        """Print the public half of a key, as [trusted_keys] in scorewire.toml takes it."""
        with failing_plainly():
            public = public_half(read_key(file))
        say({"public_key": public}, public, as_json=as_json)

    def sign(
        self,
        artifact: Annotated[str, typer.Argument(help="A digest, its beginning, or a name's newest.")],
        key: Annotated[Path, typer.Option(help="The private key, from `keys new`.")],
        name: Annotated[str, typer.Option(help="The key's name, as nodes know it.")],
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Sign a registered artifact: say that you answer for it. Doing it twice changes nothing."""
        with connected(self._locate, config) as (connection, _):
            found = find_any(connection, artifact)
            sign(connection, found, read_key(key), name=name, by=by or getpass.getuser())
        sentence = f"{found.kind} {found.name} {found.digest[:12]} is signed by {name}"
        say({"digest": found.digest, "key": name}, sentence, as_json=as_json)


def _approvers(connection: Connection) -> list[tuple[str, str]]:
    rows = connection.execute("SELECT person, role FROM approver ORDER BY role, person").fetchall()
    return [(row["person"], row["role"]) for row in rows]
