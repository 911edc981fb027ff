"""Alert rules, and what a query selects."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
MISSING = "there is no Prometheus: `apt-get install prometheus` brings it"


def alerts() -> Iterator[dict[str, Any]]:
    """Yield each alert rule."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def selectors(query: str) -> Iterator[promql_parser.VectorSelector]:
    """Yield what a query selects.

    Raises:
        ValueError: it is no PromQL.
    """
    waiting: list[Any] = [promql_parser.parse(query)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, promql_parser.VectorSelector):
            yield node
        for name in ("expr", "lhs", "rhs", "args", "vector_selector", "param"):
            found = getattr(node, name, None)
            waiting += found if isinstance(found, list) else [] if found is None else [found]
