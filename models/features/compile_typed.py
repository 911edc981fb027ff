"""Compiles a plan into a type that a message is read into, and into a function of its values.

A message whose fields are all of the types that the spec asks for, and that has no others, is read by
msgspec into a structure, and so checked while it is read: a quarter of the time that a map takes and the
function of a map. Whatever else comes is not refused here but left to that function, so that what is refused,
and in which words, does not depend on the way that was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from models.features.compile_one import compile_source, write_source
from models.features.fields import FieldRecipe, Read
from models.features.kind import OddError
from models.features.plan import Plan
from models.spec_errors import TransactionError

_Scalar: TypeAlias = bool | int | float | str | None
#: What a field may be that nothing is computed from: all that messages carry but bytes, and nothing deep.
Flat: TypeAlias = _Scalar | list[_Scalar] | dict[str, _Scalar]
_TYPES: Final[Mapping[str, Any]] = {
    "number": float,
    "flag": bool,
    "category": str,
    "text": str,
    "ip": str,
    "timestamp": str | int | float,
}


@dataclass(frozen=True, slots=True)
class TypedSpec:
    """A spec for messages that are as it says.

    Attributes:
        fields: each field's type, and what stands for it where it is missing, if it may be.
        compute: from a transaction's values, in the fields' order, to the vector as the wire has it; None
            where a map of the same transaction has to say what is wrong.
        id_at: the place of the transaction's id among its values; None where it names none.
    """

    fields: Mapping[str, tuple[Any, ...]]
    compute: Callable[[tuple[Any, ...]], bytes | None]
    id_at: int | None

    def type_with(self, others: Iterable[str]) -> type[msgspec.Struct] | None:
        """Return what a transaction is read into, which takes these other fields and forbids all else.

        None where msgspec takes no such name: with a quote or a control character in it.
        """
        typed = {**self.fields, **dict.fromkeys(others, (Flat, ""))}
        members = {f"v{place}": one for place, one in enumerate(typed.items())}
        try:
            found = msgspec.defstruct(
                "Transaction",
                [(member, *kind) for member, (_, kind) in members.items()],
                rename={member: name for member, (name, _) in members.items()},
                forbid_unknown_fields=True,
                kw_only=True,
                gc=False,
            )
            msgspec.msgpack.Decoder(found)
        except ValueError:
            return None
        return found

    def id_of(self, values: tuple[Any, ...]) -> str:
        """Return the transaction's id; "" where it has none."""
        return "" if self.id_at is None else str(values[self.id_at])


def compile_typed(
    plan: Plan,
    fields: Mapping[str, FieldRecipe],
    id_field: str | None,
    reads: Sequence[Read],
    finish: Callable[[Sequence[float]], bytes],
) -> TypedSpec | None:
    """Return what reads typed messages; None where the id, or the name of a field, does not allow that.

    Args:
        plan: what to compute.
        fields: all fields that the spec declares.
        id_field: the field that holds a transaction's id, declared or not.
        reads: what reads each field of the plan that is not plain.
        finish: makes the vector of its numbers; may raise TransactionError.
    """
    if id_field is not None and id_field in plan.fields and not _keeps(plan.fields[id_field]):
        return None
    typed = {name: _type_of(field) for name, field in plan.fields.items()}
    others = [name for name in (*fields, id_field) if name is not None and name not in typed]
    typed |= dict.fromkeys(others, (Flat, ""))
    id_at = None if id_field is None else list(typed).index(id_field)
    found = TypedSpec(typed, _computer(plan, reads, finish), id_at)
    return None if found.type_with(()) is None else found


def _type_of(recipe: FieldRecipe) -> tuple[Any, ...]:
    """Return the type of a field that is read, and what stands for it where it is missing, if it may be."""
    own = _TYPES[recipe.type]
    return (own,) if recipe.missing == "error" else (own | None, None)


def _keeps(recipe: FieldRecipe) -> bool:
    """Say whether a value is written as it came: no number is, and None may stand for what is not there."""
    return recipe.type != "number" and recipe.missing == "error"


def _computer(
    plan: Plan, reads: Sequence[Read], finish: Callable[[Sequence[float]], bytes]
) -> Callable[[tuple[Any, ...]], bytes | None]:
    compute = compile_source(*write_source(plan, reads, typed=True))
    width = len(plan.fields)

    def packed(values: tuple[Any, ...]) -> bytes | None:
        try:
            return finish(compute(values[:width]))
        except (TransactionError, OddError):
            return None

    return packed
