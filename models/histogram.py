"""Histograms of few numbers for many: logarithmic buckets that merge by adding.

A bucket is a sixteenth of an octave, so that a value that is read back is at most 3.2 % off; the scheme is
fixed, so that histograms of many processes are one histogram. (The idea of HdrHistogram by G. Tene and of
Masson, Rim and Lee, "DDSketch", VLDB 2019.) A histogram is a plain dict of bucket to count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

Histogram = Mapping[int, int]

#: Buckets in an octave.
_PARTS: Final = 16
#: Values below 2 to the power of this, with either sign, are zero.
_LEAST: Final = -20
#: The bucket of infinity; its negative has minus infinity and what is no number.
_ODD: Final = 1 << 20
#: Bins of equal weight into which the population stability index parts the reference.
_BINS: Final = 10


def bucket(value: float) -> int:
    """Return the bucket of a value; a larger value never has a smaller one."""
    mantissa, exponent = math.frexp(value)
    try:
        part = int(mantissa * 2 * _PARTS)
    except (ValueError, OverflowError):
        return _ODD if value > 0 else -_ODD
    if exponent <= _LEAST or not value:
        return 0
    octave = (exponent - _LEAST - 1) * _PARTS - _PARTS + 1
    return octave + part if mantissa > 0 else part - octave


def value_of(bucket_: int) -> float:
    """Return the middle of a bucket."""
    if not bucket_:
        return 0.0
    if abs(bucket_) == _ODD:
        return math.copysign(math.inf, bucket_)
    octave, part = divmod(abs(bucket_) - 1, _PARTS)
    middle = math.ldexp((_PARTS + part + 0.5) / (2 * _PARTS), octave + _LEAST + 1)
    return math.copysign(middle, bucket_)


def merge(histograms: Iterable[Histogram]) -> dict[int, int]:
    """Add histograms."""
    found: dict[int, int] = {}
    for one in histograms:
        for key, count in one.items():
            found[key] = found.get(key, 0) + count
    return found


def quantile(histogram: Histogram, share: float) -> float | None:
    """Return the value below or at which a share of all lies; None where there is none."""
    left = share * sum(histogram.values())
    for key in sorted(histogram):
        left -= histogram[key]
        if left <= 0 and histogram[key]:
            return value_of(key)
    return None


def stability(reference: Histogram, other: Histogram) -> float | None:
    """Return the population stability index of a distribution against a reference, less what is chance.

    The bins are tenths of the reference. Two samples of one distribution differ by (bins - 1) (1/n + 1/m) in
    the mean (Yurdakul, "Statistical Properties of Population Stability Index", 2018), which is taken off.

    Returns:
        0 where they differ by no more than chance, above 0.25 where they differ much; None if one is empty.
    """
    n, m = sum(reference.values()), sum(other.values())
    if not n or not m:
        return None
    bins: list[tuple[int, int]] = []
    mine = theirs = 0
    for key in sorted({*reference, *other}):
        mine += reference.get(key, 0)
        theirs += other.get(key, 0)
        if mine >= n / _BINS:
            bins.append((mine, theirs))
            mine = theirs = 0
    if mine or theirs:
        bins.append((mine, theirs))
    total = 0.0
    for mine, theirs in bins:
        # Half of one is added to each, so that an empty bin is no infinity.
        p, q = (mine + 0.5) / (n + len(bins) / 2), (theirs + 0.5) / (m + len(bins) / 2)
        total += (q - p) * math.log(q / p)
    return max(0.0, total - (len(bins) - 1) * (1 / n + 1 / m))
