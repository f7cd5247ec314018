"""What a row of a `forecast` study holds: scores, and what its figures are drawn from, as JSON.

========== ====================================================================================
column     content
========== ====================================================================================
(scores)   those of `bayes.forecast.score_table` over all hidden rows
step       sampling step in hours
days       sums of ``n``, ``mae``, ``crps``, ``covered95``, ``interval_score95`` over each ``day``:
           arms that share a mask share these days, row by row
groups     scores by horizon, length of gap, sensor and hour (`bayes.forecast.evaluation.groups_of`)
           in the order of ``rank``, with standard errors over blocks of 24 sampling steps
levels     the share of hidden values below each quantile of `LEVELS`
places     averages over the hidden rows of each place, and the places that were observed
series     some days of one sensor: what was observed, what was hidden, quantiles of `BAND`
========== ====================================================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from bayes.forecast import Schema

SERIES_STEPS = 240
"""Sampling steps of a series that are kept."""

BAND = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Levels of a series that are kept."""

MAX_PLACES = 60
"""More of them, as of vehicles, are averaged on a grid with `GRID` cells a side."""

GRID = 20
N_BOOTSTRAP = 100


@dataclass(frozen=True, eq=False)
class Forecast:
    """What was asked and what was answered.

    Attributes
    ----------
    schema : Schema
    train, test : DataFrame
        Rows learned from and rows predicted, these with a known target.
    quantiles : ndarray (N, 21)
        Of the rows of ``test``, at `bayes.forecast.scores.LEVELS`.
    mean : ndarray (N,)
    """

    schema: Schema
    train: pd.DataFrame
    test: pd.DataFrame
    quantiles: np.ndarray
    mean: np.ndarray

    def at(self, *levels: float) -> np.ndarray:
        """Quantiles (N, L) at some of the levels."""
        from bayes.forecast.scores import LEVELS

        return self.quantiles[:, [int(np.abs(LEVELS - level).argmin()) for level in levels]]


def scored(forecast: Forecast, seed: int) -> dict[str, Any]:
    """The columns of the module's table, but for ``places`` and ``series``.

    Parameters
    ----------
    seed : int
        Of the bootstrap of the groups' standard errors.
    """
    from bayes.forecast import read_records, reliability, score_table
    from bayes.forecast.evaluation import groups_of
    from bayes.forecast.scores import LEVELS

    schema = forecast.schema
    context = read_records(forecast.train, schema)
    asked = read_records(forecast.test, schema, context.reference)
    groups, block = groups_of(forecast.train, forecast.test, schema)
    y = forecast.test[schema.target].to_numpy(float)
    total = score_table(y, forecast.quantiles, forecast.mean, n_bootstrap=0).iloc[0]
    tables = []
    for by, group in groups.items():
        table = score_table(
            y,
            forecast.quantiles,
            forecast.mean,
            by=group.to_numpy(),
            blocks=block,
            n_bootstrap=N_BOOTSTRAP,
            random_state=seed,
        )
        rank = group.cat.categories.get_indexer(table.index)
        tables.append(table.assign(by=by, rank=rank).sort_values("rank"))
    step = context.reference.step
    row: dict[str, Any] = {"n_train": len(context), "n_test": len(y), "step": step}
    row |= {name: float(total[name]) for name in total.index if name != "n"}
    row["days"] = _days(forecast, y, asked.restore(asked.hours // 24).astype(int))
    row["groups"] = _groups(tables)
    found = reliability(y, forecast.quantiles, LEVELS, block)
    row["levels"] = _json(
        {name: found[name].tolist() for name in ("level", "observed", "standard_error")}
    )
    return row


def drawn(forecast: Forecast) -> dict[str, str]:
    """The columns ``places`` and, where rows belong to a sensor, ``series``."""
    row = {"places": _places(forecast)}
    if forecast.schema.sensor is not None:
        row["series"] = _series(forecast)
    return row


def _days(forecast: Forecast, y: np.ndarray, day: np.ndarray) -> str:
    from bayes.forecast.scores import CRPS_LEVELS, crps_quantiles, interval_score

    low, middle, high = forecast.at(0.025, 0.5, 0.975).T
    values = pd.DataFrame(
        {
            "n": 1,
            "mae": np.abs(y - middle),
            "crps": crps_quantiles(y, forecast.at(*CRPS_LEVELS), CRPS_LEVELS),
            "covered95": ((low <= y) & (y <= high)).astype(int),
            "interval_score95": interval_score(y, low, high, 0.95),
        }
    )
    sums = values.groupby(day).sum()
    return _json({"day": sums.index.tolist(), **sums.round(6).to_dict("list")})


def _groups(tables: list[pd.DataFrame]) -> str:
    names = ["by", "group", "rank", "n", "crps", "crps_se", "coverage95", "coverage95_se"]
    found = pd.concat([table.rename_axis("group").reset_index() for table in tables])[names]
    found = found.astype(object).where(found.notna(), None)
    return _json(found.to_dict("list"))


def _places(forecast: Forecast) -> str:
    schema = forecast.schema
    axes = list(schema.coords[:2])
    low, middle, high = forecast.at(0.05, 0.5, 0.95).T
    raw = forecast.test[axes].to_numpy(float)
    place = raw
    if len(np.unique(raw, axis=0)) > MAX_PLACES:
        unit = np.ptp(raw, axis=0).clip(1e-9) / GRID
        place = (np.floor((raw - raw.min(0)) / unit) + 0.5) * unit + raw.min(0)
    values = pd.DataFrame(
        {"truth": forecast.test[schema.target].to_numpy(), "median": middle, "width": high - low}
    )
    means = values.groupby([*place.T]).mean()
    seen = forecast.train[axes].drop_duplicates()
    return _json(
        {
            "axes": axes,
            "place": means.index.to_frame().to_numpy().tolist(),
            **means.round(4).to_dict("list"),
            "observed": seen.to_numpy(float).tolist() if len(seen) <= MAX_PLACES else [],
        }
    )


def _series(forecast: Forecast) -> str:
    """The stretch of `SERIES_STEPS` with most hidden values of a sensor, and a quarter before."""
    schema = forecast.schema
    step = pd.to_timedelta(pd.tseries.frequencies.to_offset(schema.freq))
    window, before = SERIES_STEPS * step, SERIES_STEPS // 4 * step
    best: tuple[int, Any, Any] = (0, None, None)
    for sensor, rows in forecast.test.groupby(schema.sensor, sort=True):
        times = rows[schema.time].sort_values().to_numpy()
        inside = np.searchsorted(times, times + window.to_numpy()) - np.arange(len(times))
        if inside.max() > best[0]:
            best = (int(inside.max()), sensor, pd.Timestamp(times[inside.argmax()]))
    _, sensor, first = best

    def part(frame: pd.DataFrame) -> np.ndarray:
        time = frame[schema.time]
        near = (time >= first - before) & (time < first + window)
        return (near & (frame[schema.sensor] == sensor)).to_numpy()

    hidden = part(forecast.test)
    seen = forecast.train[part(forecast.train) & forecast.train[schema.target].notna()]
    times = forecast.test.loc[hidden, schema.time]
    order = np.argsort(times.to_numpy(), kind="stable")
    target = forecast.test.loc[hidden, schema.target].to_numpy(float)
    return _json(
        {
            "sensor": str(sensor),
            "hidden_at": [t.isoformat() for t in times.iloc[order]],
            "hidden": target[order].round(4).tolist(),
            "quantiles": forecast.at(*BAND)[hidden][order].round(4).tolist(),
            "seen_at": [t.isoformat() for t in seen[schema.time]],
            "seen": seen[schema.target].round(4).tolist(),
        }
    )


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
