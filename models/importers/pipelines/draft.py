"""The feature spec in the making, while columns are followed through transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from models.errors import ImportRefusedError

Step = Mapping[str, Any]
ColumnType = Literal["raw", "number", "text"]
#: Steps that leave a value missing only where it was before.
_KEEPING = frozenset({"standardise", "linear", "clip", "bin"})
#: Functions of the system's library of mathematics: NumPy's own may differ in the last bit of a float64.
INEXACT = frozenset(
    {"log1p", "log", "log2", "log10", "exp", "expm1", "sin", "cos", "tanh", "arcsinh", "cbrt"}
)
#: Steps for which the last bit of a number is all the world.
_SHARP = frozenset({"bin", "floor", "ceil", "round", "sign", "map", "target", "onehot", "replace"})
#: Texts are only looked up, so their length is no matter.
_LONGEST_TEXT = 100_000


@dataclass(frozen=True)
class Group:
    """Several columns that one step makes at once.

    Attributes:
        base: what they are made from.
        step: the kind that makes all of them.
        single: the kind that makes each of them alone.
    """

    base: Column
    step: Step
    single: tuple[Step, ...]


@dataclass(frozen=True)
class Column:
    """What an input column has become so far.

    Attributes:
        inputs: fields or values of the spec that it is computed from.
        steps: how, one after another.
        type: raw is a field that nobody has used yet.
        present: it can no longer be missing.
        group: it is one of these, at `place`.
        place: see group.
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    type: ColumnType = "raw"
    present: bool = False
    group: Group | None = None
    place: int = 0


@dataclass
class Draft:
    """Fields and values that were declared so far.

    Attributes:
        names: names of the input columns.
        fields: a field's declaration as a spec has it.
        values: values that several features are computed from.
        categories: what a field's values may be, where an encoder knows; for test rows.
        numbers: numbers that matter for a field (bounds, means); for test rows.
        none: fields whose missing values training held as None; NaN elsewhere.
    """

    names: tuple[str, ...]
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[str, list[Any]] = field(default_factory=dict)
    numbers: dict[str, list[float]] = field(default_factory=dict)
    none: set[str] = field(default_factory=set)

    def raw(self) -> list[Column]:
        """Return the input columns."""
        return [Column((name,)) for name in self.names]

    def number(self, column: Column) -> Column:
        """Return a column as numbers.

        Raises:
            ImportRefusedError: it is text.
        """
        if column.group is not None:
            single = column.group.single[column.place]
            return replace(
                column.group.base, steps=(*column.group.base.steps, single), type="number", present=True
            )
        return self._typed(column, "number", {"type": "number", "missing": "nan"})

    def flag(self, column: Column) -> Column:
        """Return a column of true and false as numbers."""
        return self._typed(column, "number", {"type": "flag"})

    def text(self, column: Column) -> Column:
        """Return a column as text.

        Raises:
            ImportRefusedError: it is numbers.
        """
        return self._typed(column, "text", {"type": "text", "missing": "nan", "max_length": _LONGEST_TEXT})

    def _typed(self, column: Column, kind: ColumnType, declared: dict[str, Any]) -> Column:
        if column.type == "raw":
            (name,) = column.inputs
            if self.fields.setdefault(name, declared)["type"] != declared["type"]:
                raise ImportRefusedError(
                    f"column {name!r} is used as {self.fields[name]['type']} and as {declared['type']}: "
                    "a field of a transaction is one of them"
                )
            return replace(column, type=kind)
        if column.type != kind:
            raise ImportRefusedError(f"column {column.inputs[0]!r} is {column.type} where {kind} is needed")
        return column

    def must_be_there(self, column: Column) -> None:
        """Refuse transactions in which a column of text is missing."""
        if not column.present and column.steps:
            raise ImportRefusedError(f"column {column.inputs[0]!r} must not be missing behind other steps")
        if not column.steps:
            self.fields[column.inputs[0]]["missing"] = "error"

    def then(self, column: Column, step: Step, *, present: bool = False) -> Column:
        """Return what a step makes of a column of numbers."""
        column = self.number(column)
        kept = present or (column.present and step["kind"] in _KEEPING)
        return replace(column, steps=(*column.steps, step), present=kept)

    def required(self, column: Column) -> Column:
        """Return a column of numbers that refuses what is missing."""
        column = self.number(column)
        return column if column.present else self.then(column, {"kind": "required"}, present=True)

    def named(self, column: Column) -> str:
        """Return the name under which other features find a column of numbers."""
        column = self.number(column)
        if not column.steps:
            return column.inputs[0]
        for value in self.values:
            if value["fields"] == list(column.inputs) and value["steps"] == list(column.steps):
                return str(value["name"])
        name = f"value_{len(self.values)}"
        while name in self.names:
            name += "_"
        self.values.append({"name": name, "fields": list(column.inputs), "steps": list(column.steps)})
        return name

    def together(self, kind: str, columns: Sequence[Column]) -> Column:
        """Return several columns of numbers put together."""
        return Column(tuple(self.named(column) for column in columns), ({"kind": kind},), "number")

    def note(self, column: Column, *, numbers: Sequence[float] = (), categories: Sequence[Any] = ()) -> None:
        """Remember what values matter for the field that a column comes from."""
        name = column.inputs[0]
        self.categories.setdefault(name, []).extend(categories)
        self.numbers.setdefault(name, []).extend(map(float, numbers))


def _exactly(steps: Sequence[Step]) -> list[Step]:
    """Have functions computed by NumPy, as in training, where a step behind them needs the last bit."""
    last = max((at for at, step in enumerate(steps) if step["kind"] in _SHARP), default=0)
    return [
        {**step, "numpy": True} if step["kind"] in INEXACT and at < last else step
        for at, step in enumerate(steps)
    ]


def features(draft: Draft, columns: Sequence[Column], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the features of a spec: one for each column, or for a run of columns of one group.

    Args:
        draft: what was declared.
        columns: what came out of the last transformer.
        names: their names.
    """
    found: list[dict[str, Any]] = []
    place = 0
    while place < len(columns):
        group = columns[place].group
        width = len(group.single) if group else 1
        run = columns[place : place + width]
        if group and len(run) == width and all(c.group is group and c.place == i for i, c in enumerate(run)):
            base = group.base
            steps, own = _exactly([*base.steps, group.step]), {"names": list(names[place : place + width])}
            found.append({"name": names[place], "fields": list(base.inputs), "steps": steps, **own})
            place += width
            continue
        one = draft.number(columns[place])
        kind = "flag" if draft.fields.get(one.inputs[0], {}).get("type") == "flag" else "numeric"
        steps = _exactly(one.steps) or [{"kind": kind}]
        found.append({"name": names[place], "fields": list(one.inputs), "steps": steps})
        place += 1
    return found
