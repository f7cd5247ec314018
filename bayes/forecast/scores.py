r"""Scores of probabilistic forecasts given as quantiles or as samples.

Functions of one idea return a value an observation; `score_table` averages them by group with
standard errors. Smaller is better but for coverage, which should equal its nominal value.

.. math:: \text{pinball}_\alpha(y, q) = \max\{\alpha (y - q),\; (\alpha - 1)(y - q)\}

is minimal in expectation at the quantile, and

.. math:: \text{CRPS} = \int (F(x) - 1\{y \le x\})^2 dx
          = 2 \int_0^1 \text{pinball}_\alpha(y, F^{-1}(\alpha))\, d\alpha

is approximated by twice the mean over levels .05, .10, ..., .95, which leaves out the ends: for a
normal forecast of normal data it is 5% too large.

Quantiles stand for the distribution whose density is constant between neighbours and falls off
exponentially beyond the outermost ones, continuously; `log_score` and `pit` are of that
distribution.

References
----------
Gneiting, Raftery (2007), Strictly proper scoring rules, prediction, and estimation.
Künsch (1989), The jackknife and the bootstrap for general stationary observations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kernels.checks import check_int

CRPS_LEVELS = np.arange(1, 20) / 20
LEVELS = np.sort(np.append(CRPS_LEVELS, [0.025, 0.975]))
COVERAGES = (0.5, 0.9, 0.95)


def pinball(y: Any, quantiles: Any, levels: Any) -> np.ndarray:
    """Pinball losses (N, L) of quantiles (N, L) at levels (L,).

    Examples
    --------
    >>> pinball([1.0], [[0.0, 3.0]], [0.1, 0.9]).round(2)
    array([[0.1, 0.2]])
    """
    error = np.asarray(y, np.float64)[:, None] - np.asarray(quantiles, np.float64)
    levels = np.asarray(levels, np.float64)
    return np.maximum(levels * error, (levels - 1) * error)


def crps_quantiles(y: Any, quantiles: Any, levels: Any) -> np.ndarray:
    """CRPS (N,) as twice the mean pinball loss over equally spaced levels."""
    return 2 * pinball(y, quantiles, levels).mean(axis=1)


def crps_samples(y: Any, samples: Any) -> np.ndarray:
    r"""CRPS (N,) of the empirical distributions of samples (N, S), exactly.

    .. math:: \frac1S \sum_s |x_s - y| - \frac1{2 S^2} \sum_{s,r} |x_s - x_r|

    Examples
    --------
    >>> crps_samples([1.0], [[0.0, 2.0]])
    array([0.5])
    """
    y, samples = np.asarray(y, np.float64), np.sort(np.asarray(samples, np.float64), axis=1)
    n_draws = samples.shape[1]
    weights = 2 * np.arange(1, n_draws + 1) - n_draws - 1  # of sorted draws in the double sum
    return np.abs(samples - y[:, None]).mean(axis=1) - samples @ weights / n_draws**2


def interval_score(y: Any, low: Any, high: Any, coverage: float) -> np.ndarray:
    r"""Winkler's score (N,) of central intervals: width plus :math:`2/(1-c)` times the miss.

    Examples
    --------
    >>> interval_score([0.0, 3.0], [1.0, 1.0], [2.0, 4.0], 0.9).round(6)
    array([21.,  3.])
    """
    y, low, high = (np.asarray(value, np.float64) for value in (y, low, high))
    miss = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return high - low + 2 / (1 - coverage) * miss


def log_score(y: Any, quantiles: Any, levels: Any) -> np.ndarray:
    """Minus the log density (N,) of the distribution that the quantiles stand for.

    Examples
    --------
    >>> log_score([0.5], [[0.0, 1.0]], [0.25, 0.75]).round(3)  # half the mass on a unit interval
    array([0.693])
    """
    y, edges, mass, cell = _cells(y, quantiles, levels)
    row = np.arange(len(y))
    density = mass[1:-1] / np.diff(edges, axis=1)
    ends = np.concatenate([density[:, :1], density, density[:, -1:]], axis=1)
    below, above = np.maximum(edges[:, 0] - y, 0), np.maximum(y - edges[:, -1], 0)
    fall = below * density[:, 0] / mass[0] + above * density[:, -1] / mass[-1]
    return fall - np.log(ends[row, cell])


def pit(y: Any, quantiles: Any, levels: Any) -> np.ndarray:
    """Probability integral transform (N,): F(y), uniform if the forecast is right.

    Examples
    --------
    >>> pit([0.5], [[0.0, 1.0]], [0.25, 0.75]).round(3)
    array([0.5])
    """
    y, edges, mass, cell = _cells(y, quantiles, levels)
    density = mass[1:-1] / np.diff(edges, axis=1)
    below, above = np.maximum(edges[:, 0] - y, 0), np.maximum(y - edges[:, -1], 0)
    left = np.clip(cell - 1, 0, density.shape[1] - 1)
    row = np.arange(len(y))
    inside = np.cumsum(mass)[left] + (y - edges[row, left]) * density[row, left]
    return np.where(
        cell == 0,
        mass[0] * np.exp(-below * density[:, 0] / mass[0]),
        np.where(
            cell == len(mass) - 1,
            1 - mass[-1] * np.exp(-above * density[:, -1] / mass[-1]),
            inside,
        ),
    )


def score_table(
    y: Any,
    quantiles: Any,
    mean: Any = None,
    *,
    by: Any = None,
    blocks: Any = None,
    n_bootstrap: int = 200,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Average scores by group, with block-bootstrap standard errors.

    Parameters
    ----------
    y : array (N,)
    quantiles : array (N, 21)
        At `LEVELS`: .025, .05, .10, ..., .95, .975.
    mean : array (N,), optional
        Predictive means, for RMSE; the medians if not given.
    by : array (N,), optional
        Group of each row, such as horizon, gap length, sensor or hour; one group if not given.
    blocks : array (N,), optional
        Rows of one block are dependent, such as those of one day: blocks are drawn with
        replacement. Rows if not given.
    n_bootstrap : int
        Resamples; 0 leaves standard errors out.
    random_state : int or Generator

    Returns
    -------
    DataFrame
        Indexed by group: ``n``, ``mae`` (of the median), ``rmse`` (of the mean), ``crps``,
        ``log_score``, and for 50, 90 and 95% ``coverage``, ``width``, ``interval_score``; with
        the suffix ``_se`` their standard errors, NaN with a single block. Units are those of y.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> from scipy.stats import norm
    >>> table = score_table(rng.normal(size=4000), np.tile(norm.ppf(LEVELS), (4000, 1)))
    >>> table[["mae", "crps", "coverage95"]].round(2).to_numpy()
    array([[0.8 , 0.59, 0.95]])
    """
    y = np.asarray(y, np.float64)
    quantiles = np.asarray(quantiles, np.float64)
    check_int("n_bootstrap", n_bootstrap, 0)
    if quantiles.shape != (len(y), len(LEVELS)):
        raise ValueError(
            f"The 'quantiles' parameter must have shape ({len(y)}, {len(LEVELS)}), the columns at "
            f"LEVELS; got {quantiles.shape}."
        )
    if not (np.isfinite(y).all() and np.isfinite(quantiles).all()):
        raise ValueError("The 'y' and 'quantiles' parameters must be finite; got NaN or infinity.")
    values = _row_scores(y, quantiles, quantiles[:, _at(0.5)] if mean is None else mean)
    group = np.zeros(len(y), np.int64) if by is None else np.asarray(by)
    block = pd.factorize(np.arange(len(y)) if blocks is None else np.asarray(blocks))[0]
    rng = np.random.default_rng(random_state)
    rows = {}
    for label in np.unique(group):
        own = group == label
        part = values[own].to_numpy()
        row = dict(zip(values.columns, _finish(part.mean(axis=0, keepdims=True))[0], strict=True))
        if n_bootstrap:
            spread = _bootstrap(part, block[own], n_bootstrap, rng)
            row |= dict(zip(values.columns + "_se", spread, strict=True))
        rows[label] = {"n": int(own.sum())} | row
    return pd.DataFrame.from_dict(rows, orient="index")


def _row_scores(y: np.ndarray, quantiles: np.ndarray, mean: Any) -> pd.DataFrame:
    crps_columns = [_at(level) for level in CRPS_LEVELS]
    scores = {
        "rmse": (y - np.asarray(mean, np.float64)) ** 2,  # its root is taken after averaging
        "mae": np.abs(y - quantiles[:, _at(0.5)]),
        "crps": crps_quantiles(y, quantiles[:, crps_columns], CRPS_LEVELS),
        "log_score": log_score(y, quantiles, LEVELS),
    }
    for c in COVERAGES:
        low, high = quantiles[:, _at((1 - c) / 2)], quantiles[:, _at((1 + c) / 2)]
        scores[f"coverage{c * 100:.0f}"] = ((y >= low) & (y <= high)).astype(np.float64)
        scores[f"width{c * 100:.0f}"] = high - low
        scores[f"interval_score{c * 100:.0f}"] = interval_score(y, low, high, c)
    return pd.DataFrame(scores)


def _finish(averages: np.ndarray) -> np.ndarray:
    return np.concatenate([np.sqrt(averages[:, :1]), averages[:, 1:]], axis=1)


def _bootstrap(
    values: np.ndarray, block: np.ndarray, n_bootstrap: int, rng: np.random.Generator
) -> np.ndarray:
    """Standard errors (M,) from averages over resampled blocks; NaN with a single block."""
    _, code = np.unique(block, return_inverse=True)
    n_blocks = int(code.max()) + 1
    if n_blocks == 1:
        return np.full(values.shape[1], np.nan)
    sums = np.zeros((n_blocks, values.shape[1] + 1))
    np.add.at(sums, code, np.column_stack([values, np.ones(len(values))]))
    times = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n_bootstrap)
    totals = times @ sums
    return _finish(totals[:, :-1] / totals[:, -1:]).std(axis=0)


def _at(level: float) -> int:
    return int(np.abs(LEVELS - level).argmin())


def _cells(
    y: Any, quantiles: Any, levels: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """y, edges (N, L), the mass of each of the L + 1 cells, and the cell of y (N,).

    Quantiles that coincide, as where a bound was reached, are set apart by a millionth of the
    range of the row (or by 1e-12), so that densities are finite.
    """
    y, edges = np.asarray(y, np.float64), np.asarray(quantiles, np.float64)
    step = np.maximum((edges[:, -1:] - edges[:, :1]) * 1e-6, 1e-12)
    edges = np.maximum.accumulate(edges, axis=1) + step * np.arange(edges.shape[1])
    mass = np.diff(np.concatenate([[0.0], np.asarray(levels, np.float64), [1.0]]))
    return y, edges, mass, np.sum(y[:, None] > edges, axis=1)
