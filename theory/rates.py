r"""Convergence rates from simulated errors: slopes with intervals, and shapes of decay.

A study gives R independent errors at each of a few sample sizes n. With T(n) the logarithm of
their median (or .9 quantile), a rate n^-a is a slope -a of T on log n, fitted by least squares
weighted with the sampling variance v(n) of T(n).

The variance rests on order statistics. With U ~ Beta(h, R + 1 - h), h = (R + 1/3) p + 1/3, the
interpolated order statistic at position (R + 1) U of the log errors has the law of a smoothed
bootstrap of the sample p-quantile, drawn without resampling [1]_ [2]_. If w is the width of its
middle 80% and z the standard normal .9 quantile, then

.. math:: v = \Bigl(\frac{w}{2z}\Bigr)^2 \Big/ \Bigl(1 + \frac1M\Bigr), \qquad
          M = 2z \sqrt{p (1 - p) R},

the divisor removing the bias of a squared sum of M nearly exponential spacings, whose relative
variance 4/M gives v its :math:`M/2` degrees of freedom [3]_. With fewer than some 15 replicates the
upper end of the middle 80% lies more than half a rank beyond the largest error for the .9 quantile,
and w is twice the lower part. A slope :math:`\sum_j c_j T_j` has variance
:math:`\sum_j c_j^2 v_j`, with degrees of freedom by Welch and Satterthwaite [4]_; the v_j are taken
size by size, since the spread of log error may change with n. The weights use only the log-linear
trend of v in log n: single variances from 40 replicates would make wild weights.

Measured coverage of the 95% interval over 8,000 studies (10 x 10: 4,000), sizes log-spaced from 100
to 100,000:

=============================================== ====== ===========
errors, sizes x replicates                      median .9 quantile
=============================================== ====== ===========
half-normal times n^-1/2, 13 x 40               .957   .966
the same, 10 x 40                               .953   .962
the same, 6 x 20                                .961   .959
the same, 10 x 10                               .976   .953
n^-1/4 or n^-1/2 with equal chances, 13 x 40    .943   .964
the same, 6 x 20                                .950   .961
=============================================== ====== ===========

Over the larger half of the sizes it is .95 to .99. The bootstrap variance instead of v was 1.2 to
1.6 times too large, and its intervals covered .97 to .99. In the last two rows the median lies in
the gap between two laws, and its one-sided 95% limits miss 9% below and 2% above the slope.

References
----------
.. [1] Hutson, A. D. (1999). Calculating nonparametric confidence intervals for quantiles using
   fractional order statistics. Journal of Applied Statistics 26, 343-353.
.. [2] Hutson, A. D. and Ernst, M. D. (2000). The exact bootstrap mean and variance of an
   L-estimator. Journal of the Royal Statistical Society B 62, 89-94.
.. [3] Price, R. M. and Bonett, D. G. (2001). Estimating the variance of the sample median.
   Journal of Statistical Computation and Simulation 68, 295-305.
.. [4] Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance
   components. Biometrics Bulletin 2, 110-114.
.. [5] Kass, R. E. and Raftery, A. E. (1995). Bayes factors. Journal of the American Statistical
   Association 90, 773-795.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from kernels.checks import check_count
from moe_stats._validation import generator

from ._validation import as_array

Array = NDArray[np.float64]
Interval = tuple[float, float]

_MIN_SIZES = 3
_MIN_REPLICATES = 5
_ROUNDING = 1e-12  # standard error that rounding alone leaves in a log error
_Z80, _Z90, _Z95 = (NormalDist().inv_cdf(0.5 + level / 2) for level in (0.80, 0.90, 0.95))


@dataclass(frozen=True)
class Slope:
    """Weighted least-squares line of a log statistic on log n over the sizes from ``smallest`` up.

    Attributes
    ----------
    smallest, n_sizes : float, int
        The smallest size used, and how many sizes there are from it up.
    slope, intercept : float
        The statistic is near exp(intercept) n^slope.
    standard_error, df : float
        Standard error of the slope and its degrees of freedom.
    interval, half_width : (float, float), float
        Two-sided 95% interval of the slope and half its width.
    one_sided : (float, float)
        Lower and upper 95% limit of the slope, each taken alone.
    log_factor : float
        What a factor (log n)^(1/2) adds to the slope over these sizes.
    """

    smallest: float
    n_sizes: int
    slope: float
    intercept: float
    standard_error: float
    df: float
    interval: Interval
    half_width: float
    one_sided: Interval
    log_factor: float


@dataclass(frozen=True)
class Curve:
    """A quantile of the error against the sample size.

    Attributes
    ----------
    statistic : str
        "median" or "quantile90".
    sizes, values : tuple of float, one per size
        Sample sizes, increasing, and the quantile of the errors, interpolated between logarithms.
    lower, upper : tuple of float, one per size
        Pointwise 95% bootstrap band of ``values``. Its upper end is at most the largest error,
        so that with fewer than some 30 replicates the band of the .9 quantile covers too little.
    stability : tuple of Slope
        Slope without the smallest 0, 1, 2, ... sizes, as long as three sizes remain.
    slope, intercept, interval, half_width
        Those of the full range, ``stability[0]``.
    last_half : Slope
        Slope over the larger half of the sizes, at least three.
    """

    statistic: str
    sizes: tuple[float, ...]
    values: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    stability: tuple[Slope, ...]

    @property
    def slope(self) -> float:
        return self.stability[0].slope

    @property
    def intercept(self) -> float:
        return self.stability[0].intercept

    @property
    def interval(self) -> Interval:
        return self.stability[0].interval

    @property
    def half_width(self) -> float:
        return self.stability[0].half_width

    @property
    def last_half(self) -> Slope:
        n_sizes = len(self.sizes)
        return self.stability[n_sizes - max(_MIN_SIZES, (n_sizes + 1) // 2)]


@dataclass(frozen=True)
class Shape:
    """A law of decay fitted to the log medians by generalised least squares.

    Attributes
    ----------
    name : str
        "power" c n^-a, "log_power" c (log n)^(1/2) n^-a, "inverse_log" c / log n or "constant" c.
    exponent, standard_error : float
        a and its standard error; both 0 where the law has no power of n.
    delta : float
        BIC minus the smallest BIC of the four, counting replicates as observations.
    """

    name: str
    exponent: float
    standard_error: float
    delta: float


@dataclass(frozen=True)
class Rate:
    """What the errors of one study say about their rate of convergence.

    Attributes
    ----------
    median, quantile90 : Curve
    shapes : tuple of Shape
        Best first.
    n_failed : int
        Failed cells (NaN errors), left out of the quantiles.
    """

    median: Curve
    quantile90: Curve
    shapes: tuple[Shape, ...]
    n_failed: int

    @property
    def best_shape(self) -> str:
        """Name of the law with the smallest BIC; see ``plausible_shapes`` before believing it."""
        return self.shapes[0].name

    @property
    def plausible_shapes(self) -> tuple[str, ...]:
        """Laws against which the evidence is not "very strong", a BIC difference above 10.

        With 40 replicates of sizes 100 to 100,000 nothing tells n^-a from (log n)^(1/2) n^-a, or
        n^-1/8 from 1/log n: then this names them all.
        """
        return tuple(shape.name for shape in self.shapes if shape.delta <= 10)


def fit_rate(
    n: ArrayLike,
    error: ArrayLike,
    *,
    random_state: int | Generator | None,
    n_bootstrap: int = 2000,
) -> Rate:
    r"""Rates of convergence of the median and the .9 quantile of simulated errors.

    The log quantiles are regressed on log n; the module's docstring has the method. If the law is
    not a power of n, the intervals are for the slope of the best line through the true log
    quantiles, and ``stability`` shows how that slope moves with the sizes.

    Parameters
    ----------
    n : array-like of shape (C,)
        Sample size of each cell, above 1; cells of one size are replicates.
    error : array-like of shape (C,)
        Error of each cell, positive; NaN marks a failed cell.
    random_state : int, Generator or None
        Seed of the bootstrap.
    n_bootstrap : int, at least 200
        Number of bootstrap draws per size and statistic.

    Returns
    -------
    Rate

    Raises
    ------
    ValueError
        If lengths differ, a size is not finite and above 1, an error is zero, negative or
        infinite, or there are fewer than 3 sizes or 5 replicates (not failed) at a size.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> n = np.repeat(np.geomspace(100, 100_000, 13), 40)
    >>> rate = fit_rate(n, abs(rng.standard_normal(n.size)) / np.sqrt(n), random_state=1)
    >>> low, high = rate.median.interval
    >>> low < -0.5 < high, rate.best_shape in {"power", "log_power"}
    (True, True)
    """
    size, value = _validate(n, error, n_bootstrap)
    ok = ~np.isnan(value)
    sizes = np.unique(size)
    samples = [np.sort(np.log(value[ok & (size == one)])) for one in sizes]
    rng = generator(random_state)
    log_n = np.log(sizes)
    median, log_median, variance = _curve("median", 0.5, sizes, samples, rng, n_bootstrap)
    quantile90, _, _ = _curve("quantile90", 0.9, sizes, samples, rng, n_bootstrap)
    shapes = _shapes(log_n, log_median, _trend(log_n, variance), int(ok.sum()))
    return Rate(median, quantile90, shapes, int((~ok).sum()))


def _validate(n: ArrayLike, error: ArrayLike, n_bootstrap: int) -> tuple[Array, Array]:
    size, value = as_array("n", n, finite=False), as_array("error", error, finite=False)
    if size.ndim != 1 or size.shape != value.shape:
        raise ValueError(
            "The 'n' and 'error' parameters must be 1-D and of equal length; "
            f"got shapes {size.shape} and {value.shape}."
        )
    if (bad := size[~(np.isfinite(size) & (size > 1))]).size:
        raise ValueError(f"The 'n' parameter must be finite and above 1; got {bad[0]:g}.")
    if (value == 0).any():
        raise ValueError(
            "The 'error' parameter must be positive, since its logarithm is taken; "
            f"got {(value == 0).sum()} exact zeros."
        )
    if (bad := value[(value < 0) | np.isinf(value)]).size:
        raise ValueError(
            "The 'error' parameter must be positive and finite (NaN for a failed cell); "
            f"got {bad[0]:g}."
        )
    check_count("n_bootstrap", n_bootstrap, 200)
    sizes = np.unique(size)
    if len(sizes) < _MIN_SIZES:
        raise ValueError(
            f"The 'n' parameter must hold at least {_MIN_SIZES} distinct sizes; got {len(sizes)}."
        )
    for one in sizes:
        count = int((~np.isnan(value[size == one])).sum())
        if count < _MIN_REPLICATES:
            raise ValueError(
                f"The 'error' parameter must hold at least {_MIN_REPLICATES} replicates "
                f"(not failed) at every size; got {count} at n={one:g}."
            )
    return size, value


def _curve(
    statistic: str, p: float, sizes: Array, samples: list[Array], rng: Generator, n_bootstrap: int
) -> tuple[Curve, Array, Array]:
    """The curve of the p-quantile, the log quantiles and their sampling variances."""
    log_value, lower, upper, width, n_spacings = np.empty((5, len(sizes)))
    for j, sample in enumerate(samples):
        replicates = len(sample)
        rank = np.arange(1, replicates + 1)
        position = np.clip((replicates + 1 / 3) * p + 1 / 3, 1, replicates)
        u = rng.beta(position, replicates + 1 - position, size=n_bootstrap)
        draws = np.interp((replicates + 1) * u, rank, sample)
        log_value[j] = np.interp(position, rank, sample)
        lower[j], low, high, upper[j] = np.quantile(draws, [0.025, 0.1, 0.9, 0.975])
        in_sight = (replicates + 1) * np.quantile(u, 0.9) <= replicates + 0.5
        width[j] = high - low if in_sight else 2 * (log_value[j] - low)
        n_spacings[j] = 2 * _Z80 * np.sqrt(p * (1 - p) * replicates)
    variance = (width / (2 * _Z80)) ** 2 / (1 + 1 / n_spacings)
    variance = np.maximum(variance, 0.01 * variance.mean()) + _ROUNDING**2
    weight = 1 / _trend(np.log(sizes), variance)
    stability = tuple(
        _slope(sizes[k:], log_value[k:], variance[k:], weight[k:], n_spacings[k:] / 2)
        for k in range(len(sizes) - _MIN_SIZES + 1)
    )
    columns = (sizes, np.exp(log_value), np.exp(lower), np.exp(upper))
    size, value, below, above = (tuple(column.tolist()) for column in columns)
    return Curve(statistic, size, value, below, above, stability), log_value, variance


def _trend(log_n: Array, variance: Array) -> Array:
    """Log-linear trend of the variances in log n, at their mean level."""
    centred = log_n - log_n.mean()
    trend = np.exp(centred @ np.log(variance) / (centred @ centred) * centred)
    return trend * (variance / trend).mean()


def _slope(sizes: Array, y: Array, variance: Array, weight: Array, df: Array) -> Slope:
    log_n = np.log(sizes)
    centre = np.average(log_n, weights=weight)
    contrast = weight * (log_n - centre)
    contrast = contrast / (contrast @ log_n)
    slope = float(contrast @ y)
    part = contrast**2 * variance
    standard_error = float(np.sqrt(part.sum()))
    total_df = float(part.sum() ** 2 / (part**2 / df).sum())
    half_width = _student_quantile(_Z95, total_df) * standard_error
    reach = _student_quantile(_Z90, total_df) * standard_error
    return Slope(
        smallest=float(sizes[0]),
        n_sizes=len(sizes),
        slope=slope,
        intercept=float(np.average(y, weights=weight) - slope * centre),
        standard_error=standard_error,
        df=total_df,
        interval=(slope - half_width, slope + half_width),
        half_width=half_width,
        one_sided=(slope - reach, slope + reach),
        log_factor=float(contrast @ np.log(log_n)) / 2,
    )


def _student_quantile(z: float, df: float) -> float:
    """Quantile of Student's t at the level of the normal quantile z (Abramowitz-Stegun 26.7.5)."""
    s = z * z
    terms = (
        (s + 1) / 4,
        ((5 * s + 16) * s + 3) / 96,
        (((3 * s + 19) * s + 17) * s - 15) / 384,
        ((((79 * s + 776) * s + 1482) * s - 1920) * s - 945) / 92160,
    )
    return z * (1 + sum(term / df**k for k, term in enumerate(terms, start=1)))


def _shapes(log_n: Array, y: Array, variance: Array, n_replicates: int) -> tuple[Shape, ...]:
    weight = 1 / variance
    centred = log_n - np.average(log_n, weights=weight)
    information = float(weight @ centred**2)
    log_log_n = np.log(log_n)
    laws = {
        "power": (np.zeros_like(y), True),
        "log_power": (log_log_n / 2, True),
        "inverse_log": (-log_log_n, False),
        "constant": (np.zeros_like(y), False),
    }
    fits = []
    for name, (offset, has_power) in laws.items():
        rest = y - offset - np.average(y - offset, weights=weight)
        slope = float((weight * centred) @ rest) / information if has_power else 0.0
        bic = float(weight @ (rest - slope * centred) ** 2) + has_power * np.log(n_replicates)
        fits.append((name, -slope if has_power else 0.0, information**-0.5 * has_power, bic))
    best = min(bic for *_, bic in fits)
    shapes = (Shape(name, a, se, float(bic - best)) for name, a, se, bic in fits)
    return tuple(sorted(shapes, key=lambda shape: shape.delta))
