"""Where configuration comes from: a file, environment variables, --set. Each value keeps its source.

Own code, since an error must name the line, the variable or the option that a wrong value came from, and an
unknown variable must be found: pydantic-settings merges its sources before anything can be said of them.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError

from actors.config_keys import FILE, PREFIX, Path, dotted, is_secret, keys, sections, suggestion, variable
from actors.errors import ConfigError, Problem

#: Variables that tests and benchmarks read for themselves.
_OTHERS = ("SCOREWIRE_TEST_",)
#: What Kubernetes sets for a Service whose name begins with scorewire.
_SERVICE_LINK = re.compile(r".*_SERVICE_(HOST|PORT(_.*)?)|.*_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")


@dataclass(frozen=True)
class Found:
    """A value and where it was found.

    Attributes:
        value: what was found: text from a variable, else a value of TOML.
        source: `scorewire.toml:12`, `SCOREWIRE_DSN` or `--set dsn=...` without the value.
        file: the value is the path of a file that holds the secret.
    """

    value: Any
    source: str
    file: bool = False


#: What one source says, by key.
Layer = dict[Path, Found]


def from_file(file: FilePath) -> Layer:
    """Read a TOML file, with the line of each key.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        text = file.read_text(encoding="utf-8")
        tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}") from error
    layer: Layer = {}
    for line, table, statement in _statements(text):
        for path, value in _leaves(statement, table):
            layer[path] = Found(value, f"{file}:{line}")
    return layer


def from_variables(model: type[BaseModel], environment: Mapping[str, str]) -> Layer:
    """Read environment variables; a whole table is JSON."""
    tables = {key.path for key in keys(model).values() if key.table} | {one.path for one in sections(model)}
    layer: Layer = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name.startswith(_OTHERS):
            continue
        path = tuple(name.removeprefix(PREFIX).lower().split("__"))
        if path not in keys(model) and _is_service_link(name, text):
            continue
        if path not in tables:
            layer[path] = Found(text, name)
            continue
        for below, value in _leaves(_table(text, name, path), path):
            layer[below] = Found(value, name)
    return layer


def from_options(options: Sequence[str]) -> Layer:
    """Read `key=value`, as --set has them: the value is TOML, or else text.

    Raises:
        ConfigError: one has no key.
    """
    layer: Layer = {}
    for option in options:
        key, equals, text = option.partition("=")
        try:
            if not equals:
                raise ValueError("no =")  # noqa: TRY301 - one message for both
            try:
                read = tomllib.loads(f"{key} = {text}")
            except tomllib.TOMLDecodeError:
                read = tomllib.loads(f"{key} = {json.dumps(text)}")
        except ValueError:
            raise ConfigError(f"--set takes KEY=VALUE, as in scorer.nodes=4, got {key!r}") from None
        for path, value in _leaves(read, ()):
            layer[path] = Found(value, f"--set {key.strip()}")
    return layer


def merged(model: type[BaseModel], layers: Iterable[Layer]) -> Layer:
    """Put later sources over earlier ones, and read the secrets that lie in files.

    Raises:
        ConfigError: a secret cannot be read, or one source names it twice.
    """
    result: Layer = {}
    for layer in layers:
        own = _with_secret_files(model, layer)
        for path, found in own.items():
            for other in [old for old in result if _hides(path, found, old)]:
                del result[other]
        result |= own
    return {path: _opened(path, found) if found.file else found for path, found in result.items()}


def nested(layer: Layer) -> dict[str, Any]:
    """Return values as the tables that they stand in."""
    tree: dict[str, Any] = {}
    for path, found in layer.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        if found.value == {}:
            node.setdefault(path[-1], {})
        else:
            node[path[-1]] = found.value
    return tree


def explained(model: type[BaseModel], layer: Layer, error: ValidationError) -> list[Problem]:
    """Say of everything that is wrong where it came from, and what may have been meant."""
    told = [_problem(model, layer, dict(one)) for one in error.errors(include_url=False)]
    return sorted(told, key=lambda problem: (problem.source, problem.key))


def source_of(layer: Layer, path: Path) -> str:
    """Return where a key was set: itself, else what is beneath it, else its table; or "" where nobody did."""
    if path in layer:
        return layer[path].source
    near = [found.source for other, found in layer.items() if other[: len(path)] == path]
    if not near and len(path) > 1:
        return source_of(layer, path[:-1])
    return near[0] if near else ""


def _problem(model: type[BaseModel], layer: Layer, one: dict[str, Any]) -> Problem:
    path = tuple(str(part) for part in one["loc"] if part != "[key]")
    name, source = dotted(path), source_of(layer, path)
    if one["type"] == "extra_forbidden":
        by_variable = source.startswith(PREFIX)
        meant = [variable(near) if by_variable else dotted(near) for near in suggestion(model, path)]
        hint = f": did you mean {' or '.join(meant)}?" if meant else ": docs/configuration.md has them all"
        return Problem(name, source, f"there is no such {'variable' if by_variable else 'key'}{hint}")
    if one["type"] == "missing":
        file = f", or name a file that holds it as {name}{FILE}" if is_secret(model, path) else ""
        return Problem(name, source, f"is not set: set it in scorewire.toml, or as {variable(path)}{file}")
    said = str(one["msg"]).removeprefix("Value error, ")
    shown = isinstance(one["input"], str | int | float) and not is_secret(model, path)
    return Problem(name, source, f"{said}, got {one['input']!r}" if shown else said)


def _statements(text: str) -> Iterator[tuple[int, Path, dict[str, Any]]]:
    """Take valid TOML apart: the line that each statement begins on, the table it stands in, what it says."""
    table: Path = ()
    begun: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        begun.append(line)
        try:
            said = tomllib.loads("\n".join(begun))
        except tomllib.TOMLDecodeError:
            continue  # it goes on in the next line
        first = number - len(begun) + 1
        begun = []
        if line.lstrip().startswith("["):
            table = next(path for path, _ in _leaves(said, ()))
            yield first, table, {}
        elif said:
            yield first, table, said


def _leaves(node: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield what is no table, and tables that are empty."""
    if not node and path:
        yield path, {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _table(text: str, name: str, path: Path) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except ValueError:
        read = None
    if isinstance(read, dict):
        return read
    raise ConfigError([Problem(dotted(path), name, 'is a table: write it as JSON, such as {"key": "value"}')])


def _is_service_link(name: str, text: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(name)) or (
        name.endswith("_PORT") and text.startswith(("tcp://", "udp://", "sctp://"))
    )


def _hides(path: Path, found: Found, old: Path) -> bool:
    """Say whether a value leaves no room for an older one; tables are put together."""
    return path[: len(old)] == old or (found.value != {} and old[: len(path)] == path)


def _with_secret_files(model: type[BaseModel], layer: Layer) -> Layer:
    """Bring `NAME_file` under NAME, where NAME is a secret."""
    own = dict(layer)
    for path, found in layer.items():
        secret = (*path[:-1], path[-1].removesuffix(FILE))
        if secret == path or not is_secret(model, secret) or path in keys(model):
            continue
        if secret in layer:
            raise ConfigError(
                [Problem(dotted(path), found.source, f"{secret[-1]} is set as well: keep one of them")]
            )
        del own[path]
        own[secret] = replace(found, file=True)
    return own


def _opened(path: Path, found: Found) -> Found:
    name = dotted(path)
    try:
        secret = FilePath(str(found.value)).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(
            [Problem(name + FILE, found.source, f"cannot read {found.value}: {why}")]
        ) from error
    if not secret:
        raise ConfigError([Problem(name + FILE, found.source, f"{found.value} is empty")])
    return Found(secret, f"{found.value}, which {found.source} names")
