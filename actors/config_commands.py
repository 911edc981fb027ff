"""The sub-commands `config show`, `config check` and `config docs`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.config import Configuration, Settings, read_configuration
from actors.config_keys import Key, Section, dotted, is_secret, sections
from actors.config_option import configuration_or_exit, options
from actors.config_sources import source_of
from actors.errors import ConfigError
from governance.database import shown_dsn
from governance.terminal import ConfigOption, JsonOption, to_json

app = typer.Typer(
    help="The configuration: what holds and why, whether it is right, what may be said.", no_args_is_help=True
)

#: What stands for a secret that is set.
HIDDEN = "(secret)"
#: Columns after which sources are not lined up any more.
_WIDEST = 60
#: How TOML's values begin; other defaults are words.
_LITERALS = (*'"{-0123456789', "true", "false")
#: In docs/configuration.md, what follows is written by `config docs`.
MARK = "<!-- written by `run.py config docs` -->\n"


@app.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show each key's value and where it came from: file and line, variable, --set, or default.

    It reads as TOML. Secrets are never shown: of a database's address only where it leads and as whom, of
    others that there is one.
    """
    found = configuration_or_exit(config)
    rows = list(shown(found))
    if as_json:
        typer.echo(to_json({"file": found.file and str(found.file), "values": rows}))
    else:
        said = [
            (f"{'# ' if row['value'] is None else ''}{row['key']} = {_toml(row['value'])}", row["source"])
            for row in rows
        ]
        width = min(max(len(text) for text, _ in said), _WIDEST)
        for text, source in said:
            typer.echo(f"{text:{width}}  # {source}")


@app.command()
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say everything that is wrong with the configuration, with key and source. Exit code 2 if anything is.

    Reads the file, the variables and --set alone, and connects to nothing.
    """
    if not as_json:
        found = configuration_or_exit(config)
        count = sum(one.value != {} for one in found.found.values())
        typer.echo(f"{found.file or 'no file, variables alone'}: in order, {count} keys set")
        return
    try:
        read_configuration(config, options())
    except ConfigError as error:
        typer.echo(to_json({"valid": False, "problems": [asdict(one) for one in error.problems]}))
        raise typer.Exit(2) from error
    typer.echo(to_json({"valid": True, "problems": []}))


@app.command()
def docs(
    into: Annotated[
        Path | None, typer.Option(help="A page whose end is written anew, after its mark.")
    ] = None,
) -> None:
    """Print every key with its type, default and meaning, as the page docs/configuration.md has them."""
    text = "\n".join(_page(section) for section in sections(Settings))
    if into is None:
        typer.echo(text, nl=False)
        return
    before, mark, _ = into.read_text(encoding="utf-8").partition(MARK)
    into.write_text(before + (mark or MARK) + text, encoding="utf-8")


def shown(found: Configuration) -> Iterator[dict[str, Any]]:
    """Yield each key with its value and source, secrets hidden; a table's names each for itself.

    A section that is absent is one row without a value.
    """
    values = found.settings.model_dump(mode="json")
    for section in sections(Settings):
        own = _at(values, section.path)
        if own is None:
            yield {"key": ".".join(section.path), "value": None, "source": "default"}
            continue
        for key in section.keys:
            value = own[key.path[-1]]
            entries = {(*key.path, name): one for name, one in value.items()} if key.table else {}
            for path, one in (entries or {key.path: value}).items():
                source = source_of(found.found, path) if _is_set(found, path) else "default"
                yield {"key": dotted(path), "value": _hidden(path, one), "source": source}


def _is_set(found: Configuration, path: tuple[str, ...]) -> bool:
    return any(other[: len(path)] == path for other in found.found)


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values and values[name]
    return values


def _hidden(path: tuple[str, ...], value: Any) -> Any:
    if not value or not is_secret(Settings, path):
        return value
    return shown_dsn(value) if path[-1].endswith("dsn") else HIDDEN


def _toml(value: Any) -> str:
    return "(absent)" if value is None else json.dumps(value, ensure_ascii=False)


def _page(section: Section) -> str:
    name = ".".join(section.path)
    head = f"## [{name}]" if name else "## Before all tables"
    rows = [
        f"| `{key.path[-1]}` | {key.kind.replace('|', '&#124;')} | {_default(key)} | {_meaning(key)} |"
        for key in section.keys
    ]
    return "\n".join(
        (head, section.meaning, "", "| key | type | default | meaning |", "|---|---|---|---|", *rows, "")
    )


def _default(key: Key) -> str:
    if key.required:
        return "must be set"
    return f"`{key.default}`" if key.default.startswith(_LITERALS) else key.default


def _meaning(key: Key) -> str:
    return f"{key.meaning} **Secret.**" if key.secret else key.meaning
