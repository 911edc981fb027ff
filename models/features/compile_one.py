"""Compiles a plan into one Python function of a transaction.

The function is Python source that is written here and compiled when a spec is loaded: fields are read with
one `map`, common values are checked inline, and each node is one line. Everything that comes from the spec's
file (names, numbers, tables) is bound to a name that the writer made up; none of it is part of the source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.features.fields import Read, write_field
from models.features.kind import Writer
from models.features.plan import Plan

#: From a transaction to the vector's numbers.
Compute = Callable[[Mapping[str, Any]], Sequence[float]]


def write_source(plan: Plan, reads: Sequence[Read]) -> tuple[str, dict[str, Any]]:
    """Return the function's source, and what its names stand for.

    Args:
        plan: what to compute.
        reads: what reads each field that is not plain.
    """
    out = Writer()
    variables = [f"v{number}" for number in range(len(plan.fields) + len(plan.nodes))]
    names = out.bind(tuple(plan.fields))
    out.line(f"{''.join(f'{one}, ' for one in variables[: len(plan.fields)])} = map(tx.get, {names})")
    for variable, field, read in zip(variables, plan.fields.values(), reads, strict=False):
        write_field(out, variable, field, read)
    for variable, node in zip(variables[len(plan.fields) :], plan.nodes, strict=True):
        text = node.kind.write(out, [variables[arg] for arg in node.args], node.label)
        out.line(f"{variable} = {text}")
    wide = {
        len(plan.fields) + number for number, node in enumerate(plan.nodes) if node.kind.suffixes is not None
    }
    parts = (f"{'*' * (slot in wide)}{variables[slot]}, " for slot in plan.outputs)
    out.line(f"return ({''.join(parts)})")
    return "\n".join(["def compute(tx):", *out.lines, ""]), out.bound


def compile_one(plan: Plan, reads: Sequence[Read]) -> Compute:
    """Return the compiled function; it raises TransactionError, naming field and rule."""
    source, bound = write_source(plan, reads)
    # The source is ours alone: see the docstring above, and the test with a hostile file.
    builtins = {"map": map, "type": type, "float": float, "str": str, "len": len, "abs": abs}
    scope: dict[str, Any] = {"__builtins__": builtins, **bound}
    exec(compile(source, "<feature spec>", "exec"), scope)  # noqa: S102
    function: Compute = scope["compute"]
    return function


def finite(numbers: Sequence[float]) -> bool:
    """Say whether all numbers are finite, fast: a sum is finite only if they are."""
    return math.isfinite(sum(numbers))
