"""The keys of a configuration, as its models declare them: types, defaults, meanings, what is secret."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

#: The names from the top down to a key.
Path = tuple[str, ...]

#: What begins the environment variables that are configuration.
PREFIX = "SCOREWIRE_"
#: `NAME_file` says which file holds the secret NAME.
FILE = "_file"


@dataclass(frozen=True)
class Key:
    """One key that may be set.

    Attributes:
        path: its names.
        kind: its type and range, for people.
        default: its value where nobody sets it, as TOML; "" where there is none.
        required: whether somebody has to set it.
        meaning: what it does, for people.
        secret: whether its value is never shown.
        table: whether it is a table whose names are free.
    """

    path: Path
    kind: str
    default: str
    required: bool
    meaning: str
    secret: bool
    table: bool

    @property
    def name(self) -> str:
        """The key as it is written with --set."""
        return dotted(self.path)

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable(self.path)


@dataclass(frozen=True)
class Section:
    """One table of the file.

    Attributes:
        path: its names; none for what stands before all tables.
        meaning: what it is for.
        keys: what may stand in it, in their order.
    """

    path: Path
    meaning: str
    keys: tuple[Key, ...]


def dotted(path: Path) -> str:
    """Return a key as TOML writes it: names joined by dots, quoted where they have other characters."""
    return ".".join(name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name) for name in path)


def variable(path: Path) -> str:
    """Return the name of the environment variable that sets a key."""
    return PREFIX + "__".join(path).upper()


@cache
def sections(model: type[BaseModel]) -> tuple[Section, ...]:
    """Return all tables that a configuration may have, the top first."""
    schema = model.model_json_schema()
    return tuple(_walk(schema, (), schema.get("$defs", {})))


@cache
def keys(model: type[BaseModel]) -> Mapping[Path, Key]:
    """Return all keys that a configuration may have."""
    return {key.path: key for section in sections(model) for key in section.keys}


def is_secret(model: type[BaseModel], path: Path) -> bool:
    """Say whether a key, or the table that it stands in, holds secrets."""
    return any(
        key.secret
        for part in (path, path[:-1])
        if (key := keys(model).get(part)) and (part == path or key.table)
    )


def suggestion(model: type[BaseModel], path: Path) -> list[Path]:
    """Return the keys that may have been meant by one that is none, the likeliest first, at most three."""
    known = {key.name: key.path for key in keys(model).values()}
    known |= {".".join(part.path): part.path for part in sections(model) if part.path}
    if path[-1].endswith(FILE):
        secrets = [key.path for key in keys(model).values() if key.secret]
        known |= {dotted(secret) + FILE: (*secret[:-1], secret[-1] + FILE) for secret in secrets}
    elsewhere = [found for found in known.values() if found[-1] == path[-1]]
    # A variable's parts are easily joined by one underscore instead of two.
    joined = [found for found in known.values() if "_".join(found) == "_".join(path)]
    near = [known[name] for name in difflib.get_close_matches(".".join(path), known, cutoff=0.75)]
    return list(dict.fromkeys((*joined, *near, *elsewhere)))[:3]


def _walk(node: Mapping[str, Any], path: Path, named: Mapping[str, Any]) -> Iterator[Section]:
    own: list[Key] = []
    below: list[Section] = []
    for name, declared in node["properties"].items():
        kind = _resolved(declared, named)
        if "properties" in kind:
            below += _walk(kind, (*path, name), named)
        else:
            own.append(_key((*path, name), declared, kind, required=name in node.get("required", ())))
    yield Section(path, node.get("description", ""), tuple(own))
    yield from below


def _resolved(declared: Mapping[str, Any], named: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references, and look through `or nothing`."""
    if "$ref" in declared:
        found: Mapping[str, Any] = named[declared["$ref"].rpartition("/")[2]]
        return found
    for one in declared.get("anyOf", ()):
        if one.get("type") != "null":
            return _resolved(one, named)
    return declared


def _key(path: Path, declared: Mapping[str, Any], kind: Mapping[str, Any], *, required: bool) -> Key:
    default = declared.get("default")
    return Key(
        path=path,
        kind=_kind(kind),
        default="" if default is None else declared.get("shown") or json.dumps(default, ensure_ascii=False),
        required=required,
        meaning=" ".join(declared.get("description", "").split()),
        secret=bool(declared.get("writeOnly")),
        table=kind.get("type") == "object",
    )


_KINDS = {"integer": "integer", "number": "number", "boolean": "true or false", "object": "table of strings"}


def _kind(schema: Mapping[str, Any]) -> str:
    """Say in words what a value may be."""
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(one)}`" for one in schema["enum"])
    if schema.get("type") == "string":
        kind = "path" if schema.get("format") == "path" else "string"
        return f"{kind} like `{schema['pattern']}`" if "pattern" in schema else kind
    words = _KINDS[schema["type"]]
    if "minimum" in schema and "maximum" in schema:
        return f"{words}, {schema['minimum']:g} to {schema['maximum']:g}"
    over, least = schema.get("exclusiveMinimum"), schema.get("minimum")
    words += "" if over is None else f" over {over:g}"
    words += "" if least is None else f", {least:g} or more"
    return words + (f", up to {schema['maximum']:g}" if "maximum" in schema else "")
