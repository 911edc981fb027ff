"""A report as a page: one file, which asks nothing of any other place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from shadow import wording
from shadow.figures import Figures
from shadow.plots import pictures
from shadow.report_terminal import SHOWN, headline, subtitle, title

_TEMPLATES: Final = Path(__file__).with_name("templates")


def page(found: Figures) -> str:
    """Return a report as HTML."""
    parts, numbers = found.parts, found.numbers
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "amount": wording.amount,
        "score": wording.score,
        "us": wording.us,
        "seconds": wording.seconds,
        "moment": wording.moment,
        "visible": wording.visible,
        "commands": _commands,
    }
    # Our own drawings: nothing of a transaction is in them.
    drawn = {name: Markup(svg) for name, svg in pictures(parts).items()} if numbers["observations"] else {}  # noqa: S704
    return environment.get_template("report.html.jinja").render(
        title=title(parts),
        subtitle=subtitle(parts, numbers),
        headline=headline(parts),
        numbers=numbers,
        parts=parts,
        pictures=drawn,
        figures=_figures(numbers),
        tiles=_tiles(numbers),
    )


def _commands(text: str) -> Markup:
    """Mark what stands between backticks as a command."""
    pieces = text.split("`")
    marked = (Markup("<code>{}</code>").format(one) if i % 2 else escape(one) for i, one in enumerate(pieces))
    return Markup("").join(marked)


def _figures(numbers: Mapping[str, float]) -> list[tuple[str, str, str]]:
    return [
        (name, text, wording.interval(numbers, name, as_percent=is_share))
        for name, text, is_share in SHOWN
        if name in numbers
    ]


def _tiles(numbers: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return what is read first: a figure, its interval and what it is; unknown ones are said to be."""
    shown = [
        ("coverage", "of the live transactions have a result", wording.percent),
        ("lag_s", "behind the live stream", wording.seconds),
        ("agreement_epsilon", "of the scores within 0.01", wording.percent),
        ("flip_rate", "of the decisions differ", wording.percent),
        ("flip_amount", "in amounts whose decision differs", wording.amount),
        ("auc_gain", "gain of AUC", lambda value: f"{value:+.3f}"),
        ("precision_gain", "of precision gained at the budget", wording.points),
        ("money_gain", "saved more at the budget", wording.amount),
    ]
    return [
        {
            "text": text,
            "value": write(numbers[name]) if name in numbers else "not known yet",
            "known": name in numbers,
            "interval": wording.span(write, numbers, name) if f"{name}_low" in numbers else "",
        }
        for name, text, write in shown
    ]
