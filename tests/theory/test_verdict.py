"""Rules of the verdict on hand-made slopes, its error rates and power by simulation, bad inputs."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from theory.rates import Curve, Rate, Slope, fit_rate
from theory.verdict import verdict

FALSE_ALARM = 1e-5  # of each confidence limit below; the suite's budget is 1e-3
REPEATS = 1000
LAWS = {
    "n^-1/2": lambda n: n**-0.5,
    "n^-1/4": lambda n: n**-0.25,
    "n^-.45": lambda n: n**-0.45,
    "(log n)^(1/2) n^-1/2": lambda n: np.sqrt(np.log(n)) * n**-0.5,
    "constant": lambda n: np.ones_like(n),
}


def line(slope, half_width, n_sizes, log_factor=0.0):
    return Slope(
        smallest=100.0,
        n_sizes=n_sizes,
        slope=slope,
        intercept=0.0,
        standard_error=half_width / 2,
        df=30.0,
        interval=(slope - half_width, slope + half_width),
        half_width=half_width,
        one_sided=(slope - 0.84 * half_width, slope + 0.84 * half_width),
        log_factor=log_factor,
    )


def made(full, last, log_factor=0.0):
    """A rate over five sizes with the given (slope, half-width) on all and on the last three."""
    stability = tuple(line(*full, n_sizes, log_factor) for n_sizes in (5, 4))
    size = (100.0, 300.0, 1e3, 3e3, 1e4)
    curve = Curve("median", size, size, size, size, (*stability, line(*last, 3, log_factor)))
    return Rate(curve, replace(curve, statistic="quantile90"), (), 0)


@pytest.mark.parametrize(
    ("full", "last", "predicted", "status", "reason"),
    [
        ((-0.51, 0.04), (-0.47, 0.09), 0.5, "consistent", "0.040 is within 0.05"),
        ((-0.51, 0.06), (-0.47, 0.09), 0.5, "inconclusive", "0.060 exceeds 0.05"),
        ((-0.13, 0.04), (-0.10, 0.09), 0.125, "inconclusive", "0.040 exceeds 0.03"),
        ((-0.13, 0.02), (-0.10, 0.09), 0.125, "consistent", "0.020 is within 0.03"),
        ((-0.45, 0.04), (-0.47, 0.09), 0.5, "inconclusive", "all sizes excludes -0.5"),
        ((-0.51, 0.04), (-0.40, 0.09), 0.5, "inconclusive", "larger half excludes -0.5"),
        ((-0.45, 0.04), (-0.40, 0.09), 0.5, "inconsistent", "both intervals exclude -0.5"),
        ((-0.70, 0.04), (-0.70, 0.09), 0.5, "inconsistent", "both intervals exclude -0.5"),
        ((0.01, 0.02), (-0.02, 0.05), 0, "consistent", "both intervals hold 0,"),
        ((-0.20, 0.02), (-0.02, 0.05), 0, "inconclusive", "all sizes excludes 0"),
    ],
)
def test_sharp_rule(full, last, predicted, status, reason):
    judged = verdict(made(full, last), predicted, question="sharp")
    assert judged.status == status
    assert reason in judged.sentence


@pytest.mark.parametrize(
    ("full", "last", "predicted", "status", "reason"),
    [
        ((-0.51, 0.04), (-0.47, 0.09), 0.5, "consistent", "-0.476 of the slope is at most -0.5"),
        ((-0.90, 0.30), (-0.90, 0.60), 0.5, "consistent", "plus the tolerance 0.05"),
        ((-0.60, 0.30), (-0.60, 0.60), 0.5, "inconclusive", "exceeds -0.5 by more than 0.05"),
        ((-0.13, 0.06), (-0.10, 0.09), 0.125, "inconclusive", "by more than 0.03"),
        ((-0.42, 0.02), (-0.50, 0.09), 0.5, "inconclusive", "all sizes together are slower"),
        ((-0.60, 0.04), (-0.30, 0.09), 0.5, "inconclusive", "larger half of the sizes is slower"),
        ((-0.40, 0.04), (-0.30, 0.09), 0.5, "inconsistent", "both ranges are slower than -0.5"),
        ((-0.44, 0.04), (-0.44, 0.04), 0.5, "inconclusive", "by more than 0.05"),
        ((-0.10, 0.02), (-0.10, 0.05), 0, "consistent", "at most 0 plus"),
        ((0.05, 0.02), (0.05, 0.02), 0, "inconsistent", "slower than 0 allows"),
    ],
)
def test_bound_rule(full, last, predicted, status, reason):
    judged = verdict(made(full, last, log_factor=0.06), predicted)
    assert judged.question == "bound"
    assert judged.status == status
    assert reason in judged.sentence


def test_fields_and_sentence():
    rate = made((-0.51, 0.04), (-0.47, 0.09))
    rate = replace(rate, n_failed=7, quantile90=made((-0.2, 0.01), (-0.2, 0.01)).quantile90)
    judged = verdict(rate, 1 / 2, question="sharp")
    assert (judged.slope, judged.half_width) == (-0.51, 0.04)
    assert judged.interval == rate.median.interval
    assert judged.last_half_interval == rate.median.last_half.interval
    assert str(judged) == judged.sentence
    assert judged.sentence == (
        "Consistent with an error of exact order n^-0.5: both intervals hold -0.5, and the "
        "half-width 0.040 is within 0.05. The slope of the median is -0.510 [-0.550, -0.470] over "
        "all 5 sizes and -0.470 [-0.560, -0.380] over the largest 3 (7 failed cells are left out)."
    )
    other = verdict(rate, np.float64(0.5), question="sharp", statistic="quantile90")
    assert (other.status, other.slope, other.statistic) == ("inconsistent", -0.2, "quantile90")
    with pytest.raises(AttributeError):
        judged.status = "consistent"


def test_noise_free_power_law_is_consistent_with_itself_only():
    n = np.repeat(np.geomspace(100, 100_000, 13), 5)
    rate = fit_rate(n, 2 * n**-0.25, random_state=0)
    for statistic in ("median", "quantile90"):
        for predicted, sharp, bound in (
            (0.5, "inconsistent", "inconsistent"),
            (0.25, "consistent", "consistent"),
            (0.125, "inconsistent", "consistent"),
        ):
            for question, status in (("sharp", sharp), ("bound", bound)):
                judged = verdict(rate, predicted, question=question, statistic=statistic)
                assert judged.status == status


@pytest.fixture(scope="module")
def tally():
    """Statuses over simulated studies of half-normal errors, 13 sizes, 40 replicates."""
    n, rng = np.repeat(np.geomspace(100, 100_000, 13), 40), np.random.default_rng(31)
    counts = Counter()
    for law, scale in LAWS.items():
        for seed in range(REPEATS):
            error = scale(n) * np.abs(rng.standard_normal(n.size))
            rate = fit_rate(n, error, random_state=seed, n_bootstrap=400)
            for predicted in (0, 0.25, 0.5):
                for question in ("sharp", "bound"):
                    for statistic in ("median", "quantile90"):
                        judged = verdict(rate, predicted, question=question, statistic=statistic)
                        counts[law, predicted, question, statistic, judged.status] += 1
    return counts


def limits(count):
    """Exact (Clopper-Pearson) confidence limits of a probability."""
    interval = binomtest(count, REPEATS).proportion_ci(1 - 2 * FALSE_ALARM)
    return interval.low, interval.high


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["median", "quantile90"])
@pytest.mark.parametrize(
    ("law", "predicted", "question"),
    [
        ("n^-1/2", 0.5, "sharp"),
        ("n^-1/2", 0.5, "bound"),
        ("n^-1/2", 0.25, "bound"),
        ("n^-1/4", 0.25, "sharp"),
        ("n^-1/4", 0.25, "bound"),
        ("(log n)^(1/2) n^-1/2", 0.5, "bound"),
        ("constant", 0, "sharp"),
        ("constant", 0, "bound"),
    ],
)
def test_true_prediction_is_seldom_refuted(tally, law, predicted, question, statistic):
    """The upper confidence limit of P(inconsistent | the prediction is true) is at most .05."""
    assert limits(tally[law, predicted, question, statistic, "inconsistent"])[1] <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["median", "quantile90"])
@pytest.mark.parametrize(
    ("law", "predicted", "question"),
    [
        ("n^-1/4", 0.5, "sharp"),
        ("n^-1/4", 0.5, "bound"),
        ("constant", 0.25, "sharp"),
        ("constant", 0.25, "bound"),
        ("n^-1/2", 0.25, "sharp"),
        ("n^-1/2", 0, "sharp"),
    ],
)
def test_false_prediction_is_refuted(tally, law, predicted, question, statistic):
    """P(inconsistent | the prediction is false by 1/4 or more) is at least .9. Null: it is .9 or
    more; the count must not fall short of it. None may be called consistent."""
    assert limits(tally[law, predicted, question, statistic, "inconsistent"])[1] >= 0.9
    assert tally[law, predicted, question, statistic, "consistent"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "statistic"),
    [("sharp", "median"), ("sharp", "quantile90"), ("bound", "quantile90")],
)
def test_power_for_a_quarter_against_a_half_exceeds_nine_tenths(tally, question, statistic):
    """The lower confidence limit of the power is above .9 (the bound judged by the median has .930,
    measured in 10,000 studies: too close for this number of repeats). Control: n^-1/2 itself."""
    power, control = (
        limits(tally[law, 0.5, question, statistic, "inconsistent"]) for law in ("n^-1/4", "n^-1/2")
    )
    assert power[0] > 0.9
    assert control[1] < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["median", "quantile90"])
def test_slope_slower_by_the_tolerance_is_seldom_called_within_the_bound(tally, statistic):
    """Null: P(consistent) is at most .05 for n^-.45 against the bound n^-1/2, the edge of the
    rule; the count must not exceed it. The bound n^-1/4 must be granted (control)."""
    assert limits(tally["n^-.45", 0.5, "bound", statistic, "consistent"])[0] <= 0.05
    assert limits(tally["n^-.45", 0.25, "bound", statistic, "consistent"])[0] > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.5}, "The 'rate' parameter must be a Rate made by fit_rate; got 0.5."),
        ({"predicted": -0.5}, "'predicted' parameter must be .* at least 0; got -0.5"),
        ({"predicted": np.nan}, "'predicted' parameter must be a finite number .* got nan"),
        ({"predicted": np.inf}, "'predicted' parameter must be a finite number .* got inf"),
        ({"predicted": "1/2"}, "'predicted' parameter must be a finite number .* got '1/2'"),
        ({"predicted": True}, "'predicted' parameter must be a finite number .* got True"),
        ({"question": "x"}, "'question' parameter must be one of {'bound', 'sharp'}; got 'x'"),
        ({"statistic": "mean"}, "'statistic' .* one of {'median', 'quantile90'}; got 'mean'"),
    ],
)
def test_bad_input_is_refused(change, message):
    good = {"rate": made((-0.5, 0.04), (-0.5, 0.09)), "predicted": 0.5, "question": "sharp"}
    with pytest.raises(ValueError, match=message):
        verdict(**(good | change))
