"""Histograms: buckets keep the order and 3.2 percent, add up exactly, and tell two distributions apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.histogram import bucket, merge, quantile, stability, value_of

numbers = st.floats(allow_nan=False)


def histogram(values: object) -> dict[int, int]:
    return merge({bucket(float(value)): 1} for value in values)  # type: ignore[attr-defined]


@given(numbers, numbers)
def test_a_larger_value_never_has_a_smaller_bucket(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert bucket(low) <= bucket(high)
    assert bucket(-a) == -bucket(a)


@given(st.floats(1e-5, 1e300) | st.floats(-1e300, -1e-5))
def test_what_is_read_back_is_at_most_3_2_percent_off(value: float) -> None:
    assert abs(value_of(bucket(value)) / value - 1) <= 1 / 31


def test_what_is_no_number_has_a_place() -> None:
    assert value_of(bucket(math.inf)) == math.inf
    assert value_of(bucket(math.nan)) == value_of(bucket(-math.inf)) == -math.inf
    assert [bucket(value) for value in (0.0, -0.0, 1e-9, -1e-300)] == [0, 0, 0, 0]


@given(st.lists(st.lists(st.floats(-1e6, 1e6))), st.randoms())
def test_histograms_of_parts_are_the_histogram_of_the_whole(parts: list[list[float]], random: object) -> None:
    whole = histogram(value for part in parts for value in part)
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert merge(histogram(part) for part in parts) == whole


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_quantiles_are_those_of_the_values(share: float) -> None:
    values = np.random.default_rng(0).lognormal(5, 1, 5000)
    found = quantile(histogram(values), share)
    assert found is not None
    assert abs(found / np.quantile(values, share, method="inverted_cdf") - 1) < 0.04
    assert quantile({}, share) is None


def test_two_samples_of_one_distribution_are_stable_and_a_shift_is_seen() -> None:
    rng = np.random.default_rng(0)
    same = []
    for _ in range(40):
        a, b = histogram(rng.beta(1, 8, 20_000)), histogram(rng.beta(1, 8, 300))
        found = stability(a, b)
        assert found is not None
        same.append(found)
    # Chance is taken off: what is left lies around nothing, however few there are.
    assert np.median(same) < 0.01
    assert max(same) < 0.1
    shifted = stability(histogram(rng.beta(1, 8, 20_000)), histogram(rng.beta(2, 8, 300)))
    assert shifted is not None
    assert shifted > 0.25
    assert stability({}, {1: 1}) is None
    assert stability({1: 1}, {}) is None
    # One constant score against another.
    constant = stability({5: 1000}, {9: 1000})
    assert constant is not None
    assert constant > 5
