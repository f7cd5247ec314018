"""Measurement sets: where functions are compared, drawn afresh for every step of a fit.

All are made from training inputs alone: a box never sees a test input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from kernels.checks import check_int, check_real

from .._validation import (
    as_inputs,
    check_callable,
    check_sequence,
    check_size,
    torch_generator,
)


class MeasurementSet(Protocol):
    """A law of inputs."""

    def sample(self, n: int, random_state: Any = None) -> Tensor:
        """(n, D) float64 inputs."""


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Rows of the training inputs, without repetition while there are enough.

    Parameters
    ----------
    X : array-like
        (N, D).
    """

    X: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "X", checked_inputs(self.X))

    def sample(self, n: int, random_state: Any = None) -> Tensor:
        n = check_size("n", n, 1, 8 * self.X.shape[1])
        generator, rows = torch_generator(random_state), len(self.X)
        if n <= rows:
            return self.X[torch.randperm(rows, generator=generator)[:n]]
        return self.X[torch.randint(rows, (n,), generator=generator)]


@dataclass(frozen=True, eq=False)
class Box:
    """Uniform on the smallest box around the training inputs, widened by a margin.

    Parameters
    ----------
    X : array-like
        (N, D) training inputs.
    margin : float
        Share of each side's length added at both ends, >= 0.
    """

    X: Tensor
    margin: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "X", checked_inputs(self.X))
        check_real("margin", self.margin, low=0.0)

    def sample(self, n: int, random_state: Any = None) -> Tensor:
        n = check_size("n", n, 1, 8 * self.X.shape[1])
        low, high = self.X.amin(0), self.X.amax(0)
        reach = self.margin * (high - low)
        u = torch.rand(n, len(low), generator=torch_generator(random_state), dtype=torch.float64)
        return low - reach + u * (high - low + 2 * reach)


@dataclass(frozen=True)
class Density:
    """A density over inputs, given as something that draws from it.

    Parameters
    ----------
    draw : callable
        ``draw(n, generator)`` returns (n, D).
    """

    draw: Callable[[int, torch.Generator], Tensor]

    def __post_init__(self) -> None:
        check_callable("draw", self.draw, "draw(n, generator)")

    def sample(self, n: int, random_state: Any = None) -> Tensor:
        drawn = self.draw(check_int("n", n, 1), torch_generator(random_state))
        return as_inputs("draw", drawn).double()


@dataclass(frozen=True)
class Grid:
    """An even grid in one dimension; fewer points than it has are a random choice of them.

    Parameters
    ----------
    low, high : float
        Ends, both on the grid.
    n_points : int

    Examples
    --------
    >>> Grid(-1, 1, 5).points[:, 0].tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    """

    low: float
    high: float
    n_points: int = 200

    def __post_init__(self) -> None:
        check_real("low", self.low)
        check_real("high", self.high, low=self.low, strict=True)
        check_size("n_points", self.n_points, 2, 8)

    @property
    def points(self) -> Tensor:
        """(n_points, 1)."""
        return torch.linspace(self.low, self.high, self.n_points, dtype=torch.float64)[:, None]

    def sample(self, n: int, random_state: Any = None) -> Tensor:
        if check_int("n", n, 1) > self.n_points:
            raise ValueError(
                f"The grid has {self.n_points} points; got n={n}. Raise its 'n_points'."
            )
        chosen = torch.randperm(self.n_points, generator=torch_generator(random_state))[:n]
        return self.points[chosen.sort().values]


@dataclass(frozen=True)
class Mixture:
    """A fixed share of the points from each of several measurement sets.

    Parameters
    ----------
    parts : sequence of MeasurementSet
    shares : sequence of float
        Positive, adding up to 1.
    """

    parts: Sequence[MeasurementSet]
    shares: Sequence[float]

    def __post_init__(self) -> None:
        for part in check_sequence("parts", self.parts, "measurement sets"):
            check_callable("parts", getattr(part, "sample", None), "sample(n, random_state)")
        given = check_sequence("shares", self.shares, "float")
        shares = [check_real("shares", share, low=0.0, strict=True) for share in given]
        if len(shares) != len(self.parts) or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(
                "The 'shares' parameter must have one share a part, adding up to 1; "
                f"got {list(self.shares)} for {len(self.parts)} parts."
            )

    def sample(self, n: int, random_state: Any = None) -> Tensor:
        check_int("n", n, 1)
        generator = torch_generator(random_state)
        ends = [round(n * sum(self.shares[:i])) for i in range(len(self.shares) + 1)]
        sizes = [end - start for start, end in pairwise(ends)]
        drawn = [
            part.sample(size, generator)
            for part, size in zip(self.parts, sizes, strict=True)
            if size
        ]
        return torch.cat(drawn)


def as_measurement(inputs: Any) -> MeasurementSet:
    """A measurement set as it is; for training inputs 70% of their rows, 30% of their box.

    Examples
    --------
    >>> X = torch.tensor([[0.0], [1.0], [3.0]])
    >>> as_measurement(X).sample(10, random_state=0).shape
    torch.Size([10, 1])
    """
    if hasattr(inputs, "sample") and not isinstance(inputs, Tensor) and not hasattr(inputs, "iloc"):
        return inputs
    X = checked_inputs(inputs)
    return Mixture([TrainingRows(X), Box(X)], [0.7, 0.3])


def checked_inputs(inputs: Any) -> Tensor:
    """Training inputs (N, D), float64.

    Raises
    ------
    ValueError
        If there are fewer than two rows, NaN, or no two different rows.
    """
    X = as_inputs("inputs", inputs, min_rows=2).detach().double()
    if bool((X[1:] == X[:1]).all()):
        raise ValueError(
            "The 'inputs' parameter must have at least two different rows; all "
            f"{len(X)} are equal. Take inputs that vary, or a `Grid` or `Density` around them."
        )
    return X
