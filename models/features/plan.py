"""The plan of a spec: which fields are read, and which nodes are computed in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.features.fields import FieldRecipe
from models.features.kind import NUMBERS, Kind, Type
from models.features.recipe import FeatureRecipe, Recipe

_IN_VECTOR: frozenset[Type] = NUMBERS | {"category"}


@dataclass(frozen=True)
class Node:
    """One thing to compute.

    Attributes:
        kind: how.
        args: the slots of its inputs: fields come first, then nodes.
        label: what an error calls its input.
    """

    kind: Kind
    args: tuple[int, ...]
    label: str


@dataclass(frozen=True)
class Plan:
    """What to read and what to compute; a slot is the number of a field or, beyond those, of a node.

    Attributes:
        fields: the fields that are read, in the spec's order.
        nodes: in an order in which each stands behind its inputs.
        outputs: the slots that make up the vector.
        names: the features' names; a slot of several columns has several.
    """

    fields: Mapping[str, FieldRecipe]
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    names: tuple[str, ...]


@dataclass
class _Draft:
    """A plan in the making."""

    recipe: Recipe
    slots: dict[str, int] = field(default_factory=dict)
    types: list[Type | None] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    nodes: dict[int, Node] = field(default_factory=dict)
    known: dict[tuple[str, tuple[int, ...]], int] = field(default_factory=dict)
    wide: set[int] = field(default_factory=set)

    def declare_fields(self) -> None:
        for name, one in self.recipe.fields.items():
            self.slots[name] = len(self.types)
            self.types.append(None if one.type == "any" else one.type)
            self.labels.append(name)

    def add(self, feature: FeatureRecipe) -> int:
        """Add a feature's steps; return the slot of the last."""
        args = tuple(self._slot(feature, name) for name in feature.inputs)
        for number, step in enumerate(feature.steps):
            try:
                kind = step.complete(self.recipe.tables)
            except ValueError as error:
                raise ValueError(f"feature {feature.name!r}: {error}") from error
            self._check(feature, kind, args)
            last = number == len(feature.steps) - 1
            if kind.suffixes is not None and not last:
                raise ValueError(f"feature {feature.name!r}: {kind.kind} makes columns, and must come last")
            label = self.labels[args[0]] if number == 0 else feature.name
            args = (self._node(Node(kind, args, label), feature.name),)
        return args[0]

    def _slot(self, feature: FeatureRecipe, name: str) -> int:
        slot = self.slots.get(name)
        if slot is None:
            raise ValueError(
                f"feature {feature.name!r} is of field {name!r}, which is not declared (a value or feature "
                "that it is computed from stands above it)"
            )
        if slot in self.wide:
            raise ValueError(f"feature {feature.name!r} is of {name!r}, which is several columns")
        return slot

    def _check(self, feature: FeatureRecipe, kind: Kind, args: Sequence[int]) -> None:
        for number, slot in enumerate(args):
            takes = kind.takes[min(number, len(kind.takes) - 1)]
            if self.types[slot] not in takes:
                found = self.types[slot] or "field of type any"
                raise ValueError(
                    f"feature {feature.name!r} is a {kind.kind}, which is of a {' or '.join(sorted(takes))}, "
                    f"and field {self.labels[slot]!r} is a {found}"
                )

    def _node(self, node: Node, name: str) -> int:
        """Add a node unless the very same one is there: what two features share is computed once."""
        key = (node.kind.model_dump_json(), node.args)
        slot = self.known.get(key)
        if slot is None:
            slot = self.known[key] = len(self.types)
            self.types.append(node.kind.makes)
            self.labels.append(name)
            self.nodes[slot] = node
            if node.kind.suffixes is not None:
                self.wide.add(slot)
        return slot

    def columns(self, feature: FeatureRecipe, slot: int) -> tuple[str, ...]:
        """Return the names of a feature's columns."""
        if self.types[slot] not in _IN_VECTOR:
            raise ValueError(f"feature {feature.name!r} is a {self.types[slot]}, and a vector holds numbers")
        suffixes = self.nodes[slot].kind.suffixes if slot in self.nodes else None
        if feature.names is not None:
            if suffixes is None or len(suffixes) != len(feature.names):
                raise ValueError(f"feature {feature.name!r} has {len(feature.names)} names for other columns")
            return feature.names
        return (feature.name,) if suffixes is None else tuple(f"{feature.name}={one}" for one in suffixes)


def make_plan(recipe: Recipe) -> Plan:
    """Put a recipe's features in order.

    Raises:
        ValueError: an input is not there or of another type, or a name is taken twice.
    """
    draft = _Draft(recipe)
    draft.declare_fields()
    for value in recipe.values:
        if value.name in draft.slots:
            raise ValueError(f"value {value.name!r} has the name of a field or of another value")
        draft.slots[value.name] = draft.add(value)
    outputs: list[int] = []
    names: list[str] = []
    for feature in recipe.features:
        slot = draft.add(feature)
        outputs.append(slot)
        names += draft.columns(feature, slot)
        draft.slots.setdefault(feature.name, slot)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"a feature is named twice: {twice!r}")
    return _pruned(draft, outputs, names)


def _pruned(draft: _Draft, outputs: Sequence[int], names: Sequence[str]) -> Plan:
    """Leave out what no feature is computed from, and number the rest."""
    needed = set(outputs)
    for slot in sorted(draft.nodes, reverse=True):
        if slot in needed:
            needed |= set(draft.nodes[slot].args)
    fields = [
        name
        for name, slot in zip(draft.recipe.fields, range(len(draft.types)), strict=False)
        if slot in needed
    ]
    kept = sorted(needed)
    place = {slot: number for number, slot in enumerate(kept)}
    nodes = tuple(
        Node(node.kind, tuple(place[arg] for arg in node.args), node.label)
        for slot, node in draft.nodes.items()
        if slot in needed
    )
    return Plan(
        {name: draft.recipe.fields[name] for name in fields},
        nodes,
        tuple(place[slot] for slot in outputs),
        tuple(names),
    )
