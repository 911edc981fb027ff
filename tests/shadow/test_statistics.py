"""Statistics: each against an independent computation, and intervals that hold what they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from shadow.labelled import Alerting, Labelled, areas, gains
from shadow.slices import find_slices
from shadow.statistics import (
    kolmogorov_smirnov,
    population_stability,
    rank_correlation,
    share,
    stability_of_buckets,
    top_overlap,
)


def scores(n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    both = random.multivariate_normal([0, 0.2], [[1, 0.8], [0.8, 1.3]], n)
    return np.round(both[:, 0], 2), np.round(both[:, 1], 2)


def fraud(
    positives: int, negatives: int, seed: int, *, better: float = 0.8, of: tuple[float, float] | None = None
) -> Labelled:
    random = np.random.default_rng(seed)
    positive = np.arange(positives + negatives) < positives
    common = random.normal(size=len(positive))
    champion: Any = common + random.normal(size=len(positive)) + positive
    shadow: Any = common + random.normal(size=len(positive)) + positive * (1 + better)
    amount = random.lognormal(3, 1, len(positive))
    totals = of or (float(positives), float(negatives))
    return Labelled(np.round(champion, 1), np.round(shadow, 1), positive, amount, *totals)


def test_a_share_has_wilsons_interval() -> None:
    found = share(3, 40)
    z = stats.norm.ppf(0.975)
    centre = (3 + z**2 / 2) / (40 + z**2)
    width = z * np.sqrt(3 * 37 / 40 + z**2 / 4) / (40 + z**2)
    assert found.low == pytest.approx(centre - width)
    assert found.high == pytest.approx(centre + width)
    assert share(0, 10).low == 0


def test_rank_correlation_is_scipys_and_its_interval_holds_the_truth_19_times_in_20() -> None:
    a, b = scores(300, 1)
    found = rank_correlation(a, b)
    assert found is not None
    assert found.value == pytest.approx(stats.spearmanr(a, b).statistic)
    everything = rank_correlation(*scores(200_000, 2))
    assert everything is not None
    held = [rank_correlation(*scores(200, seed)) for seed in range(300)]
    inside = np.mean([i is not None and i.low <= everything.value <= i.high for i in held])
    assert 0.91 <= inside <= 0.985
    assert rank_correlation(a, np.zeros(300)) is None
    same = rank_correlation(a, a)
    assert same is not None
    assert (same.low, same.value, same.high) == (1, 1, 1)


def test_population_stability_is_its_definition() -> None:
    a, b = scores(2_000, 3)
    edges = np.quantile(a, np.arange(1, 10) / 10)
    expected = 0.0
    for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True):
        p = (np.sum((a >= low) & (a < high)) + 0.5) / (len(a) + 5)
        q = (np.sum((b >= low) & (b < high)) + 0.5) / (len(b) + 5)
        expected += (p - q) * np.log(p / q)
    found = population_stability(a, b)
    assert found.value == pytest.approx(expected)
    assert 0 <= found.low < found.value < found.high
    nothing = population_stability(a, a)
    assert (nothing.low, nothing.value, nothing.high) == (0, 0, 0)


def test_population_stability_of_buckets_joins_them_to_tenths() -> None:
    counts = {str(i): 10 for i in range(100)}
    shifted = {str(i + 10): 10 for i in range(100)}
    assert stability_of_buckets(counts, counts) == 0
    tenths = np.full(10, 100.0)
    moved = np.array([0.0] + [100.0] * 8 + [200.0])
    p, q = ((x + 0.5) / (x + 0.5).sum() for x in (tenths, moved))
    assert stability_of_buckets(counts, shifted) == pytest.approx(((p - q) * np.log(p / q)).sum())
    assert stability_of_buckets({}, counts) is None


def test_kolmogorov_smirnov_is_scipys_distance_and_its_interval_holds_the_truth() -> None:
    a, b = scores(500, 4)
    found = kolmogorov_smirnov(a, b)
    assert found.value == pytest.approx(stats.ks_2samp(a, b).statistic)
    truth = stats.ks_2samp(*scores(400_000, 5)).statistic
    held = [kolmogorov_smirnov(*scores(300, seed)) for seed in range(40)]
    assert np.mean([i.low <= truth <= i.high for i in held]) >= 0.9
    assert kolmogorov_smirnov(a, a).high == 0


def test_population_stabilitys_interval_holds_the_truth_in_small_samples_too() -> None:
    truth = population_stability(*scores(400_000, 5)).value
    for n in (300, 3_000):
        held = [population_stability(*scores(n, seed)) for seed in range(100)]
        assert np.mean([i.low <= truth <= i.high for i in held]) >= 0.9


def test_the_overlap_of_the_highest() -> None:
    a = np.arange(100.0)
    assert top_overlap(a, a, 0.1) == 1
    assert top_overlap(a, -a, 0.1) == 0
    assert top_overlap(a, np.roll(a, 5), 0.1) == 0.5


def test_areas_are_scikit_learns_and_delongs_variance_is_the_brute_force_one() -> None:
    found = fraud(60, 400, 6)
    result = areas(found)
    assert result.champion.value == pytest.approx(roc_auc_score(found.positive, found.champion))
    assert result.shadow.value == pytest.approx(roc_auc_score(found.positive, found.shadow))
    assert result.gain.value == pytest.approx(result.shadow.value - result.champion.value)
    # DeLong's components by their definition, over all pairs.
    kernels = []
    for scores_ in (found.champion, found.shadow):
        x, y = scores_[found.positive], scores_[~found.positive]
        kernels.append((x[:, None] > y) + 0.5 * (x[:, None] == y))
    gain = kernels[1] - kernels[0]
    variance = gain.mean(axis=1).var(ddof=1) / 60 + gain.mean(axis=0).var(ddof=1) / 400
    assert result.gain.high - result.gain.value == pytest.approx(stats.norm.ppf(0.975) * np.sqrt(variance))
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(result.gain.value) / np.sqrt(variance)))


def test_delongs_interval_holds_the_truth_19_times_in_20() -> None:
    truth = areas(fraud(20_000, 20_000, 7)).gain.value
    held = [areas(fraud(50, 300, seed)).gain for seed in range(300)]
    assert 0.91 <= np.mean([i.low <= truth <= i.high for i in held]) <= 0.985


def test_curves_are_scikit_learns_with_weights() -> None:
    found = fraud(50, 500, 8, of=(50, 20_000))
    curve = Alerting(found.shadow, found.positive, found.amount).curve(found.weight)
    width, height, _ = roc_curve(
        found.positive, found.shadow, sample_weight=found.weight, drop_intermediate=False
    )
    assert curve.fallout == pytest.approx(width)
    assert curve.recall == pytest.approx(height)
    expected = average_precision_score(found.positive, found.shadow, sample_weight=found.weight)
    assert curve.average_precision == pytest.approx(expected)


def test_gains_at_the_budget_are_those_of_counting_by_hand() -> None:
    found = fraud(40, 360, 9, of=(40, 360))
    distinct = Labelled(
        found.champion + np.arange(400) * 1e-6, found.shadow, found.positive, found.amount, 40, 360
    )
    result = gains(distinct, 0.05)
    alerted = np.argsort(-distinct.champion)[:20]
    caught = distinct.positive[alerted]
    assert result.precision[0].value == pytest.approx(caught.mean())
    assert result.recall[0].value == pytest.approx(caught.sum() / 40)
    assert result.money[0].value == pytest.approx(distinct.amount[alerted][caught].sum())
    assert result.money[2].value == pytest.approx(result.money[1].value - result.money[0].value)
    assert result.bands.shape[0] == 2
    assert (result.bands[0] <= result.bands[1]).all()


def test_gains_are_of_the_same_transactions_drawn_for_both() -> None:
    found = fraud(40, 360, 9)
    result = gains(found, 0.05)
    # With all alerted both catch all of it, whatever was drawn.
    assert np.abs(result.bands[:, -1]).max() == pytest.approx(0, abs=1e-6)
    same = gains(Labelled(found.champion, found.champion, found.positive, found.amount, 40, 360), 0.05)
    for gain in (same.precision[2], same.recall[2], same.money[2]):
        assert (gain.low, gain.value, gain.high) == (0, 0, 0)


def test_weights_make_up_for_fewer_negatives() -> None:
    whole = fraud(400, 40_000, 10)
    kept = whole.positive | (np.arange(len(whole.positive)) % 10 == 0)
    part = Labelled(
        whole.champion[kept], whole.shadow[kept], whole.positive[kept], whole.amount[kept], 400, 40_000
    )
    a, b = gains(whole, 0.01), gains(part, 0.01)
    assert b.precision[1].value == pytest.approx(a.precision[1].value, abs=0.05)
    assert b.money[2].value == pytest.approx(a.money[2].value, rel=0.25)
    assert b.money[2].low < a.money[2].value < b.money[2].high


def test_the_gains_interval_holds_the_truth_about_19_times_in_20() -> None:
    truth = gains(fraud(3_000, 30_000, 11), 0.05).precision[2].value
    held = [gains(fraud(60, 600, seed), 0.05).precision[2] for seed in range(40)]
    assert np.mean([i.low <= truth <= i.high for i in held]) >= 0.85


def a_summary(groups: dict[str, list[int]], *, decided: bool = True) -> dict[str, Any]:
    everything = np.sum(list(groups.values()), axis=0).tolist()
    return {
        "n": everything[0],
        "decided": everything[0] if decided else 0,
        "all": everything,
        "slices": {"channel": {"all": everything, "values": groups}},
    }


def test_slices_are_found_where_flips_are_and_only_there() -> None:
    groups = {f"value {i}": [1_000, 20, 1_000, 0, 0, 0] for i in range(40)}
    groups["online"] = [1_000, 150, 1_000, 50_000_000, 9_000_000, 7_500_000]
    groups["rare"] = [10, 10, 10, 0, 0, 0]
    found = find_slices(a_summary(groups))
    assert [(one.field, one.value) for one in found.slices] == [("channel", "online")]
    assert found.looked_at == 41
    one = found.slices[0]
    assert one.flip_rate == 0.15
    assert one.flip_rate_elsewhere == pytest.approx((40 * 20 + 10) / (40 * 1_000 + 10))
    assert one.difference == 0.05
    assert one.flip_amount == 7_500
    table = [[150, 850], [810, 40_010 - 810]]
    chi2 = stats.chi2_contingency(table, correction=False)
    assert one.p_value == pytest.approx(chi2.pvalue * 41, rel=1e-6)


def test_slices_that_differ_by_chance_are_told_of_once_in_twenty_reports() -> None:
    random = np.random.default_rng(12)
    told = 0
    for _ in range(200):
        groups = {f"{i}": [500, int(random.binomial(500, 0.05)), 500, 0, 0, 0] for i in range(50)}
        told += bool(find_slices(a_summary(groups)).slices)
    assert told <= 20


def test_without_decisions_slices_are_of_scores() -> None:
    random = np.random.default_rng(13)
    groups, samples = {}, {}
    for name, mean in (("a", 0.0), ("b", 0.0), ("c", 0.05)):
        x = np.round(random.normal(mean, 0.1, 400), 6)
        samples[name] = x
        groups[name] = [400, 0, 400, round(x.sum() * 1e6), round((x**2).sum() * 1e6), 0]
    found = find_slices(a_summary(groups, decided=False))
    assert found.slices[0].value == "c"
    assert found.slices[0].flip_rate is None
    welch = stats.ttest_ind(samples["c"], np.concatenate([samples["a"], samples["b"]]), equal_var=False)
    # Of three slices, and by the normal distribution instead of Student's.
    assert found.slices[0].p_value / 3 == pytest.approx(2 * stats.norm.sf(abs(welch.statistic)), rel=0.05)
