"""A report on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shadow import wording
from shadow.figures import Figures

_COLOURS: Final = {"good": "green", "bad": "red", "unsure": "yellow", "known": "cyan"}
_MARKS: Final = {"good": "+", "bad": "!", "unsure": "?", "known": "-"}
#: Rows of a table; the page has more.
_ROWS: Final = 10


def show(found: Figures, console: Console) -> None:
    """Print a report."""
    parts, numbers = found.parts, found.numbers
    console.print(f"[bold]{escape(title(parts))}[/]", highlight=False)
    console.print(f"[dim]{escape(subtitle(parts, numbers))}[/]\n", highlight=False)
    console.print(f"[bold]{escape(headline(parts))}[/]", highlight=False)
    for one in parts["findings"]:
        colour = _COLOURS[one["level"]]
        console.print(f"  [{colour}]{_MARKS[one['level']]}[/] {escape(one['text'])}", highlight=False)
    if numbers["observations"]:
        for table in _tables(parts, numbers):
            console.print()
            console.print(table)
    if parts["unknown"]:
        console.print("\n[bold]Not known yet[/]")
        for text in parts["unknown"]:
            console.print(f"  [yellow]?[/] {escape(text)}", highlight=False)
    console.print(f"\n[bold]Next[/] {escape(parts['next'])}", highlight=False)


def title(parts: Mapping[str, Any]) -> str:
    """Return what is compared."""
    if parts["kind"] == "diff":
        return (
            f"Shadow {parts['names']['shadow']} beside shadow {parts['names']['champion']}, "
            f"both of {parts['shadow']['environment']}"
        )
    shadow = parts["shadow"]
    replaced = ", ".join(f"{stage} {digest[:12]}" for stage, digest in sorted(shadow["overrides"].items()))
    return f"Shadow {shadow['name']} of {shadow['environment']}: {replaced}"


def subtitle(parts: Mapping[str, Any], numbers: Mapping[str, float]) -> str:
    """Return on what the report rests."""
    results = wording.amount(numbers["observations"])
    if parts["kind"] == "diff":
        return f"{results} of their common transactions, drawn by chance"
    shadow, covered = parts["shadow"], parts["coverage"]
    span = ""
    if numbers["observations"]:
        span = f", answered from {wording.moment(covered['first'])} to {wording.moment(covered['last'])} UTC"
    part = f", {wording.percent(shadow['sample'])} of the transactions" if shadow["sample"] < 1 else ""
    since = shadow["state_at"][:19].replace("T", " ")
    return f"{shadow['state']} since {since} UTC; {results} results{part}{span}"


def headline(parts: Mapping[str, Any]) -> str:
    """Return the verdict as a sentence."""
    return f"{parts.get('headline') or wording.VERDICTS[parts['verdict']]}."


def _tables(parts: Mapping[str, Any], numbers: Mapping[str, float]) -> Iterator[Table]:
    yield _figures(numbers)
    if parts["matrix"]["cells"]:
        yield _matrix(parts)
    if parts["different"]:
        yield _different(parts)
    if parts["slices"]["slices"]:
        yield _slices(parts["slices"])
    if parts["drift"]:
        yield _drift(parts["drift"])
    if any(parts["times"].values()):
        yield _times(parts)
    if parts["labelled"]:
        yield _thresholds(parts)


def _table(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, texts: int = 1) -> Table:
    """Return a table whose first columns are texts and the others numbers."""
    table = Table(title=name, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(wording.visible(cell)) for cell in row))
    return table


#: Figures that a table shows: name, what it is called, whether it is a share.
SHOWN: Final = (
    ("coverage", "live transactions with a result", True),
    ("agreement_exact", "scores that are the same", True),
    ("agreement_epsilon", "scores within 0.01", True),
    ("rank_correlation", "correlation of ranks (Spearman)", False),
    ("top_overlap", "overlap of the highest scores", True),
    ("psi", "population stability index", False),
    ("ks", "distance of distributions (Kolmogorov-Smirnov)", False),
    ("flip_rate", "decisions that differ", True),
    ("flip_amount", "amounts of these", False),
    ("latency_ratio", "time, of the champion's (median)", False),
    ("latency_ratio_p99", "time, of the champion's (99th percentile)", False),
    ("auc_gain", "gain of the area under the ROC curve", False),
    ("precision_gain", "gain of precision at the budget", True),
    ("recall_gain", "gain of recall at the budget", True),
    ("money_gain", "gain of money at the budget", False),
)


def _figures(numbers: Mapping[str, float]) -> Table:
    rows = [
        (text, wording.interval(numbers, name, as_percent=is_share))
        for name, text, is_share in SHOWN
        if name in numbers
    ]
    return _table("Figures, with 95 % intervals", ("", ""), rows)


def _matrix(parts: Mapping[str, Any]) -> Table:
    rows = [
        (cell["champion"], cell["shadow"], wording.amount(cell["results"]), wording.amount(cell["amount"]))
        for cell in sorted(
            parts["matrix"]["cells"], key=lambda c: (c["champion"] == c["shadow"], -c["amount"])
        )
    ]
    names = parts["names"]
    return _table("Decisions", (names["champion"], names["shadow"], "results", "amounts"), rows, texts=2)


def _different(parts: Mapping[str, Any]) -> Table:
    rows = [
        (
            one["id"],
            *(_side(one, side) for side in (0, 1)),
            "-" if one["amount"] is None else wording.amount(one["amount"]),
        )
        for one in parts["different"][:_ROWS]
    ]
    names = parts["names"]
    columns = ("transaction", names["champion"], names["shadow"], "amount")
    return _table("The most different transactions", columns, rows, texts=3)


def _side(one: Mapping[str, Any], side: int) -> str:
    told = [wording.score(one["scores"][side]), one["outcomes"][side] or ""]
    return " ".join([*filter(None, told), *one["reasons"][side]])


def _slices(found: Mapping[str, Any]) -> Table:
    rows = [
        (
            f"{one['field']} = {one['value']}",
            wording.amount(one["results"]),
            *(_rate(one[name]) for name in ("flip_rate", "flip_rate_elsewhere")),
            f"{one['difference']:+.4f}",
            f"{one['difference_elsewhere']:+.4f}",
        )
        for one in found["slices"][:_ROWS]
    ]
    columns = ("", "results", "flips", "elsewhere", "mean difference", "elsewhere")
    return _table(
        f"Slices that differ more than all others, of {found['looked_at']} that were looked at", columns, rows
    )


def _rate(value: float | None) -> str:
    return "-" if value is None else wording.percent(value)


def _drift(found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            one["feature"],
            wording.percent(one["differs"]),
            "-" if one["psi"] is None else f"{one['psi']:.3f}",
            *(wording.percent(one[name]) for name in ("missing_champion", "missing_shadow")),
        )
        for one in found[:_ROWS]
    ]
    columns = ("feature", "differs", "PSI", "missing, champion", "missing, shadow")
    return _table("Features that the shadow computes itself", columns, rows)


def _times(parts: Mapping[str, Any]) -> Table:
    rows = []
    for stage in sorted({stage for side in parts["times"].values() for stage in side}):
        mine = [parts["times"][side].get(stage) for side in ("champion", "shadow")]
        cells = [wording.us(one[of]) if one else "-" for of in ("p50_us", "p99_us") for one in mine]
        rows.append((stage, *cells))
    names = parts["names"]
    columns = [f"{of}, {names[side]}" for of in ("median", "99 %") for side in ("champion", "shadow")]
    return _table("Time of each stage", ("stage", *columns), rows)


def _thresholds(parts: Mapping[str, Any]) -> Table:
    rows = []
    for one in parts["labelled"]["thresholds"]:
        mine = [one["champion"], one["shadow"]]
        rows.append(
            (
                wording.percent(one["share"]),
                *(wording.score(side["threshold"]) for side in mine),
                *(wording.percent(side["precision"]) for side in mine),
                *(wording.percent(side["recall"]) for side in mine),
                *(wording.amount(side["money"]) for side in mine),
            )
        )
    names = parts["names"]
    columns = [
        f"{of}, {names[side]}"
        for of in ("threshold", "precision", "recall", "money saved")
        for side in ("champion", "shadow")
    ]
    return _table("What alerting a share of the transactions comes to", ("alerted", *columns), rows, texts=0)
