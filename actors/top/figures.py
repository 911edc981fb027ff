"""The figures of a process, read from its port and asked by name."""

from __future__ import annotations

import re
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

#: Seconds that a process may take to answer.
ANSWER_S: Final = 1.0
_AT_ONCE: Final = 32
_SAMPLE: Final = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(r"\\(.)")

#: Upper bound in seconds to how many took so long or less.
Buckets = Mapping[float, float]


class Figures:
    """The samples of one page.

    Args:
        text: in Prometheus' format.
    """

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for line in text.splitlines():
            found = _SAMPLE.fullmatch(line)
            if found:
                labels = {name: _unescaped(value) for name, value in _LABEL.findall(found[2] or "")}
                self._samples[found[1]].append((labels, float(found[3])))

    def has(self, name: str) -> bool:
        """Say whether there is such a figure."""
        return name in self._samples

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of a figure over all that have some labels; 0 where there is none."""
        return sum(value for _, value in self._with(name, labels))

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Return the values of a label to the sums of a figure."""
        found: dict[str, float] = defaultdict(float)
        for own, value in self._with(name, labels):
            found[own.get(label, "")] += value
        return dict(found)

    def label(self, name: str, label: str) -> str:
        """Return a label of a figure that there is once; "" where there is none."""
        return next((own.get(label, "") for own, _ in self._samples.get(name, ())), "")

    def buckets(self, name: str, **labels: str) -> Buckets:
        """Return the buckets of a histogram, added up over all that have some labels."""
        found: dict[float, float] = defaultdict(float)
        for own, value in self._with(f"{name}_bucket", labels):
            found[float(own["le"])] += value
        return dict(found)

    def _with(self, name: str, labels: Mapping[str, str]) -> Iterable[tuple[dict[str, str], float]]:
        return ((own, value) for own, value in self._samples.get(name, ()) if labels.items() <= own.items())


def added(many: Iterable[Buckets]) -> Buckets:
    """Add histograms."""
    found: dict[float, float] = defaultdict(float)
    for one in many:
        for bound, count in one.items():
            found[bound] += count
    return dict(found)


def quantile(buckets: Buckets, share: float) -> float | None:
    """Return the seconds below which a share of all lies; None where there is nothing.

    As Prometheus' histogram_quantile: evenly spread within a bucket; beyond the last bound that bound.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    wanted = share * buckets[bounds[-1]]
    below, lower = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted and buckets[bound] > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - below) / (buckets[bound] - below)
        below, lower = buckets[bound], bound
    return lower


def fetch_all(endpoints: Iterable[str]) -> tuple[dict[str, Figures], dict[str, str]]:
    """Ask many processes at once.

    Returns:
        endpoint (host:port) to its figures, and to the reason of those that did not answer.
    """
    wanted = list(dict.fromkeys(endpoints))
    figures: dict[str, Figures] = {}
    lost: dict[str, str] = {}
    if not wanted:
        return figures, lost
    with ThreadPoolExecutor(min(len(wanted), _AT_ONCE)) as pool:
        for endpoint, found in zip(wanted, pool.map(_fetch, wanted), strict=True):
            if isinstance(found, Figures):
                figures[endpoint] = found
            else:
                lost[endpoint] = found
    return figures, lost


def _fetch(endpoint: str) -> Figures | str:
    try:
        with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=ANSWER_S) as answer:
            return Figures(answer.read().decode())
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], text)
