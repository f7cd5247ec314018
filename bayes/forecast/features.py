"""What the network is given of a row: coordinates, seasons and covariates on common scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .architecture import Inputs
from .architecture.harmonics import seasonal_harmonics
from .context import N_EDGE, N_SUMMARY, Context
from .neighbours import Query
from .records import Records
from .seasons import harmonic_counts

CONTEXT_EXTENT = 0.25  # of the coordinates where there is a context: features stay smooth


@dataclass(frozen=True)
class Features:
    """How rows become inputs; its fields are plain Python values.

    Attributes
    ----------
    context : bool
        Whether there is one. Without it time itself is a coordinate.
    periods : tuple of float
        Seasons in steps.
    counts : tuple of int
        Their harmonics.
    first, last : float
        Extremes of time, in steps.
    middle : tuple of float
        Of the positions.
    extent : float
        Of the positions: the greatest range.
    covariate_middle, covariate_scale : tuple of float
    """

    context: bool
    periods: tuple[float, ...]
    counts: tuple[int, ...]
    first: float
    last: float
    middle: tuple[float, ...]
    extent: float
    covariate_middle: tuple[float, ...]
    covariate_scale: tuple[float, ...]

    @classmethod
    def fit(cls, records: Records, periods: list[float], context: bool) -> Features:
        """From training records and seasons in hours."""
        step = records.reference.step
        low, high = records.position.min(0), records.position.max(0)
        middle, scale = [], []
        for column in records.covariates.T:
            known = column[~np.isnan(column)]
            middle.append(float(known.mean()) if len(known) else 0.0)
            scale.append((float(known.std()) if len(known) else 0.0) or 1.0)
        return cls(
            context=context,
            periods=tuple(p / step for p in periods),
            counts=tuple(harmonic_counts(periods, step)),
            first=float(records.hours.min() / step),
            last=float(records.hours.max() / step),
            middle=tuple((0.5 * (low + high)).tolist()),
            extent=float((high - low).max()) or 1.0,
            covariate_middle=tuple(middle),
            covariate_scale=tuple(scale),
        )

    @property
    def n_coords(self) -> int:
        return len(self.middle) + (not self.context)

    @property
    def n_season(self) -> int:
        return seasonal_harmonics(np.zeros(1), self.periods, self.counts).shape[1]

    @property
    def n_covariates(self) -> int:
        return 2 * len(self.covariate_middle)

    def inputs(self, query: Query, covariates: np.ndarray, context: Context | None) -> Inputs:
        """Inputs of Q rows; a missing covariate is at its mean, and a mask says so."""
        place = (query.position - self.middle) / self.extent
        if self.context:
            coords = CONTEXT_EXTENT * place
        else:
            span = max(self.last - self.first, 1.0)
            coords = np.column_stack([(query.time - self.first) / span - 0.5, place])
        known = ~np.isnan(covariates)
        scaled = (covariates - self.covariate_middle) / self.covariate_scale
        given = np.concatenate([np.where(known, scaled, 0.0), ~known], axis=1)
        season = seasonal_harmonics(query.time, self.periods, self.counts)
        seen = _nothing(len(query)) if context is None else _seen(context)
        return Inputs(*(_tensor(part) for part in (coords, season, given, *seen)))


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array if array.dtype == bool else array.astype(np.float32))


def _seen(context: Context) -> tuple[np.ndarray, ...]:
    log_spread = np.log(context.spread)
    return (
        context.value, context.present, context.edge, context.summary, context.mean, log_spread
    )  # fmt: skip


def _nothing(n: int) -> tuple[np.ndarray, ...]:
    """A field's context: no proposals, from mean 0 and spread 1."""
    sizes = [(0,), (0,), (0, N_EDGE), (N_SUMMARY,), (), ()]
    dtypes = [float, bool, float, float, float, float]
    return tuple(np.zeros((n, *size), t) for size, t in zip(sizes, dtypes, strict=True))
