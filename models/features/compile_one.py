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
from models.features.kind import OddError, Writer
from models.features.plan import Plan

#: From a transaction to the vector's numbers.
Compute = Callable[[Mapping[str, Any]], Sequence[float]]


def write_source(plan: Plan, reads: Sequence[Read], *, typed: bool = False) -> tuple[str, dict[str, Any]]:
    """Return the function's source, and what its names stand for.

    Args:
        plan: what to compute.
        reads: what reads each field that is not plain.
        typed: whether the function takes the fields' values, in their order and of their types, instead of a
            transaction; it raises OddError where one of several is not finite.
    """
    out = Writer()
    fields = [f"v{number}" for number in range(len(plan.fields))]
    checked = []
    for variable, field, read in zip(fields, plan.fields.values(), reads, strict=True):
        if typed and field.is_any_number:
            checked.append(variable)
        else:
            write_field(out, variable, field, read)
    if checked:  # a sum is finite only if they are: a fifth of the time that it takes to look at each
        finite_, odd = out.bind(math.isfinite), out.bind(OddError)
        out.line(f"if not {finite_}(sum({_tuple_of(checked, fields)})): raise {odd}")
    values = list(fields)
    for node in plan.nodes:
        text = node.kind.write(out, [values[arg] for arg in node.args], node.label)
        if text not in fields:  # else it is that field as it is
            name = f"v{len(values)}"
            out.line(f"{name} = {text}")
            text = name
        values.append(text)
    wide = {
        len(plan.fields) + number for number, node in enumerate(plan.nodes) if node.kind.suffixes is not None
    }
    outputs = [f"{'*' * (slot in wide)}{values[slot]}" for slot in plan.outputs]
    # Where all fields are checked at once, those that were given are as they should be.
    out.line(f"return {_tuple_of(outputs, fields if checked == fields else ())}")
    found = "tx" if typed else f"map(tx.get, {out.bind(tuple(plan.fields))})"
    unpack = f"    {''.join(f'{one}, ' for one in fields)} = {found}"
    head = ["def compute(tx):", *([] if checked == fields == outputs else [unpack])]
    return "\n".join([*head, *out.lines, ""]), out.bound


def _tuple_of(variables: Sequence[str], fields: Sequence[str]) -> str:
    """Return a tuple of variables: the one that was given, where they are all fields in their order."""
    return "tx" if variables == fields else f"({''.join(f'{one}, ' for one in variables)})"


def compile_one(plan: Plan, reads: Sequence[Read]) -> Compute:
    """Return the compiled function; it raises TransactionError, naming field and rule."""
    return compile_source(*write_source(plan, reads))


def compile_source(source: str, bound: Mapping[str, Any]) -> Callable[[Any], Sequence[float]]:
    """Compile what `write_source` wrote."""
    # The source is ours alone: see the docstring above, and the test with a hostile file.
    builtins = {"map": map, "type": type, "float": float, "str": str, "len": len, "abs": abs, "sum": sum}
    scope: dict[str, Any] = {"__builtins__": builtins, **bound}
    exec(compile(source, "<feature spec>", "exec"), scope)  # noqa: S102
    function: Callable[[Any], Sequence[float]] = scope["compute"]
    return function


def finite(numbers: Sequence[float]) -> bool:
    """Say whether all numbers are finite, fast: a sum is finite only if they are."""
    return math.isfinite(sum(numbers))
