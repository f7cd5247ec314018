"""Designs: where the features come from.

A design draws X and, where a distance is computed by quadrature, knows its support and density.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kernels.checks import check_count, check_int, check_memory, check_real

from ._validation import as_tensor, generator

MAX_NODES = 1000
"""Most Gauss-Legendre nodes of a piece: finding them takes the eigenvalues of a matrix of that
size, and an integrand that needs more needs ``breaks``."""


class Design(Protocol):
    """What simulation and quadrature ask of a design."""

    n_features: int

    def sample(self, n: int, random_state: Any = None) -> Tensor:
        """(n, D) float64 features."""

    def quadrature(self, n_nodes: int, breaks: Sequence[float] = ()) -> tuple[Tensor, Tensor]:
        """Nodes (M, D) and weights (M,) summing to 1 for averages over one feature,
        exact for polynomials between the ``breaks``; for one feature only."""


@dataclass(frozen=True)
class Uniform:
    """Independent uniform features.

    Parameters
    ----------
    low, high : float
        Ends of the interval, low < high, in the feature's unit.
    n_features : int
        D.

    Examples
    --------
    >>> Uniform(low=-1, high=1, n_features=2).sample(3, random_state=0).shape
    torch.Size([3, 2])
    """

    low: float = 0.0
    high: float = 1.0
    n_features: int = 1

    def __post_init__(self) -> None:
        check_real("low", self.low)
        check_real("high", self.high, low=self.low, strict=True)
        check_count("n_features", self.n_features)

    def sample(self, n: int, random_state: Any = None) -> Tensor:
        """(n, D) float64 features."""
        shape = (_check_size(n, self.n_features), self.n_features)
        return torch.from_numpy(generator(random_state).uniform(self.low, self.high, shape))

    def quadrature(self, n_nodes: int, breaks: Sequence[float] = ()) -> tuple[Tensor, Tensor]:
        """Gauss-Legendre nodes on each piece between the breaks."""
        _check_one_feature(self.n_features)
        check_int("n_nodes", n_nodes, 1, MAX_NODES)
        inside = sorted({b for b in _places(breaks) if self.low < b < self.high})
        ends = np.array([self.low, *inside, self.high])
        nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
        centre, half = (ends[1:] + ends[:-1]) / 2, (ends[1:] - ends[:-1]) / 2
        x = centre[:, None] + half[:, None] * nodes
        w = half[:, None] * weights / (self.high - self.low)
        return torch.from_numpy(x.reshape(-1, 1)), torch.from_numpy(w.ravel())


@dataclass(frozen=True)
class Normal:
    """Independent normal features.

    Parameters
    ----------
    mean : float
        In the feature's unit.
    scale : float
        Standard deviation, > 0.
    n_features : int
        D.
    """

    mean: float = 0.0
    scale: float = 1.0
    n_features: int = 1

    def __post_init__(self) -> None:
        check_real("mean", self.mean)
        check_real("scale", self.scale, low=0.0, strict=True)
        check_count("n_features", self.n_features)

    def sample(self, n: int, random_state: Any = None) -> Tensor:
        """(n, D) float64 features."""
        shape = (_check_size(n, self.n_features), self.n_features)
        return torch.from_numpy(generator(random_state).normal(self.mean, self.scale, shape))

    def quadrature(self, n_nodes: int, breaks: Sequence[float] = ()) -> tuple[Tensor, Tensor]:
        """Gauss-Legendre nodes on pieces out to 8.5 scales (mass outside: 2e-17)."""
        _check_one_feature(self.n_features)
        reach = 8.5 * self.scale
        pieces = np.linspace(self.mean - reach, self.mean + reach, 9)[1:-1]
        nodes, weights = Uniform(self.mean - reach, self.mean + reach).quadrature(
            n_nodes, [*pieces, *_places(breaks)]
        )
        z = (nodes[:, 0] - self.mean) / self.scale
        density = torch.exp(-0.5 * z.square()) / (self.scale * np.sqrt(2 * np.pi))
        return nodes, weights * density * 2 * reach


@dataclass(frozen=True)
class Grid:
    """A fixed, evenly spaced design; with D features, the first n points of the full grid.

    Parameters
    ----------
    low, high : float
        Ends of the interval, low < high, in the feature's unit.
    n_features : int
        D.
    """

    low: float = 0.0
    high: float = 1.0
    n_features: int = 1

    def __post_init__(self) -> None:
        Uniform(self.low, self.high, self.n_features)

    def sample(self, n: int, random_state: Any = None) -> Tensor:
        """(n, D) float64 features; ``random_state`` is accepted and not used."""
        n = _check_size(n, self.n_features)
        per_axis = int(np.ceil(n ** (1 / self.n_features) - 1e-9))
        axis = self.low + (np.arange(per_axis) + 0.5) * (self.high - self.low) / per_axis
        mesh = np.meshgrid(*[axis] * self.n_features, indexing="ij")
        return torch.from_numpy(np.stack([m.ravel() for m in mesh], axis=-1)[:n].copy())

    def quadrature(self, n_nodes: int, breaks: Sequence[float] = ()) -> tuple[Tensor, Tensor]:
        """That of the uniform law the grid tends to."""
        return Uniform(self.low, self.high, self.n_features).quadrature(n_nodes, breaks)


DESIGNS: dict[str, type[Uniform] | type[Normal] | type[Grid]] = {
    "uniform": Uniform,
    "normal": Normal,
    "grid": Grid,
}
"""Designs by the name that studies use."""


def _places(breaks: Sequence[float]) -> list[float]:
    return as_tensor("breaks", breaks).flatten().tolist()


def _check_size(n: int, n_features: int) -> int:
    n = check_int("n", n, 1)
    check_memory("n", n, 8 * n * int(n_features))
    return n


def _check_one_feature(n_features: int) -> None:
    if n_features != 1:
        raise ValueError(
            "Quadrature over x is available for n_features=1; "
            f"got n_features={n_features}: use Monte Carlo."
        )
