"""The client in JavaScript, with its packages, for the tests that run it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[1] / "examples" / "node"
#: Whether Node.js is here; without it these tests are skipped.
HAS_NODE = bool(shutil.which("node") and shutil.which("npm"))


def install(directory: Path) -> Path:
    """Copy the example beside this checkout, and install what its lock file names."""
    shutil.copytree(EXAMPLE, directory, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(command, cwd=directory, check=True, timeout=100)
    return directory


def score(
    example: Path, addresses: Sequence[str], transactions: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Score transactions by the example's command; return its lines."""
    done = subprocess.run(
        ["node", "score.mjs", *addresses],
        cwd=example,
        input="".join(json.dumps(transaction) + "\n" for transaction in transactions),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
