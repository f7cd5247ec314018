r"""How well functions of a prior match those of a target.

Three distances between laws of function values at M measured points, and three statistics of each
law. Every number stands beside its floor: the same number for the target against itself, as far as
samples of one size tell. All come with the standard error over fresh measurement sets and draws.

* Bures-W2, a point: :math:`M^{-1/2} W_2` between Gaussians of the sample moments;
* sliced W1 and energy distance of the samples;
* marginal variance, excess kurtosis, both averaged over points;
* correlation length: the distance of inputs at which the correlation of function values, averaged
  over pairs of points, falls below 1/e; infinite if it does not within the measurement set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kernels.checks import check_int, check_memory

from .._validation import check_callable, torch_generator
from .base import Prior
from .energy import energy_distance
from .gaussian_w2 import gaussian_w2
from .measurement import as_measurement
from .sliced import sliced_w1
from .targets import as_target

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

N_LINES = 8
"""Functions of each that are kept for drawing."""


@dataclass(frozen=True, eq=False)
class PriorReport:
    """A table of distances and statistics, and functions of both to look at.

    Attributes
    ----------
    table : pandas.DataFrame
        A row for each quantity: ``prior`` and ``target`` with their standard errors. For a
        distance, ``prior`` is between prior and target and ``target`` the floor, between target
        and itself.
    position : ndarray
        (T,) along a straight line through the inputs: the input itself for one feature, else the
        distance from the line's start.
    prior_functions, target_functions : ndarray
        (8, T) values along it, of the first output, after the link.
    """

    table: pd.DataFrame
    position: np.ndarray
    prior_functions: np.ndarray
    target_functions: np.ndarray

    def __getitem__(self, quantity: str) -> pd.Series:
        return self.table.T[quantity]

    def __str__(self) -> str:
        return self.table.to_string(float_format="%.4g")

    def plot(self) -> Figure:
        """Functions of the target and of the prior side by side, on the same axes' limits."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 2.8), layout="constrained")
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        sides = (("target", self.target_functions), ("prior", self.prior_functions))
        for ax, (name, functions) in zip(axes, sides, strict=True):
            ax.plot(self.position, functions.T, linewidth=1.0, alpha=0.8)
            ax.set_title(name)
            ax.set_xlabel("position on a line through the inputs")
        axes[0].set_ylabel("function value")
        return figure


def report(
    prior: Prior,
    target: Any,
    inputs: Any,
    *,
    n_functions: int = 2000,
    n_measurement: int = 100,
    n_repeats: int = 5,
    link: Callable[[Tensor], Tensor] | None = None,
    random_state: Any = None,
) -> PriorReport:
    """Measure how well a prior matches a target.

    Parameters
    ----------
    prior : Prior
    target : gpytorch kernel, (mean, kernel), callable or FunctionTarget
        See `as_target`.
    inputs : array-like (N, D) or MeasurementSet
        Training inputs, or where functions are compared; see `as_measurement`.
    n_functions : int
        Drawn of each, in each repetition.
    n_measurement : int
        M, points in a measurement set.
    n_repeats : int
        Fresh measurement sets and draws, from which standard errors come; at least 2.
    link : callable, optional
        Applied to the functions (n, N, n_outputs) of both before they are compared, such as
        `class_probabilities`.
    random_state : int, torch.Generator, numpy Generator or None

    Returns
    -------
    PriorReport

    Examples
    --------
    >>> from gpytorch.kernels import RBFKernel
    >>> from bayes.priors import MLP, GaussianPrior
    >>> prior = GaussianPrior.per_layer(MLP(1, [20], 1))
    >>> X = torch.linspace(-3, 3, 40)[:, None]
    >>> found = prior.report(RBFKernel(), X, n_functions=200, random_state=0)
    >>> bool(found["energy distance"].prior > found["energy distance"].target)
    True
    """
    target = as_target(target, prior.net.n_outputs)
    measurement, generator = as_measurement(inputs), torch_generator(random_state)
    check_int("n_functions", n_functions, 2)
    check_int("n_repeats", n_repeats, 2)
    check_int("n_measurement", n_measurement, 2)
    if link is None:
        link = _as_it_is
    check_callable("link", link, "link(functions)")
    needed = 8 * max(n_measurement**2, n_measurement * n_functions) * 3
    check_memory("n_measurement", n_measurement, needed)
    check_memory("n_functions", n_functions, 3 * 4 * n_functions**2)  # all distances of draws
    rows: list[dict[str, tuple[float, float]]] = []
    for _ in range(n_repeats):
        X = measurement.sample(n_measurement, generator)
        # from a seed of its own: inputs and the target's functions are the same for every prior
        own = int(torch.randint(2**31, (), generator=generator))
        ours = link(prior.sample_functions(X, n_functions, own).double())
        theirs, again = (link(target.sample_functions(X, n_functions, generator)) for _ in range(2))
        seed = int(torch.randint(2**31, (), generator=generator))
        row = {
            name: (distance(ours, theirs, seed), distance(again, theirs, seed))
            for name, distance in DISTANCES.items()
        }
        row |= {
            name: (statistic(X, ours), statistic(X, theirs))
            for name, statistic in STATISTICS.items()
        }
        rows.append(row)
    line, position = line_through(measurement.sample(n_measurement, generator))
    return PriorReport(
        _table(rows),
        position.numpy(),
        link(prior.sample_functions(line, N_LINES, generator))[..., 0].numpy(),
        link(target.sample_functions(line, N_LINES, generator))[..., 0].numpy(),
    )


def class_probabilities(logits: Tensor) -> Tensor:
    """Class probabilities (..., C) of a classifier's logits (..., C): their softmax.

    Examples
    --------
    >>> class_probabilities(torch.zeros(2))
    tensor([0.5000, 0.5000])
    """
    return logits.softmax(-1)


def _as_it_is(f: Tensor) -> Tensor:
    return f


def _bures_w2(f: Tensor, g: Tensor, seed: int) -> float:
    f, g = f.flatten(1), g.flatten(1)
    moments = (f.mean(0), f.mT.cov(), g.mean(0), g.mT.cov())
    return float(gaussian_w2(*moments)) / f.shape[1] ** 0.5


def _sliced_w1(f: Tensor, g: Tensor, seed: int) -> float:
    return float(sliced_w1(f.flatten(1), g.flatten(1), random_state=seed))


def _energy(f: Tensor, g: Tensor, seed: int) -> float:
    return float(energy_distance(f.flatten(1), g.flatten(1)))


def marginal_variance(X: Tensor, f: Tensor) -> float:
    """Variance of function values (n, N, O), averaged over points and outputs."""
    return float(f.var(0).mean())


def excess_kurtosis(X: Tensor, f: Tensor) -> float:
    """Excess kurtosis of function values (n, N, O), averaged over points and outputs."""
    z = (f - f.mean(0)).square()
    return float((z.square().mean(0) / z.mean(0).square()).mean()) - 3


def correlation_length(X: Tensor, f: Tensor, n_bins: int = 20) -> float:
    """Distance of inputs (N, D) at which the mean correlation of values (n, N, O) is 1/e."""
    upper = torch.triu_indices(len(X), len(X), 1)
    distance = torch.cdist(X, X)[upper[0], upper[1]]
    z = (f - f.mean(0)) / f.std(0)
    correlation = torch.einsum("nio,njo->ij", z, z) / (len(f) - 1) / f.shape[2]
    order = distance.argsort()
    bins = order.tensor_split(n_bins)
    centre = [0.0] + [float(distance[b].mean()) for b in bins]
    mean = [1.0] + [float(correlation[upper[0][b], upper[1][b]].mean()) for b in bins]
    level = float(np.exp(-1))
    for i in range(1, len(mean)):
        if mean[i] < level:
            share = (mean[i - 1] - level) / (mean[i - 1] - mean[i])
            return centre[i - 1] + share * (centre[i] - centre[i - 1])
    return float("inf")


DISTANCES: dict[str, Callable[[Tensor, Tensor, int], float]] = {
    "Bures-W2": _bures_w2,
    "sliced W1": _sliced_w1,
    "energy distance": _energy,
}
STATISTICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "marginal variance": marginal_variance,
    "excess kurtosis": excess_kurtosis,
    "correlation length": correlation_length,
}


def _table(rows: list[dict[str, tuple[float, float]]]) -> pd.DataFrame:
    import pandas as pd

    names = list(rows[0])
    values = np.array([[row[name] for name in names] for row in rows])  # (R, quantities, 2)
    mean = values.mean(0)
    with np.errstate(invalid="ignore"):  # an infinite correlation length has no error
        error = values.std(0, ddof=1) / len(rows) ** 0.5
    return pd.DataFrame(
        {
            "prior": mean[:, 0],
            "prior_error": error[:, 0],
            "target": mean[:, 1],
            "target_error": error[:, 1],
        },
        index=pd.Index(names, name="quantity"),
    )


def line_through(X: Tensor) -> tuple[Tensor, Tensor]:
    """150 inputs between two rows of X (N, D) far apart, and their positions."""
    start = X[int((X - X.mean(0)).square().sum(1).argmax())]
    end = X[int((X - start).square().sum(1).argmax())]
    if X.shape[1] == 1 and end < start:
        start, end = end, start
    share = torch.linspace(0, 1, 150, dtype=X.dtype)
    line = start + share[:, None] * (end - start)
    return line, line[:, 0] if X.shape[1] == 1 else share * (end - start).norm()
