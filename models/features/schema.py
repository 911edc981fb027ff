"""The JSON Schema (draft 2020-12) of the transactions that a spec takes, derived from its plan.

It says all that a single field has to be. What depends on two fields at once (a product that float32 cannot
hold) no schema can say; and of timestamps it asks for RFC 3339, where a spec takes more of ISO 8601.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.features.fields import FieldRecipe
from models.features.functions import IN_VECTOR
from models.features.kind import NOT_MISSING
from models.features.plan import Plan

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
#: The end of a text; Python's `$` also stands before a last line break.
_END = r"$(?![\s\S])"
#: Seconds since 1970 that are a date in every time zone.
_FIRST_S, _LAST_S = -62135510400, 253402214400


def json_schema(title: str, plan: Plan) -> dict[str, Any]:
    """Return the schema of a transaction."""
    asked = _asked(plan)
    fields = {name: _field(recipe, asked.get(name, [])) for name, recipe in plan.fields.items()}
    required = [
        name
        for name, recipe in plan.fields.items()
        if recipe.missing == "error" or NOT_MISSING in asked.get(name, [])
    ]
    return {
        "$schema": _DRAFT,
        "title": title,
        "type": "object",
        "properties": fields,
        "required": required,
    }


def _asked(plan: Plan) -> dict[str, list[Mapping[str, Any]]]:
    """Return what nodes ask of the fields that they are computed from, and the vector of those in it."""
    names = list(plan.fields)
    found: dict[str, list[Mapping[str, Any]]] = {}
    for number, node in enumerate(plan.nodes, len(names)):
        for position, slot in enumerate(node.args):
            if slot < len(names):
                name = names[slot]
                in_vector = IN_VECTOR.get(node.kind.kind) if number in plan.outputs else None
                for one in (*node.kind.asks(position), *([in_vector] if in_vector else [])):
                    # What is missing was replaced by a number before any node saw it.
                    if one != NOT_MISSING or plan.fields[name].missing == "nan":
                        found.setdefault(name, []).append(one)
    return found


def _field(recipe: FieldRecipe, asked: list[Mapping[str, Any]]) -> dict[str, Any]:
    optional = recipe.missing != "error"
    kinds = _of_type(recipe)
    found: dict[str, Any] = {"anyOf": [*kinds, {"type": "null"}]} if optional else _single(kinds)
    return {**found, "allOf": [dict(one) for one in asked]} if asked else found


def _single(kinds: list[dict[str, Any]]) -> dict[str, Any]:
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _of_type(recipe: FieldRecipe) -> list[dict[str, Any]]:
    """Return what a value of a field may be; any one of these."""
    if recipe.type == "number":
        return [{"type": "number", "minimum": recipe.low, "maximum": recipe.high}]
    if recipe.type == "flag":
        return [{"type": "boolean"}]
    if recipe.type == "category":
        return [{"enum": list(recipe.categories)} if recipe.unknown == "error" else {"type": "string"}]
    if recipe.type == "text":
        return [{"type": "string", "maxLength": recipe.max_length}]
    if recipe.type == "ip":
        return [{"type": "string", "pattern": _ADDRESS}]
    seconds = {"type": "number", "minimum": _FIRST_S, "maximum": _LAST_S}
    return [{"type": "string", "format": "date-time", "pattern": _MOMENT}, seconds]


_LEAP = r"[12][0-9](?:0[48]|[2468][048]|[13579][26])|(?:12|16|20|24|28)00"
_DATE = (
    rf"(?:(?:{_LEAP})-02-29|[12][0-9]{{3}}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8])))"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
_MOMENT = rf"^{_DATE}[T ]{_TIME}(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]){_END}"


def _address() -> str:
    """Return the pattern of IPv4 and IPv6 addresses, as inet_pton takes them."""
    byte = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    v4, group = rf"{byte}(?:\.{byte}){{3}}", "[0-9A-Fa-f]{1,4}"
    found = [v4, f"(?:{group}:){{7}}{group}", f"(?:{group}:){{6}}{v4}"]
    for left in range(8):
        # `::` stands for at least one group of the eight.
        before = f"{group}(?::{group}){{{left - 1}}}" if left else ""
        right = 7 - left
        after = [f"{group}(?::{group}){{0,{right - 1}}}"] if right else []
        after += [f"(?:{group}:){{0,{right - 2}}}{v4}"] if right > 1 else []
        found.append(f"{before}::(?:{'|'.join(after)})?" if after else f"{before}::")
    return f"^(?:{'|'.join(found)}){_END}"


_ADDRESS = _address()
