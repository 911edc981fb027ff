"""Tells people what a bundle holds: the model, what matters in it, and how the layout packed it."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from models.bundle import Bundle
from models.layout import SPLITS

_SHOWN_FEATURES = 15
_BAR = 30


def describe(bundle: Bundle) -> dict[str, Any]:
    """Return all facts of a bundle, ready for JSON.

    Returns:
        What the bundle says of itself (BundleMeta), and `digest`, `bytes`, `features_used`,
        `golden_vectors`, and `layout` (see layout_facts).
    """
    meta = bundle.meta
    return {
        "digest": bundle.digest,
        "bytes": bundle.size,
        **meta.model_dump(mode="json"),
        "features_used": sum(share > 0 for share in meta.importance),
        "golden_vectors": len(bundle.golden.x),
        "layout": layout_facts(bundle),
    }


def layout_facts(bundle: Bundle) -> dict[str, Any]:
    """Return how the trees are packed.

    Returns:
        `lines` of 64 bytes; `splits_a_line`, their mean; `lines_by_splits`, how many lines hold 0, 1, ... 8
        splits; `shapes`; `distinct_leaves`, and whether the lines name them themselves (`leaves_inline`);
        `bytes_a_node` of the whole file; `bytes_of` each array; `huge_page_bytes` in which it is mapped just
        now.
    """
    forest = bundle.forest
    # What is no split compares with +inf; nobody trains a split that all rows pass on one side.
    sets = np.unpackbits(forest.lines["category"][:, None], axis=1, bitorder="little") > 0
    used = ((forest.lines["threshold"] < np.inf) | sets).sum(1)
    arrays = {
        **{name: getattr(forest, name) for name in ("lines", "roots", "shapes", "codes", "table")},
        **{name: getattr(bundle, name) for name in ("categories", "levels", "level_codes")},
    }
    by_part = {name: int(array.nbytes) for name, array in arrays.items()}
    return {
        "lines": int(forest.lines.size),
        "splits_a_line": round(float(used.mean()), 2),
        "lines_by_splits": np.bincount(used, minlength=SPLITS + 1).tolist(),
        "shapes": len(forest.shapes),
        "distinct_leaves": len(forest.table),
        "leaves_inline": forest.codes.size == 0,
        "bytes_a_node": round(bundle.size / bundle.meta.n_nodes, 2),
        "bytes_of": {**by_part, "the rest": bundle.size - sum(by_part.values())},
        "huge_page_bytes": bundle.huge,
    }


def render(facts: dict[str, Any]) -> RenderableType:
    """Return the facts of `describe` as tables for a terminal."""
    return Group(_overview(facts), _features(facts), _layout(facts["layout"]))


def _overview(facts: dict[str, Any]) -> Table:
    table = Table(title="The model", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a digest is copied whole
    trained, notes = facts["trained_at"], facts["notes"]
    rows = {
        "model": f"{facts['model_class']} of {facts['library']} {facts['library_version']}, {facts['task']}",
        "digest": facts["digest"],
        "trained": trained or "nobody said when (--trained-at)",
        "imported": facts["imported_at"],
        "provenance": "\n".join(f"{key}: {value}" for key, value in notes.items()) or "none (--note)",
        "outputs": ", ".join(facts["outputs"][:20]),
        "scores": f"{facts['link']} of sums in {facts['sum_dtype']}, thresholds in {facts['input_dtype']}",
        "missing values": "are taken" if facts["allows_missing"] else "are refused",
        "trees": f"{facts['n_trees']:,}",
        "nodes": f"{facts['n_nodes']:,}",
        "depth": f"{facts['depth']} at most, {facts['mean_depth']:.1f} splits a row and tree",
        "features": f"{len(facts['feature_names'])}, of which {facts['features_used']} are used",
        "size": f"{facts['bytes'] / 1e6:,.2f} MB",
        "golden vectors": f"{facts['golden_vectors']}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _features(facts: dict[str, Any]) -> Table:
    title = f"Features, by {facts['importance_kind'] or 'importance'}"
    table = Table("feature", "share", "", title=title, title_justify="left")
    ranked = sorted(zip(facts["importance"], facts["feature_names"], strict=False), key=lambda pair: -pair[0])
    highest = ranked[0][0] if ranked else 0.0
    for share, name in ranked[:_SHOWN_FEATURES]:
        table.add_row(name, f"{share:.2%}", _bar(share, highest))
    if len(ranked) > _SHOWN_FEATURES:
        rest = ranked[_SHOWN_FEATURES:]
        table.add_row(f"{len(rest)} others", f"{sum(share for share, _ in rest):.2%}", "")
    return table


def _layout(layout: dict[str, Any]) -> Group:
    lines = layout["lines"]
    title = f"{lines:,} lines of 64 bytes, {layout['splits_a_line']} splits a line"
    fill = Table("splits", "lines", "", title=title, title_justify="left")
    most = max(layout["lines_by_splits"])
    for splits, count in enumerate(layout["lines_by_splits"]):
        fill.add_row(str(splits), f"{count:,}", _bar(count, most))
    title = f"{layout['bytes_a_node']} bytes a node"
    parts = Table("part", "bytes", title=title, title_justify="left")
    for name, size in layout["bytes_of"].items():
        parts.add_row(name, f"{size:,}")
    parts.add_row("of these in huge pages now", f"{layout['huge_page_bytes']:,}")
    return Group(fill, parts)


def _bar(value: float, highest: float) -> str:
    return "█" * round(_BAR * value / highest) if highest > 0 else ""
