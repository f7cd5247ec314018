"""Compare forecasters on tasks: hide rows, fit on the rest, score what was hidden.

A task splits a table into rows to learn from and rows to predict; `MaskTask` hides by a pattern of
`make_mask`, `ForecastTask` all after a time, `RowsTask` what a mask of yours says. Models never see
the targets of the rows to predict.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pandas as pd

from kernels.checks import check_real

from .gaps import Isolation, isolation
from .masks import make_mask
from .records import Schema, read_records
from .scores import LEVELS, score_table

EDGES = np.array([0, 1, 3, 6, 12, 24, 48, 72, 168])  # bins of horizon and gap length, in steps


class Task(Protocol):
    """Splits a table into rows to learn from and rows to predict, targets and all."""

    name: str

    def split(self, df: pd.DataFrame, schema: Schema) -> tuple[pd.DataFrame, pd.DataFrame]: ...


@dataclass(frozen=True)
class MaskTask:
    """Predict what `make_mask` hides; the name is that of pattern and rate if not given."""

    pattern: str
    rate: float
    random_state: int = 0
    gap: tuple[int, int] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"{self.pattern}{100 * self.rate:g}")

    def split(self, df: pd.DataFrame, schema: Schema) -> tuple[pd.DataFrame, pd.DataFrame]:
        hidden = make_mask(
            df, self.pattern, self.rate, self.random_state, schema=schema, gap=self.gap
        ).to_numpy()
        return df[~hidden], df[hidden]


@dataclass(frozen=True)
class ForecastTask:
    """Predict the last ``hours`` hours."""

    hours: float
    name: str = ""

    def __post_init__(self) -> None:
        check_real("hours", self.hours, low=0, strict=True)
        if not self.name:
            object.__setattr__(self, "name", f"forecast{self.hours:g}")

    def split(self, df: pd.DataFrame, schema: Schema) -> tuple[pd.DataFrame, pd.DataFrame]:
        records = read_records(df, schema)
        late = records.restore(records.hours > records.hours.max() - self.hours)
        return df[~late], df[late]


@dataclass(frozen=True)
class RowsTask:
    """Predict the rows of a mask (N,), learning from those of another (the rest if not given)."""

    name: str
    test: Any
    train: Any = None

    def split(self, df: pd.DataFrame, schema: Schema) -> tuple[pd.DataFrame, pd.DataFrame]:
        test = np.asarray(self.test, bool)
        train = ~test if self.train is None else np.asarray(self.train, bool)
        if test.shape != (len(df),) or train.shape != (len(df),) or (test & train).any():
            raise ValueError(
                f"The 'test' and 'train' parameters of task {self.name!r} must be disjoint masks "
                f"of the {len(df)} rows; got shapes {test.shape} and {train.shape} with "
                f"{(test & train).sum() if test.shape == train.shape else 'unknown'} in common."
            )
        return df[train], df[test]


def evaluate(
    model: Any,
    df: pd.DataFrame,
    tasks: Sequence[Task],
    baselines: Mapping[str, Any] | None = None,
    *,
    n_bootstrap: int = 200,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Scores of a model and of baselines on each task.

    Parameters
    ----------
    model : estimator
        With ``fit(df)``, ``predict(df, statistic="mean")``, ``predict_quantiles(df, alpha)`` and
        parameters that name the columns; it is cloned for each task.
    df : DataFrame
    tasks : sequence of Task
    baselines : mapping of name to estimator, optional
        Such as `bayes.forecast.baselines.standard(schema)`.
    n_bootstrap : int
        Resamples of days (of 24 steps if sampling is not hourly) for the standard errors; 0 leaves
        them out.
    random_state : int or Generator

    Returns
    -------
    DataFrame
        Tidy: ``task``, ``model``, ``by`` ("all", "horizon", "gap", "sensor" or "hour") and
        ``group`` (text; horizons and gaps are bins in hours), the columns of `score_table`, and
        in the rows of "all" ``fit_seconds`` and ``predict_seconds`` of processor time. The
        horizon is the time since the last observation of any sensor, the gap the hole in its
        sensor's record that a row lies in. For a chart of one of them::

            table[table.by == "horizon"].pivot(index="group", columns="model", values="crps")
    """
    from sklearn.base import clone

    schema = _schema_of(model)
    models = {type(model).__name__: model} | dict(baselines or {})
    rng = np.random.default_rng(random_state)
    parts = []
    for task in tasks:
        train, test = task.split(df, schema)
        test = test[test[schema.target].notna()]
        if len(test) == 0:
            raise ValueError(f"The task {task.name!r} must hide a known target; got none.")
        asked = test.assign(**{schema.target: np.nan})
        groups, blocks = groups_of(train, test, schema)
        for name, one in models.items():
            started = time.process_time()
            fitted = clone(one).fit(train)
            trained = time.process_time()
            quantiles = np.asarray(fitted.predict_quantiles(asked, alpha=list(LEVELS)))
            mean = np.asarray(fitted.predict(asked, statistic="mean"))
            done = time.process_time()
            for by, group in {"all": _one_group(len(test)), **groups}.items():
                table = score_table(
                    test[schema.target],
                    quantiles,
                    mean,
                    by=group.to_numpy(),
                    blocks=blocks,
                    n_bootstrap=n_bootstrap,
                    random_state=rng,
                )
                table = table.reindex([g for g in group.cat.categories if g in table.index])
                table = table.rename_axis("group").reset_index()
                table = table.assign(task=task.name, model=name, by=by)
                if by == "all":
                    table = table.assign(
                        fit_seconds=trained - started, predict_seconds=done - trained
                    )
                parts.append(table)
    out = pd.concat(parts, ignore_index=True)
    first = ["task", "model", "by", "group"]
    return out[[*first, *(column for column in out if column not in first)]]


def groups_of(
    train: pd.DataFrame, test: pd.DataFrame, schema: Schema
) -> tuple[dict[str, pd.Series], np.ndarray]:
    """By what scores of the test rows are told apart, given the rows learned from.

    Returns
    -------
    dict of Series
        "horizon", "gap", "sensor" and "hour" of the N test rows: categories of text in their order,
        as `evaluate` says.
    ndarray (N,)
        Blocks of 24 sampling steps, whose rows are dependent.

    Examples
    --------
    >>> times = pd.date_range("2024-01-01", periods=30, freq="h")
    >>> df = pd.DataFrame({"time": times, "x": 0.0, "s": "a", "y": np.arange(30.0)})
    >>> schema = Schema("time", ["x"], "y", sensor="s", freq="h")
    >>> groups, block = groups_of(df[:20], df.iloc[[20, 29]], schema)
    >>> groups["horizon"].tolist()
    ['(0, 1]', '(6, 12]']
    """
    context = read_records(train, schema)
    queries = read_records(test, schema, context.reference)
    apart = isolation(context, queries)
    labels = [str(label) for label in context.reference.sensors]
    sensor = pd.Series(np.array([*labels, "new"], dtype=object)[queries.sensor])
    groups = {
        "horizon": _bins(apart.horizon, apart),
        "gap": _bins(apart.gap, apart),
        "sensor": sensor.astype("category"),
        "hour": pd.Series(np.char.mod("%02d", (queries.hours % 24).astype(int))).astype("category"),
    }
    blocks = queries.hours // (24 * context.reference.step)
    restored = {by: group.iloc[queries.rank] for by, group in groups.items()}
    return restored, queries.restore(blocks)


def _schema_of(model: Any) -> Schema:
    names = ("time", "coords", "target", "covariates", "sensor", "freq")
    return Schema(**{name: getattr(model, name) for name in names})


def _one_group(n_rows: int) -> pd.Series:
    return pd.Series(np.full(n_rows, "all")).astype("category")


def _bins(hours: np.ndarray, apart: Isolation) -> pd.Series:
    edges = EDGES * apart.step
    names = [f"({low:g}, {high:g}]" for low, high in pairwise(edges)]
    names = ["0", *names, f"over {edges[-1]:g}", "no end"]
    code = np.where(np.isinf(hours), len(names) - 1, np.searchsorted(edges, hours))
    text = pd.Series(np.array(names, dtype=object)[code])
    return text.astype(pd.CategoricalDtype(names))
