"""How figures are written for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final


def percent(value: float) -> str:
    """Write a share: 12.3 %, 0.04 %."""
    scaled = 100 * value
    if scaled == 0 or abs(scaled) >= 10:  # noqa: PLR2004 - digits that are worth reading
        return f"{scaled:.1f} %" if scaled not in (0, 100) else f"{scaled:.0f} %"
    return f"{scaled:.2g} %" if abs(scaled) < 1 else f"{scaled:.1f} %"


def amount(value: float) -> str:
    """Write an amount, or a count that may be an estimate: 1,234 or 12.50."""
    return f"{value:,.2f}" if abs(value) < 100 and value != int(value) else f"{value:,.0f}"  # noqa: PLR2004


def score(value: float | None) -> str:
    """Write a score."""
    if value is None:
        return "-"
    return f"{value:.4f}" if 0.001 <= abs(value) <= 1 or not value else f"{value:.4g}"  # noqa: PLR2004


def us(value: float) -> str:
    """Write microseconds."""
    return f"{value / 1000:,.1f} ms" if value >= 1000 else f"{value:.0f} us"  # noqa: PLR2004 - a millisecond


def seconds(value: float) -> str:
    """Write how long something lasts: 3 s, 5 min, 2.5 h, 4 days."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} s"


def points(value: float) -> str:
    """Write a difference of two shares: 12.3 points."""
    return f"{100 * value:.1f} points"


def interval(numbers: Mapping[str, float], name: str, *, as_percent: bool = False) -> str:
    """Write a figure with its interval, if it has one: 0.93 (0.91 to 0.95)."""
    of_shares = points if name.endswith("_gain") else percent
    write = of_shares if as_percent else _plain
    if f"{name}_low" not in numbers:
        return write(numbers[name])
    return f"{write(numbers[name])} ({span(write, numbers, name)})"


def span(write: Callable[[float], str], numbers: Mapping[str, float], name: str) -> str:
    """Write a figure's interval without its unit: 0.91 to 0.95."""
    low, high = (write(numbers[f"{name}_{end}"]).split(" ")[0] for end in ("low", "high"))
    return f"{low} to {high}"


def _plain(value: float) -> str:
    return amount(value) if abs(value) >= 10 else f"{value:.3f}"  # noqa: PLR2004 - amounts, not ratios


def visible(text: object) -> str:
    """Write a text from outside so that nothing in it steers a terminal or hides, as codes where needed."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in str(text))


def moment(us_: int | None) -> str:
    """Write a moment given in Unix microseconds, in UTC."""
    return "-" if us_ is None else datetime.fromtimestamp(us_ // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


#: What a verdict says in a headline.
VERDICTS: Final = {
    "better": "The shadow is better than the champion",
    "worse": "The shadow is worse than the champion",
    "mixed": "The shadow is better in one way and not in another",
    "identical": "The shadow gives the champion's answers",
    "not known yet": "Which of the two is better is not known yet",
    "nothing yet": "There are no results yet",
}
