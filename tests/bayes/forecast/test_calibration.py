"""Conformal recalibration keeps its promise under exchangeability, and only there."""

import numpy as np
import pytest
from scipy.stats import norm

from bayes.forecast.calibration import Conformal, outwards, pit_histogram, reliability

LEVELS = np.array([0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975])
CENTRAL = LEVELS[-1] - LEVELS[0]


def wrong_forecast(x):
    """Quantiles (N, L) for y ~ N(x, 1 + x^2): biased, a third as wide, and homoscedastic."""
    return x[:, None] + 0.4 + norm.ppf(LEVELS) / 3


def draw(n, rng, shift=0.0):
    x = rng.normal(size=n)
    return x, x + shift + np.sqrt(1 + x**2) * rng.normal(size=n)


def mean_coverage(n, repeats, shift=0.0, seed=0):
    """Share of 100 new y within the 95% interval and at or below each quantile, over sets."""
    rng = np.random.default_rng(seed)
    inside, below = [], []
    for _ in range(repeats):
        x, y = draw(n, rng)
        conformal = Conformal.fit(y, wrong_forecast(x), LEVELS)
        x, y = draw(100, rng, shift)
        q = conformal.apply(wrong_forecast(x))
        inside.append(np.mean((y >= q[:, 0]) & (y <= q[:, -1])))
        below.append(np.mean(y[:, None] <= q, axis=0))
    return np.array(inside), np.array(below)


def test_finite_sample_guarantee():
    """Null: given 79 calibration rows the 95% interval covers a new row with probability in
    [.95, .95 + 2/80] and quantile l bounds it as promised. Statistic: mean over 600 sets in its
    standard errors; bound: 5 of them, 16 comparisons (false alarm 1e-5)."""
    inside, below = mean_coverage(79, 600)
    error = inside.std() / np.sqrt(len(inside))
    assert CENTRAL - 5 * error < inside.mean() < CENTRAL + 2 / 80 + 5 * error
    error = below.std(axis=0) / np.sqrt(len(below))
    low, high = LEVELS < 0.5, LEVELS > 0.5
    assert (below.mean(axis=0) < LEVELS + 5 * error)[low].all()
    assert (below.mean(axis=0) > LEVELS - 5 * error)[high].all()


def test_the_guarantee_fails_without_exchangeability():
    """Controls: data that drift by one, and the forecast as it was."""
    inside, _ = mean_coverage(79, 200, shift=1.5)
    assert inside.mean() < CENTRAL - 5 * inside.std() / np.sqrt(200) - 0.02
    x, y = draw(20000, np.random.default_rng(1))
    q = wrong_forecast(x)
    assert np.mean((y >= q[:, 0]) & (y <= q[:, -1])) < 0.6


def test_groups_are_calibrated_each():
    """Two groups, one ten times as noisy. 4,000 rows a group: standard error .0034; bound 6."""
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=16000)
    y = np.where(group == 1, 10.0, 1.0) * rng.normal(size=16000)
    q = np.tile(norm.ppf(LEVELS), (16000, 1))
    fit, new = np.arange(16000) < 8000, np.arange(16000) >= 8000

    def coverage(groups, g):
        conformal = Conformal.fit(y[fit], q[fit], LEVELS, groups[fit])
        out = conformal.apply(q[new], groups[new])
        own = group[new] == g
        return np.mean((y[new] >= out[:, 0])[own] & (y[new] <= out[:, -1])[own])

    for g in (0, 1):
        assert abs(coverage(group, g) - CENTRAL) < 0.025
        assert abs(coverage(np.zeros_like(group), g) - CENTRAL) > 0.03  # pooled: neither


def test_small_and_unknown_groups_take_the_pooled_shifts():
    rng = np.random.default_rng(0)
    y, q = rng.normal(size=500), np.tile(norm.ppf(LEVELS), (500, 1))
    group = np.where(np.arange(500) < 20, 5, 0)
    conformal = Conformal.fit(y, q, LEVELS, group, min_count=100)
    pooled = Conformal.fit(y, q, LEVELS)
    assert conformal.groups.tolist() == [0]
    for g in (5, 77):
        np.testing.assert_array_equal(conformal.apply(q[:3], np.full(3, g)), pooled.apply(q[:3]))
    assert not np.array_equal(conformal.apply(q[:3], np.zeros(3, int)), pooled.apply(q[:3]))


def test_scale_and_location_of_the_data_do_not_matter():
    x, y = draw(300, np.random.default_rng(0))
    q = wrong_forecast(x)
    one = Conformal.fit(y, q, LEVELS).apply(q)
    other = Conformal.fit(5 + 3 * y, 5 + 3 * q, LEVELS).apply(5 + 3 * q)
    np.testing.assert_allclose(other, 5 + 3 * one, rtol=1e-10)


def test_point_forecasts_get_the_quantiles_of_their_errors():
    rng = np.random.default_rng(0)
    y = rng.normal(size=999)
    flat = np.zeros((999, len(LEVELS)))
    out = Conformal.fit(y, flat, LEVELS).apply(flat[:1])[0]
    ranks = np.floor(LEVELS * 1000 + 1e-9).astype(int)
    ranks[LEVELS >= 0.5] = np.ceil(LEVELS[LEVELS >= 0.5] * 1000 - 1e-9)
    np.testing.assert_allclose(out, np.sort(y)[ranks - 1])


def test_quantiles_stay_ordered_and_above_the_bound():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(400, len(LEVELS)))  # crossing everywhere
    y = rng.gamma(1, size=400)
    out = Conformal.fit(y, q, LEVELS, lower=0.0).apply(q)
    assert (np.diff(out, axis=1) >= 0).all()
    assert out.min() == 0.0
    assert (np.diff(q, axis=1) < 0).any()  # they were not ordered
    sorted_already = np.sort(q, axis=1)
    np.testing.assert_array_equal(outwards(sorted_already, LEVELS), sorted_already)
    moved = outwards(q, LEVELS)
    assert (moved[:, LEVELS > 0.5] >= q[:, LEVELS > 0.5]).all()
    assert (moved[:, LEVELS < 0.5] <= q[:, LEVELS < 0.5]).all()


def drifting(n, rng):
    y = rng.normal(size=n) + 3 * np.sin(np.arange(n) / 150)
    return y, np.tile(norm.ppf(LEVELS), (n, 1))


def test_rolling_bound_holds_for_any_data():
    """The module's theorem: |mean of 1{s <= k} - level| <= (range + rate) / (rate T), exactly.
    Control: without updates the same data break the bound."""
    y, q = drifting(3000, np.random.default_rng(0))
    start = Conformal.fit(y[:200], q[:200], LEVELS)
    rate, conformal, hits = 0.2, start, []
    seen = []
    for t in range(200, 3000):
        before = conformal
        conformal = conformal.update(y[t : t + 1], q[t : t + 1], rate=rate)
        hits.append((before.levels - (conformal.shifts - before.shifts)[-1] / rate).round(9))
        seen.append(conformal.shifts[-1])
    range_of_shifts = np.ptp(np.array(seen), axis=0)
    bound = (range_of_shifts + rate) / (rate * len(hits))
    assert set(np.unique(hits)) <= {0.0, 1.0}
    gaps = np.abs(np.mean(hits, axis=0) - LEVELS)
    assert (gaps <= bound).all()
    static = np.mean(y[200:, None] <= start.apply(q[200:]), axis=0)
    assert (np.abs(static - LEVELS) > bound)[:-1].all()


def test_roll_follows_a_drift_and_never_looks_ahead():
    rng = np.random.default_rng(0)
    y, q = drifting(1500, rng)
    hours = np.arange(1500.0)
    start = Conformal.fit(y[:200], q[:200], LEVELS)
    rolled = start.roll(y, q, hours, rate=0.2, delay=5)
    late = hours > 500
    covered = np.mean((y >= rolled[:, 0])[late] & (y <= rolled[:, -1])[late])
    fixed = start.apply(q)
    static = np.mean((y >= fixed[:, 0])[late] & (y <= fixed[:, -1])[late])
    assert abs(covered - CENTRAL) < 0.03 < abs(static - CENTRAL)
    future = y.copy()
    future[1000:] += 100
    again = start.roll(future, q, hours, rate=0.2, delay=5)
    np.testing.assert_array_equal(again[:1006], rolled[:1006])
    assert not np.array_equal(again[1006], rolled[1006])
    order = rng.permutation(1500)
    np.testing.assert_array_equal(
        start.roll(y[order], q[order], hours[order], rate=0.2, delay=5), rolled[order]
    )
    unseen = start.roll(np.full(1500, np.nan), q, hours)
    np.testing.assert_array_equal(unseen, fixed)


def test_pit_histogram_and_reliability_show_what_is_wrong():
    """20,000 rows: standard error at most .0036; bound 6 (false alarm 2e-9 a comparison)."""
    y = np.random.default_rng(0).normal(size=20000)
    right = np.tile(norm.ppf(LEVELS), (20000, 1))
    table = pit_histogram(y, right, LEVELS)
    assert (np.abs(table.observed - table.expected) < 6 * table.standard_error).all()
    assert table.expected.sum() == pytest.approx(1)
    assert table.observed.sum() == pytest.approx(1)
    narrow = pit_histogram(y, right / 2, LEVELS)
    assert (narrow.observed - narrow.expected)[[0, 7]].min() > 0.1
    curve = reliability(y, right, LEVELS)
    assert (np.abs(curve.observed - curve.level) < 6 * curve.standard_error).all()
    assert (np.abs(reliability(y, right + 0.2, LEVELS).observed - LEVELS) > 0.01).all()


def test_standard_errors_see_blocks():
    y = np.repeat(np.random.default_rng(0).normal(size=100), 25)
    q = np.tile(norm.ppf(LEVELS), (2500, 1))
    by_block = reliability(y, q, LEVELS, blocks=np.repeat(np.arange(100), 25)).standard_error
    np.testing.assert_allclose(by_block, 5 * reliability(y, q, LEVELS).standard_error)


def test_bad_input_is_refused():
    y, q = np.arange(50.0), np.tile(norm.ppf(LEVELS), (50, 1))
    for args, words in (
        ((y, q, LEVELS[::-1]), "increasing numbers in"),
        ((y, q[:, :2], LEVELS), r"shape \(N, 7\)"),
        ((y[:9], q, LEVELS), r"shape \(50,\)"),
        ((y * np.nan, q, LEVELS), "'y' parameter must be finite"),
        ((y, q, LEVELS, np.zeros(50)), "must be ints"),
        ((y[:20], q[:20], LEVELS), "at least 39 for levels 0.025 to 0.975; got 20"),
        ((y, q[:, :2], LEVELS[:2]), "1/2 within its range"),
    ):
        with pytest.raises(ValueError, match=words):
            Conformal.fit(*args)
    with pytest.raises(ValueError, match="'rate' parameter"):
        Conformal.fit(y, q, LEVELS).update(y, q, rate=0)
