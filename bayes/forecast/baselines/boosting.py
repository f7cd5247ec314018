"""Gradient boosting on neighbours and lags, trained under the masks it will meet.

A row is described by its time and place, the values before and after at its sensor with their
ages, simultaneous values at the nearest other sensors, the inverse-distance estimate, and by how
much its sensor differed from that estimate when it was last and is next observed. Trees learn by
what share to change an anchor, the estimate corrected by that difference; other levels enter as
shares of it too. Places and distances are no features: trees would know stations by them, and a new
one is none of those. Two models, of the median and of the absolute error on the log scale, are
fitted once for each of three folds of the time axis, without it, so that every row has a forecast
that did not learn from it; later rows take the average of the three.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..gaps import around
from ..records import Records
from ..scale import TargetScale
from . import series
from .base import Baseline, View
from .climatology import climate
from .inverse_distance import Found, Neighbours

N_FOLDS = 3
N_CHUNKS = 15  # stretches of time, dealt to the folds in turn
N_NEAREST = 4
POWER = 2.0  # of the inverse distance
SETTINGS: dict[str, Any] = {
    "max_iter": 200,
    "learning_rate": 0.06,
    "min_samples_leaf": 40,
    "early_stopping": False,
}


class Boosting(Baseline):
    """scikit-learn's histogram gradient boosting of the features of this module."""

    def _learn(self, views: list[View]) -> None:
        from sklearn.ensemble import HistGradientBoostingRegressor

        self.start_ = self.records_.hours.min()
        self.chunk_ = (np.ptp(self.records_.hours) + 1) / N_CHUNKS
        rows = [features(view.context, view.hidden, self.scale_) for view in views]
        X, anchor, size = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        y = np.concatenate([view.hidden.target for view in views])
        fold = np.concatenate([self._fold(view.hidden) for view in views])

        def fit(target: np.ndarray, loss: str) -> tuple[list[Any], np.ndarray]:
            models = []
            held_out = np.empty(len(y))
            for f in range(N_FOLDS):  # model f has not seen fold f
                own = fold == f
                model = HistGradientBoostingRegressor(
                    loss=loss, random_state=self.random_state, **SETTINGS
                )
                models.append(model.fit(X[~own], target[~own], sample_weight=size[~own]))
                held_out[own] = model.predict(X[own])
            return models, held_out

        self.medians_, shift = fit((y - anchor) / size, "absolute_error")
        error = self.scale_.forward(y) - self.scale_.forward(anchor + size * shift)
        self.spreads_, _ = fit(np.log(np.abs(error) + 1e-3), "squared_error")

    def _guess(self, context: Records, queries: Records) -> tuple[np.ndarray, np.ndarray]:
        X, anchor, size = features(context, queries, self.scale_)
        shift, log_spread = (
            np.mean([model.predict(X) for model in models], axis=0)
            for models in (self.medians_, self.spreads_)
        )
        return anchor + size * shift, np.exp(log_spread)

    def _guess_held_out(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        X, anchor, size = features(view.context, view.hidden, self.scale_)
        fold = self._fold(view.hidden)
        shift, log_spread = np.empty(len(X)), np.empty(len(X))
        for f in np.unique(fold):
            shift[fold == f] = self.medians_[f].predict(X[fold == f])
            log_spread[fold == f] = self.spreads_[f].predict(X[fold == f])
        return anchor + size * shift, np.exp(log_spread)

    def _fold(self, records: Records) -> np.ndarray:
        return ((records.hours - self.start_) // self.chunk_).astype(np.int64) % N_FOLDS


def features(
    context: Records, queries: Records, scale: TargetScale
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, F) of rows, NaN where there is no such neighbour; anchor and its size (N,)."""
    neighbours = Neighbours(context)
    own = series.own(context, queries)
    found = neighbours.find(queries)
    estimate = found.estimate(POWER)
    corrected = _corrected(context, queries, neighbours, estimate, own)
    anchor = np.where(np.isnan(corrected[-1]), estimate, corrected[-1])
    size = np.ones(len(anchor))
    if scale.low == 0:
        anchor = np.maximum(anchor, 0)
        size = anchor + scale.offset
    levels = [
        estimate,
        *corrected,
        own.before,
        own.after,
        own.interpolate(),
        series.network(context, queries.hours),
        climate(context, queries),
        *_second(context, queries, own),
        *_nearest(found),
    ]
    columns = [
        anchor,
        *((level - anchor) / size for level in levels),
        *_clock(queries.hours),
        *queries.covariates.T,
        *(np.where(np.isfinite(age), age, np.nan) for age in (own.since, own.until)),
    ]
    return np.stack(columns, axis=1), anchor, size


def _clock(hours: np.ndarray) -> list[np.ndarray]:
    day, week = 2 * np.pi * hours / 24, 2 * np.pi * hours / 168
    return [np.sin(day), np.cos(day), np.sin(week), np.cos(week)]


def _corrected(
    context: Records,
    queries: Records,
    neighbours: Neighbours,
    estimate: np.ndarray,
    own: series.Bracket,
) -> list[np.ndarray]:
    """The estimate corrected by what it missed at the sensor before, after and in between."""
    before, after = around(context, queries)
    rows = np.unique(np.append(before, after))
    rows = rows[rows >= 0]
    missed = np.full(len(context) + 1, np.nan)  # the last stands for none
    if len(rows):
        at = context.take(rows)
        missed[rows] = at.target - neighbours.find(at).estimate(POWER)
    misses = replace(own, before=missed[before], after=missed[after])
    return [estimate + m for m in (misses.before, misses.after, misses.interpolate())]


def _second(context: Records, queries: Records, own: series.Bracket) -> list[np.ndarray]:
    """The value before the one before, and that after the one after."""
    age = np.where(np.isfinite(own.since), own.since, 0)
    earlier = series.own(context, replace(queries, hours=queries.hours - age)).before
    age = np.where(np.isfinite(own.until), own.until, 0)
    later = series.own(context, replace(queries, hours=queries.hours + age)).after
    return [earlier, later]


def _nearest(found: Found) -> list[np.ndarray]:
    """Values of the nearest simultaneous neighbours, NaN where there are fewer."""
    distance = np.where(found.alone[:, None], np.inf, found.distance)
    order = np.argsort(distance, axis=1, kind="stable")[:, :N_NEAREST]
    value = np.where(np.isinf(distance), np.nan, found.value)
    return list(np.take_along_axis(value, order, axis=1).T)
