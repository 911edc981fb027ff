"""Writes a code package to begin with: it builds, and passes the checks of a node."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Final

from actors.errors import ScaffoldError
from models.code.interface import Stage

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

_PROJECT: Final = Template("""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$name"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = [$dependencies]

[project.entry-points."scorewire.$stage"]
$name = "$name:$function"

[tool.setuptools]
packages = ["$name"]
package-data = { $name = ["scorewire.toml"] }
""")

_SOURCES: Final[Mapping[Stage, str]] = {
    "features": '''\
"""Features of a transaction."""

import math


class Refused(ValueError):
    """Raised when a transaction is at fault: the caller is told the field and the rule that it breaks."""

    def __init__(self, field, rule, detail):
        super().__init__(detail)
        self.field, self.rule = field, rule


def features(transaction):
    """Return the features, in the order of scorewire.toml; NaN is a missing value."""
    amount = transaction.get("amount")
    if not isinstance(amount, int | float) or amount < 0:
        raise Refused("amount", "range", f"must be a number from 0, got {amount!r}")
    return [math.log1p(amount), transaction.get("age", math.nan)]
''',
    "decision": '''\
"""Decides on a transaction by its scores."""


def decide(transaction, scores):
    """Return an outcome (approve, review, decline) and the codes of its reasons."""
    score = list(scores.values())[-1]
    if score >= 0.9:
        return "decline", ["high_score"]
    if transaction.get("amount", 0) > 1000 and score >= 0.5:
        return "review", ["large_amount"]
    return "approve", []
''',
    "model": '''\
"""Scores vectors."""

import numpy as np


def score(rows):
    """Score rows: float32 [rows, features] -> numbers [rows, outputs]."""
    logit = rows.astype(np.float64) @ [0.5, -0.25]
    return 1 / (1 + np.exp(-logit[:, None]))
''',
}

_DECLARATIONS: Final[Mapping[Stage, str]] = {
    "features": """\
id = "id"                        # the field that holds a transaction's id
features = ["log_amount", "age"] # the vector, in its order
ulps = 1                         # units in the last place that a golden value may differ by: log1p differs

[fields.card]
store = "hash"                   # what of a field is stored with live records: keep, hash or drop

[[golden]]                       # computed again by each node before it serves
transaction = { id = "1", amount = 12.5, age = 40 }
vector = [2.6026897, 40]

[[golden]]
transaction = { id = "2", amount = 0 }
vector = [0, nan]
""",
    "decision": """\
reasons = ["high_score", "large_amount"]

[[golden]]                       # decided again by each node before it serves
transaction = { amount = 10 }
scores = { fraud = 0.95 }
outcome = "decline"
reasons = ["high_score"]

[[golden]]
transaction = { amount = 10 }
scores = { fraud = 0.6 }
outcome = "approve"
""",
    "model": """\
features = ["log_amount", "age"] # what it takes, as the features stage names it
outputs = ["fraud"]
ulps = 4                         # units in the last place that a golden score may differ by

[[golden]]                       # scored again by each node before it serves
vector = [2, 4]
scores = [0.5]
""",
}
_FUNCTIONS: Final[Mapping[Stage, str]] = {"features": "features", "decision": "decide", "model": "score"}


def scaffold(directory: Path, name: str, stage: Stage) -> list[Path]:
    """Write a package that is ready to be built; return its files.

    Args:
        directory: where its folder goes.
        name: of the package and of its module.
        stage: what it stands for.

    Raises:
        ScaffoldError: the name cannot be a module's, or is taken there, or the files cannot be written.
    """
    if not _NAME.fullmatch(name) or name in sys.stdlib_module_names:
        raise ScaffoldError(
            f"{name!r} is no name for a package: small letters, digits and _, and no module of Python's"
        )
    files = {
        "pyproject.toml": _PROJECT.substitute(
            name=name,
            stage=stage,
            function=_FUNCTIONS[stage],
            dependencies='"numpy>=2.0"' if stage == "model" else "",
        ),
        f"{name}/__init__.py": _SOURCES[stage],
        f"{name}/scorewire.toml": _DECLARATIONS[stage],
    }
    root = directory / name
    try:
        root.mkdir(parents=True)
        for file, text in files.items():
            (root / file).parent.mkdir(exist_ok=True)
            (root / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScaffoldError(f"{root} cannot be written: {error}") from error
    return [root / file for file in files]
