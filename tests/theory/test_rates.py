"""Identities of the rate fit, recognition of shapes, coverage of its intervals, bad inputs."""

import numpy as np
import pytest
from scipy import stats

from theory.rates import _Z95, _student_quantile, fit_rate

FALSE_ALARM = 1e-5  # of each random check below; the suite's budget is 1e-3
EXACT = 1e-9
LAWS = {
    "power": lambda n: 3.0 * n**-0.37,
    "log_power": lambda n: 0.2 * np.sqrt(np.log(n)) * n**-0.37,
    "inverse_log": lambda n: 5.0 / np.log(n),
    "constant": lambda n: 0.7 * np.ones_like(n),
}


def cells(n_sizes=13, n_replicates=40):
    return np.repeat(np.geomspace(100, 100_000, n_sizes), n_replicates)


def half_normal(rng, n):
    return np.abs(rng.standard_normal(n.shape)) / np.sqrt(n)


def pointwise_singular(rng, n):
    exponent = np.where(rng.random(n.shape) < 0.5, 0.25, 0.5)
    return np.abs(rng.standard_normal(n.shape)) * n**-exponent


@pytest.fixture
def study():
    n = cells()
    return n, half_normal(np.random.default_rng(3), n)


@pytest.mark.parametrize("law", LAWS)
def test_noise_free_law_is_recovered(law):
    n = cells()
    rate = fit_rate(n, LAWS[law](n), random_state=0)
    assert rate.best_shape == law
    nested = {"power"} if law == "constant" else set()
    assert set(rate.plausible_shapes) == {law} | nested
    exponent = {"power": 0.37, "log_power": 0.37}.get(law, 0.0)
    assert rate.shapes[0].exponent == pytest.approx(exponent, abs=EXACT)
    np.testing.assert_allclose(rate.quantile90.values, LAWS[law](np.unique(n)), rtol=EXACT)


def test_noise_free_power_law_has_exact_slopes():
    n = cells()
    for curve in (rate := fit_rate(n, 3.0 * n**-0.37, random_state=0)).median, rate.quantile90:
        assert curve.intercept == pytest.approx(np.log(3.0), abs=EXACT)
        for part in curve.stability:
            assert part.slope == pytest.approx(-0.37, abs=EXACT)
            assert part.interval[0] <= -0.37 <= part.interval[1]
            assert part.half_width < EXACT


def test_scaling_errors_moves_the_intercept_only(study):
    n, error = study
    one, other = (fit_rate(n, c * error, random_state=1).median for c in (1.0, 271.3))
    assert other.intercept - one.intercept == pytest.approx(np.log(271.3), abs=EXACT)
    for a, b in zip(one.stability, other.stability, strict=True):
        np.testing.assert_allclose(a.interval, b.interval, atol=EXACT)
    np.testing.assert_allclose(np.multiply(one.upper, 271.3), other.upper, rtol=EXACT)


def test_power_of_errors_multiplies_the_slope(study):
    n, error = study
    one, cubed = (fit_rate(n, error**k, random_state=1).quantile90 for k in (1, 3))
    np.testing.assert_allclose(3 * np.array(one.interval), cubed.interval, atol=EXACT)


def test_log_factor_is_what_a_root_log_adds(study):
    n, error = study
    plain = fit_rate(n, error, random_state=1).median
    logged = fit_rate(n, error * np.sqrt(np.log(n)), random_state=1).median
    for a, b in zip(plain.stability, logged.stability, strict=True):
        assert b.slope - a.slope == pytest.approx(a.log_factor, abs=EXACT)


def test_order_of_rows_is_irrelevant_and_seed_decides(study):
    n, error = study
    state = np.random.get_state()[1].copy()  # noqa: NPY002 the global state must stay untouched
    order = np.random.default_rng(5).permutation(n.size)
    rate = fit_rate(n, error, random_state=1)
    assert fit_rate(n[order].tolist(), error[order].tolist(), random_state=1) == rate
    assert fit_rate(n, error, random_state=2) != rate
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_values_are_quantiles_within_their_bands(study):
    n, error = study
    rate = fit_rate(n, error, random_state=1)
    for curve, p in (rate.median, 0.5), (rate.quantile90, 0.9):
        expected = [
            np.exp(np.quantile(np.log(error[n == size]), p, method="median_unbiased"))
            for size in curve.sizes
        ]
        np.testing.assert_allclose(curve.values, expected, rtol=EXACT)
        assert (np.array(curve.lower) < curve.values).all()
        assert (np.array(curve.values) < curve.upper).all()


@pytest.mark.parametrize(("n_sizes", "half"), [(3, 3), (4, 3), (6, 3), (7, 4), (10, 5), (13, 7)])
def test_ranges(n_sizes, half):
    n = cells(n_sizes, 6)
    curve = fit_rate(n, half_normal(np.random.default_rng(0), n), random_state=0).median
    assert [part.n_sizes for part in curve.stability] == list(range(n_sizes, 2, -1))
    assert [part.smallest for part in curve.stability] == list(curve.sizes[: n_sizes - 2])
    assert curve.last_half.n_sizes == half
    assert curve.stability[0].interval == curve.interval


def test_failed_cells_are_counted_and_left_out(study):
    n, error = study
    failed = np.random.default_rng(8).random(n.size) < 0.2
    rate = fit_rate(n, np.where(failed, np.nan, error), random_state=1)
    assert rate.n_failed == failed.sum()
    assert fit_rate(n[~failed], error[~failed], random_state=1).median == rate.median


def test_size_without_spread_does_not_take_all_the_weight(study):
    n, error = study
    error = np.where(n == n.max(), 40.0, error)
    curve = fit_rate(n, error, random_state=1).median
    fitted = curve.intercept + curve.slope * np.log(n.max())
    assert abs(fitted - np.log(40.0)) > 1


def test_student_quantile_agrees_with_scipy():
    df = np.array([2.0, 3.0, 4.7, 11.0, 60.0])
    ratio = [_student_quantile(_Z95, nu) for nu in df] / stats.t.ppf(0.975, df)
    np.testing.assert_allclose(ratio, 1, atol=0.008)
    np.testing.assert_allclose(ratio[1:], 1, atol=0.0015)


@pytest.mark.parametrize("law", LAWS)
def test_shape_is_recognised_where_there_is_power(law):
    """Null: the true law has the smallest BIC, or is not excluded, in 90% of studies; exact
    binomial. Log errors of sd .02 resolve the curvature of log log n, about .03."""
    n, rng, repeats = cells(), np.random.default_rng(21), 100
    best = plausible = 0
    for seed in range(repeats):
        error = LAWS[law](n) * np.exp(0.02 * rng.standard_normal(n.size))
        rate = fit_rate(n, error, random_state=seed, n_bootstrap=400)
        best += rate.best_shape == law
        plausible += law in rate.plausible_shapes
    smallest = stats.binom.ppf(FALSE_ALARM, repeats, 0.9)
    assert best >= smallest
    assert plausible >= smallest


def test_shapes_without_power_are_all_kept():
    """At 40 half-normal replicates, n^-1/8 and 1/log n cannot be told apart; n^-1/2 and a constant
    can. Null: each statement holds in 90% of studies; exact binomial."""
    n, rng, repeats = cells(), np.random.default_rng(22), 100
    kept = told_apart = 0
    for seed in range(repeats):
        noise = np.abs(rng.standard_normal(n.size))
        slow = fit_rate(n, noise * n**-0.125, random_state=seed, n_bootstrap=400)
        kept += {"power", "log_power", "inverse_log"} <= set(slow.plausible_shapes)
        fast = fit_rate(n, noise * n**-0.5, random_state=seed, n_bootstrap=400)
        told_apart += set(fast.plausible_shapes) == {"power", "log_power"}
    assert min(kept, told_apart) >= stats.binom.ppf(FALSE_ALARM, repeats, 0.9)


@pytest.mark.parametrize(
    ("errors", "statistic", "slope", "n_sizes", "n_replicates"),
    [
        (half_normal, "median", -0.5, 13, 40),
        (half_normal, "quantile90", -0.5, 10, 40),
        (pointwise_singular, "quantile90", -0.25, 13, 40),
        (half_normal, "median", -0.5, 6, 20),
        (half_normal, "quantile90", -0.5, 8, 8),
    ],
)
def test_interval_coverage(errors, statistic, slope, n_sizes, n_replicates):
    """Null: the 95% interval covers the slope with probability in [.93, .97]; exact binomial.
    Control: intervals .7 times as wide, the error of a variance halved, must be rejected."""
    n, rng, repeats = cells(n_sizes, n_replicates), np.random.default_rng(23), 1000
    full, last = np.empty((2, repeats))
    for seed in range(repeats):
        curve = getattr(fit_rate(n, errors(rng, n), random_state=seed, n_bootstrap=400), statistic)
        half = curve.last_half
        full[seed] = abs(curve.slope - slope) / curve.half_width
        last[seed] = abs(half.slope - slope) / half.half_width
    fewest = stats.binom.ppf(FALSE_ALARM, repeats, 0.93)
    most = stats.binom.isf(FALSE_ALARM, repeats, 0.97)
    assert fewest <= (full < 1).sum() <= most
    assert (last < 1).sum() >= fewest
    assert (full < 0.7).sum() < fewest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": [100.0, 200.0]}, r"'n' and 'error' .* equal length; got shapes \(2,\) and \(30,\)"),
        ({"error": np.ones((3, 10))}, "must be 1-D"),
        ({"n": np.repeat([1.0, 10.0, 100.0], 10)}, "'n' parameter must be .* above 1; got 1"),
        ({"n": np.repeat([np.nan, 10.0, 100.0], 10)}, "'n' parameter must be finite .* got nan"),
        ({"n": np.repeat([10.0, 100.0], 15)}, "at least 3 distinct sizes; got 2"),
        ({"error": np.r_[0.0, 0.0, np.ones(28)]}, "logarithm is taken; got 2 exact zeros"),
        ({"error": np.r_[-0.5, np.ones(29)]}, "'error' parameter must be positive .* got -0.5"),
        ({"error": np.r_[np.inf, np.ones(29)]}, "'error' parameter must be .* finite .* got inf"),
        ({"error": np.r_[np.full(6, np.nan), np.ones(24)]}, "at least 5 .* got 4 at n=100"),
        ({"error": np.r_[np.full(10, np.nan), np.ones(20)]}, "at least 5 .* got 0 at n=100"),
        ({"n_bootstrap": 199}, "'n_bootstrap' parameter must be an int in .200, .*; got 199"),
        ({"n_bootstrap": 1e3}, "'n_bootstrap' parameter must be an int"),
    ],
)
def test_bad_input_is_refused(change, message):
    good = {"n": np.repeat([100.0, 200.0, 400.0], 10), "error": np.ones(30), "n_bootstrap": 200}
    fit_rate(**good, random_state=0)
    with pytest.raises(ValueError, match=message):
        fit_rate(**(good | change), random_state=0)
