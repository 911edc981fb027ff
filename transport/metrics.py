"""Figures for Prometheus: its text format, and the histograms that the hot path counts in.

Written here and not by `prometheus_client`, which takes 55 ms of a node's start, and for each page 1.3 ms
instead of 0.2 of the interpreter that the hot path needs. Tests read the pages with that library's parser.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
import resource
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

#: Upper bounds of the buckets for microseconds: from a kernel's ten to a deadline's seconds.
BOUNDS_US: Final = (
    *(5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750),
    *(1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 20_000, 30_000, 50_000, 75_000),
    *(100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000),
)
#: Upper bounds of the buckets for sizes of batches.
BOUNDS_SIZE: Final = tuple(2**power for power in range(11))
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_LE_S: Final = tuple(f"{bound / 1e6:g}" for bound in BOUNDS_US)
_LE_SIZE: Final = tuple(str(bound) for bound in BOUNDS_SIZE)
_PAGE_BYTES: Final = resource.getpagesize()
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that nodes show.

    Attributes:
        name: with its unit; counters end with `_total`.
        kind: how it moves.
        help: what it is, in a line.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str


class Timing:
    """A histogram of microseconds. One thread adds; others may read at any time."""

    __slots__ = ("counts", "total_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.total_us = 0

    def add(self, us: int) -> None:
        """Count a time."""
        self.counts[bisect_left(BOUNDS_US, us)] += 1
        self.total_us += us


class Sizes:
    """A histogram of sizes of batches. One thread adds; others may read at any time."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SIZE) + 1)
        self.total = 0

    def add(self, size: int) -> None:
        """Count a batch."""
        self.counts[bisect_left(BOUNDS_SIZE, size)] += 1
        self.total += size


class Timings:
    """What one actor times: its stages, and how many requests it takes together.

    Args:
        stages: their names.
    """

    __slots__ = ("batches", "stages")

    def __init__(self, *stages: str) -> None:
        self.stages = {stage: Timing() for stage in stages}
        self.batches = Sizes()


class Page:
    """The figures of one process at one moment.

    Args:
        labels: what all of them are labelled with.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._families: dict[Metric, list[str]] = {}

    def add(self, metric: Metric, value: float, **labels: str) -> None:
        """Add a counter or a gauge."""
        self._lines(metric).append(f"{metric.name}{self._braced(labels)} {_number(value)}")

    def add_all(
        self, metrics: Mapping[str, Metric], counts: Mapping[str, float], start: str = "", **labels: str
    ) -> None:
        """Add those of some counts that a table names, by their names without a common start."""
        for name, value in counts.items():
            metric = metrics.get(name.removeprefix(start)) if name.startswith(start) else None
            if metric is not None:
                self.add(metric, value, **labels)

    def add_timing(self, metric: Metric, timing: Timing, **labels: str) -> None:
        """Add a histogram of times, in seconds."""
        self._histogram(metric, list(timing.counts), _LE_S, timing.total_us / 1e6, labels)

    def add_sizes(self, metric: Metric, sizes: Sizes, **labels: str) -> None:
        """Add a histogram of sizes."""
        self._histogram(metric, list(sizes.counts), _LE_SIZE, sizes.total, labels)

    def text(self) -> bytes:
        """Return the page."""
        parts = []
        for metric, lines in self._families.items():
            parts.append(f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n")
            parts.append("\n".join(lines) + "\n")
        return "".join(parts).encode()

    def _histogram(
        self,
        metric: Metric,
        counts: list[int],
        bounds: Iterable[str],
        total: float,
        labels: Mapping[str, str],
    ) -> None:
        lines, name, below = self._lines(metric), metric.name, 0
        start = self._braced(labels)[:-1]
        for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
            below += count
            lines.append(f'{name}_bucket{start},le="{bound}"}} {below}')
        lines += (f"{name}_sum{start}}} {_number(total)}", f"{name}_count{start}}} {below}")

    def _lines(self, metric: Metric) -> list[str]:
        return self._families.setdefault(metric, [])

    def _braced(self, labels: Mapping[str, str]) -> str:
        return (
            "{" + ",".join(f'{k}="{_escaped(v)}"' for k, v in (*self._labels.items(), *labels.items())) + "}"
        )


CPU: Final = Metric("process_cpu_seconds_total", "counter", "CPU time of this process.")
MEMORY: Final = Metric("process_resident_memory_bytes", "gauge", "Memory of this process, with shared pages.")
FILES: Final = Metric("process_open_fds", "gauge", "File descriptors that are open.")
FILES_MOST: Final = Metric("process_max_fds", "gauge", "File descriptors that may be open.")
STARTED: Final = Metric("process_start_time_seconds", "gauge", "When this process started, in unix seconds.")
PROCESS: Final = (CPU, MEMORY, FILES, FILES_MOST, STARTED)


def add_process(page: Page) -> None:
    """Add what the operating system counts of this process, under the names that exporters share."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    page.add(CPU, used.ru_utime + used.ru_stime)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no path to build at each look
            page.add(MEMORY, int(file.read().split()[1]) * _PAGE_BYTES)
        page.add(FILES, len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - counted, not walked
    except OSError:
        return  # no Linux: what is left is enough
    page.add(FILES_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    page.add(STARTED, _started())


@cache
def _started() -> float:
    """Return when this process started: by the clock of the system's start, in ticks since then."""
    try:
        with open("/proc/self/stat", encoding="ascii") as file:  # noqa: PTH123
            ticks = int(file.read().rpartition(")")[2].split()[19])
    except OSError:
        return time.time()
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks * _TICK_S


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
