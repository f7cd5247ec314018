"""What the baselines share: the estimator's protocol, and intervals from masked residuals.

A baseline turns observed records into a point forecast with a relative spread. In `fit` parts of
the data are hidden in several patterns (`masked_views`), the hidden values are forecast from the
rest, and split conformal calibration of these forecasts, in groups of rows that are equally far
from what is observed (`Isolation.group`), gives the quantiles; rows further away than any hidden
one count as the furthest. A positive target is calibrated on a log scale, where errors are more
alike; there a wide interval can reach beyond any bound, so quantiles are kept within the observed
range and its length to either side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from kernels.checks import check_choice, check_real

from ..calibration import Conformal, central_levels, check_levels
from ..gaps import isolation, nearest_group
from ..masks import mask_records
from ..records import Records, Schema, read_records
from ..scale import TargetScale
from ..scores import LEVELS

FITTED_LEVELS = np.sort(np.append(LEVELS, [0.005, 0.01, 0.99, 0.995]))
VIEW_ROWS = 5_000  # hidden rows a view at most
PATTERNS = (
    ("point", 0.3),
    ("point", 0.5),
    ("block", 0.3),
    ("block", 0.5),
    ("outage", 0.2),
    ("outage", 0.4),
)
N_FOLDS = 4  # each sensor is hidden once, with a quarter of them
N_CUTS = 6


@dataclass(frozen=True)
class View:
    """Records with some targets hidden, and the rows that were."""

    context: Records
    hidden: Records


class Baseline(BaseEstimator, ABC):
    """Base class of the baselines; see their module for what is shared.

    Parameters
    ----------
    time, coords, target, covariates, sensor, freq
        Columns of the table, as for `Schema`.
    random_state : int
        Of the masks.
    """

    def __init__(
        self,
        time: str,
        coords: Sequence[str],
        target: str,
        covariates: Sequence[str] = (),
        sensor: str | None = None,
        freq: str | None = None,
        random_state: int = 0,
    ) -> None:
        self.time = time
        self.coords = coords
        self.target = target
        self.covariates = covariates
        self.sensor = sensor
        self.freq = freq
        self.random_state = random_state

    def fit(self, df: pd.DataFrame) -> Self:
        """Learn from the rows with a known target, and calibrate."""
        schema = Schema(
            self.time, self.coords, self.target, self.covariates, self.sensor, self.freq
        )
        self.records_ = read_records(df, schema)
        self.scale_ = log_scale(self.records_.target)
        views = self._views(np.random.default_rng(self.random_state))
        self._learn(views)
        self.conformal_ = self._calibrate(views)
        return self

    def predict(self, df: pd.DataFrame, statistic: str = "median") -> pd.Series:
        """Medians or means of the calibrated forecasts, with the index of the table."""
        check_choice("statistic", statistic, ("median", "mean"))
        values = self._calibrated(df)
        if statistic == "median":
            out = values[:, int(np.searchsorted(FITTED_LEVELS, 0.5))]
        else:  # the quantile function, linear between levels and constant beyond, integrated
            edges = np.concatenate([[0.0], FITTED_LEVELS, [1.0]])
            out = values @ (edges[2:] - edges[:-2]) / 2
            out += (values[:, 0] * edges[1] + values[:, -1] * (1 - edges[-2])) / 2
        return pd.Series(out, index=df.index, name=self.target)

    def predict_quantiles(
        self, df: pd.DataFrame, alpha: Sequence[float] = tuple(LEVELS)
    ) -> pd.DataFrame:
        """Quantiles at levels ``alpha`` in [.005, .995], one column a level."""
        levels = check_levels(np.unique(alpha), straddle=False)
        for level in (levels[0], levels[-1]):
            check_real("alpha", level, low=FITTED_LEVELS[0], high=FITTED_LEVELS[-1])
        values = self._calibrated(df)
        at = np.interp(np.asarray(alpha, np.float64), FITTED_LEVELS, np.arange(len(FITTED_LEVELS)))
        left = np.minimum(at.astype(int), len(FITTED_LEVELS) - 2)
        values = values[:, left] * (1 - at + left) + values[:, left + 1] * (at - left)
        return pd.DataFrame(values, index=df.index, columns=list(alpha))

    def predict_interval(
        self, df: pd.DataFrame, coverage: Sequence[float] = (0.9,)
    ) -> pd.DataFrame:
        """Central intervals; columns (coverage, "low") and (coverage, "high")."""
        out = self.predict_quantiles(df, central_levels(coverage))
        out.columns = pd.MultiIndex.from_product([coverage, ["low", "high"]])
        return out

    @abstractmethod
    def _guess(self, context: Records, queries: Records) -> tuple[np.ndarray, np.ndarray]:
        """Point forecasts (N,) and their relative spreads (N,) on the log scale."""

    def _views(self, rng: np.random.Generator) -> list[View]:
        """What to calibrate on."""
        return masked_views(self.records_, rng)

    def _learn(self, views: list[View]) -> None:
        """Set what ``_guess`` needs besides the context."""

    def _guess_held_out(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """``_guess`` of hidden rows, not having learned from them."""
        return self._guess(view.context, view.hidden)

    def _calibrate(self, views: list[View]) -> Conformal:
        y, quantiles, groups = [], [], []
        for view in views:
            y.append(self.scale_.forward(view.hidden.target))
            quantiles.append(self._quantiles(*self._guess_held_out(view)))
            groups.append(isolation(view.context, view.hidden).group)
        return Conformal.fit(
            np.concatenate(y), np.concatenate(quantiles), FITTED_LEVELS, np.concatenate(groups)
        )

    def _quantiles(self, point: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Of a normal distribution on the log scale (N, L)."""
        return self.scale_.forward(point)[:, None] + spread[:, None] * norm.ppf(FITTED_LEVELS)

    def _calibrated(self, df: pd.DataFrame) -> np.ndarray:
        """Quantiles (N, L) at `FITTED_LEVELS`, in the caller's order."""
        check_is_fitted(self, "conformal_")
        known = self.records_.reference
        queries = read_records(df, known.schema, known)
        quantiles = self._quantiles(*self._guess(self.records_, queries))
        group = isolation(self.records_, queries).group
        group = nearest_group(group, self.conformal_.groups)
        values = self.scale_.inverse(self.conformal_.apply(quantiles, group))
        low, high = np.nanmin(self.records_.target), np.nanmax(self.records_.target)
        return queries.restore(np.clip(values, 2 * low - high, 2 * high - low))


def log_scale(target: np.ndarray) -> TargetScale:
    """log(y + c) for non-negative targets, c being a tenth of their mean; y itself for others.

    Examples
    --------
    >>> scale = log_scale(np.array([0.0, 10.0, 50.0]))
    >>> scale.inverse(scale.forward(np.array([3.0]))).round(6), scale.inverse(np.array([-9.0]))
    (array([3.]), array([0.]))
    """
    known = target[~np.isnan(target)]
    if known.min() < 0:
        return TargetScale(power=1.0, offset=0.0, middle=-1.0, spread=1.0, low=-np.inf)
    return TargetScale(power=0.0, offset=0.1 * float(known.mean()), middle=0.0, spread=1.0, low=0.0)


def masked_views(records: Records, rng: np.random.Generator) -> list[View]:
    """The records with parts hidden: points, gaps, sensors, outages, and all after some times."""
    masks = [mask_records(records, pattern, rate, rng) for pattern, rate in PATTERNS]
    if records.n_sensors >= N_FOLDS:
        fold = rng.permutation(records.n_sensors) % N_FOLDS
        masks += [(fold[records.sensor] == f) & (records.sensor >= 0) for f in range(N_FOLDS)]
    views = [_view(records, mask & records.observed, mask, rng) for mask in masks]
    step = records.reference.step
    start, end = records.hours.min(), records.hours.max()
    horizon = min(336 * step, (end - start) / 4)
    for cut in np.linspace(start + (end - start) / 3, end - horizon, N_CUTS):
        later = records.hours > cut
        near = later & (records.hours <= cut + horizon) & records.observed
        if near.any():
            views.append(_view(records, near, later, rng))
    return views


def _view(
    records: Records, asked: np.ndarray, hidden: np.ndarray, rng: np.random.Generator
) -> View:
    rows = np.flatnonzero(asked)
    if len(rows) > VIEW_ROWS:
        rows = np.sort(rng.choice(rows, VIEW_ROWS, replace=False))
    return View(records.hide(hidden), records.take(rows))
