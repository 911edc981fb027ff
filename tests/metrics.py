"""All figures that processes show, from where they are declared."""

from __future__ import annotations

import types
from collections.abc import Mapping

import actors.balancer
import actors.metrics
import actors.node_metrics
import shadow.metrics
import transport.metrics
from transport.metrics import Metric

_MODULES = (transport.metrics, actors.metrics, actors.node_metrics, actors.balancer, shadow.metrics)


def declared(module: types.ModuleType) -> list[Metric]:
    """Return the metrics of a module, whether they stand alone or in tables."""
    found: list[Metric] = []
    for name, one in vars(module).items():
        of_one = (one,) if isinstance(one, Metric) else one.values() if isinstance(one, Mapping) else ()
        found += [metric for metric in of_one if name.isupper() and isinstance(metric, Metric)]
    return found


CATALOGUE = {metric.name: metric for module in _MODULES for metric in declared(module)}


def table() -> str:
    """Return the table of docs/observability.md."""
    lines = (f"| `{one.name}` | {one.kind} | {one.help} |" for one in CATALOGUE.values())
    return "\n".join(("| figure | kind | what it is |", "|---|---|---|", *lines))
