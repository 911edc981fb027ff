"""The pictures of a report: SVG that stands in a page and takes its colours from it.

Nothing that came in a transaction is drawn as text here; names of shadows have letters and digits alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from shadow.errors import ReportError
from shadow.wording import amount, percent

#: Stand-ins that matplotlib draws with, and what of the page's style takes their place.
_TEXT, _CHAMPION, _SHADOW, _FAINT, _FLIP = "#000001", "#000002", "#000003", "#000004", "#000005"
_COLOURS: Final = {
    _TEXT: "currentColor",
    _CHAMPION: "var(--champion)",
    _SHADOW: "var(--shadow)",
    _FAINT: "var(--faint)",
    _FLIP: "var(--flip)",
}
_STYLE: Final = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "scorewire",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # what widths are measured with; the page's own font is drawn
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _TEXT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.alpha": 0.5,
    "grid.linewidth": 0.6,
    "text.color": _TEXT,
    "text.parse_math": False,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
_SIDES: Final = (("champion", _CHAMPION), ("shadow", _SHADOW))
#: Between labels below this share the axis of alerts is cut.
_LEAST_SHARE: Final = 1e-4

#: So many points are no trend.
_NO_TREND: Final = 2

Draw = Callable[[Any], None]


def trend(parts: Mapping[str, Any]) -> str:
    """Draw results and flips over time."""
    found = parts["trend"]
    decided = parts["matrix"]["decided"] > 0
    names = [_moment(one["when"]) for one in found]

    def draw(axis: Any) -> None:
        places = range(len(found))
        axis.bar(places, [one["results"] for one in found], color=_FAINT, width=0.9, label="results")
        axis.set_ylabel("results")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axis.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: names[int(x)] if 0 <= x < len(names) else "")
        )
        other = axis.twinx()
        key = "flip_rate" if decided else "mean_difference"
        other.plot(places, [one[key] for one in found], color=_SHADOW, marker="o", markersize=3)
        other.set_ylabel("decisions that differ" if decided else "mean difference of scores")
        if decided:
            other.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
            other.set_ylim(bottom=0)
        other.grid(visible=False)

    return _svg(draw, "Results and what differs over time", width=9.4, height=2.4)


def _moment(when: str) -> str:
    """Return 23:59 of a minute, 01-31 23h of an hour, and 01-31 of a day."""
    day, _, time = when.partition("T")
    return time if ":" in time else f"{day[5:]} {time}h" if time else day[5:]


def distributions(parts: Mapping[str, Any]) -> str:
    """Draw how both sides' scores are distributed."""
    found = parts["distributions"]

    def draw(axis: Any) -> None:
        for side, colour in _SIDES:
            axis.stairs(found[side], found["edges"], color=colour, lw=1.8, label=parts["names"][side])
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("score")
        axis.set_ylabel("share of results")
        axis.legend()

    return _svg(draw, "How the scores are distributed")


def cloud(parts: Mapping[str, Any]) -> str:
    """Draw the scores of a sample against each other."""
    points = parts["cloud"]

    def draw(axis: Any) -> None:
        for flipped, colour, label in ((False, _FAINT, "same decision"), (True, _FLIP, "another decision")):
            mine = [(a, b) for a, b, differs in points if differs is flipped]
            if mine:
                axis.scatter(*zip(*mine, strict=True), s=7, color=colour, alpha=0.7, lw=0, label=label)
        low, high = axis.get_xlim()
        axis.plot([low, high], [low, high], color=_TEXT, lw=0.6, ls=":")
        axis.set_xlabel(f"score, {parts['names']['champion']}")
        axis.set_ylabel(f"score, {parts['names']['shadow']}")
        axis.legend(loc="best")

    return _svg(draw, f"Scores of {len(points):,} results, drawn by chance")


def roc(parts: Mapping[str, Any]) -> str:
    """Draw both ROC curves."""
    found = parts["labelled"]["roc"]

    def draw(axis: Any) -> None:
        for side, colour in _SIDES:
            axis.plot(found["fallout"], found[side], color=colour, label=parts["names"][side])
        axis.plot(found["fallout"], found["fallout"], color=_TEXT, lw=0.6, ls=":")
        axis.set_xlabel("share of negatives alerted")
        axis.set_ylabel("share of positives caught")
        axis.legend(loc="lower right")

    return _svg(draw, "ROC curves")


def precision_recall(parts: Mapping[str, Any]) -> str:
    """Draw precision over recall."""
    found = parts["labelled"]["precision_recall"]

    def draw(axis: Any) -> None:
        for side, colour in _SIDES:
            axis.plot(found["recall"], found[side], color=colour, label=parts["names"][side])
        axis.set_ylim(0, 1.02)
        axis.set_xlabel("recall: share of positives caught")
        axis.set_ylabel("precision: share of alerts right")
        axis.legend(loc="best")

    return _svg(draw, "Precision and recall")


def money(parts: Mapping[str, Any]) -> str:
    """Draw the money that is saved where a share of the transactions is alerted."""
    found = parts["labelled"]["money"]

    def draw(axis: Any) -> None:
        for side, colour in _SIDES:
            axis.plot(found["share"], found[side], color=colour, label=parts["names"][side])
        _budget(axis, parts["budget"])
        axis.set_ylabel("money saved")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
        axis.legend(loc="best")

    return _svg(draw, "Money saved, by the share of transactions alerted")


def money_gain(parts: Mapping[str, Any]) -> str:
    """Draw the money that the shadow saves more, with its interval."""
    found = parts["labelled"]["money"]

    def draw(axis: Any) -> None:
        gain = np.array(found["shadow"]) - np.array(found["champion"])
        axis.fill_between(found["share"], found["low"], found["high"], color=_SHADOW, alpha=0.25, lw=0)
        axis.plot(found["share"], gain, color=_SHADOW)
        axis.axhline(0, color=_TEXT, lw=0.6)
        _budget(axis, parts["budget"])
        axis.set_ylabel("money saved more")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))

    return _svg(draw, "What is gained, with its 95 % interval")


def money_by_threshold(parts: Mapping[str, Any]) -> str:
    """Draw the money that is saved where scores from a threshold on are alerted."""
    found = parts["labelled"]["money"]

    def draw(axis: Any) -> None:
        for side, colour in _SIDES:
            axis.plot(found["threshold"][side], found[side], color=colour, label=parts["names"][side])
        axis.set_xlabel("scores from here on are alerted")
        axis.set_ylabel("money saved")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
        axis.legend(loc="best")

    return _svg(draw, "Money saved, by the threshold")


def _budget(axis: Any, budget: float) -> None:
    """Put the budget on an axis of shares."""
    axis.set_xscale("log")
    axis.set_xlim(_LEAST_SHARE, 1)
    axis.xaxis.set_major_locator(LogLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    axis.set_xlabel("share of transactions alerted (dotted: the budget)")
    axis.axvline(budget, color=_TEXT, lw=1, ls=":")


def _svg(draw: Draw, title: str, *, width: float = 4.6, height: float = 3.2) -> str:
    """Draw, and return an svg element that has its title for those who do not see it."""
    with mpl.rc_context(_STYLE):
        # Not pyplot's, which would keep it.
        figure = Figure(figsize=(width, height), layout="constrained")
        axis = figure.add_subplot()
        draw(axis)
        axis.set_title(title, loc="left")
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(file.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    whole = re.search(r"<svg [^>]*>(.*)</svg>", svg, flags=re.DOTALL)
    if box is None or whole is None:
        raise ReportError("matplotlib has written no picture: is its version 3.9 or newer?")
    # Several pictures stand in one page: only what is referred to keeps its id.
    drawn = re.sub(r'<g id="[^"]*">', "<g>", whole.group(1))
    drawn = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1inherit", drawn)
    for stand_in, colour in _COLOURS.items():
        drawn = drawn.replace(stand_in, colour)
    return f'<svg role="img" aria-label="{title}" {box.group()}>{drawn}</svg>'


def pictures(parts: Mapping[str, Any]) -> dict[str, str]:
    """Draw all pictures that there is something to draw for."""
    found: dict[str, Sequence[Callable[[Mapping[str, Any]], str]]] = {
        "trend": [trend] if len(parts["trend"]) > _NO_TREND else [],
        "scores": [distributions, cloud],
        "labelled": [roc, precision_recall, money, money_gain, money_by_threshold]
        if parts["labelled"]
        else [],
    }
    return {draw.__name__: draw(parts) for group in found.values() for draw in group}
