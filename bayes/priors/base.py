r"""What a prior over a network's weights is.

A prior p(w; psi) draws weights, knows their density, and so is a prior over functions f(.; w).
Its parameters psi are those of a `torch.nn.Module`: `rsample` is differentiable in them, and
`fit_functional_prior` trains them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from .._validation import as_inputs, check_size, check_weights, torch_generator
from ..networks import BayesianNetwork, as_network

if TYPE_CHECKING:
    from .matching.run import FitRecord
    from .report import PriorReport

CHUNK = 2**20
"""Weights, or units' values in a layer, that are held at a time: what a cache holds."""


class Prior(nn.Module, ABC):
    """A prior over the P weights of a network.

    A family implements `rsample`, `log_prob` and `gaussian_scale`, names its `settings`, and sets
    ``family``. A fitted prior has ``fit_``, the record of its fit.
    """

    family: ClassVar[str]
    fit_: FitRecord

    def __init__(self, net: BayesianNetwork | nn.Module) -> None:
        super().__init__()
        self._net = [as_network(net)]  # in a list: its module's weights are not parameters here

    @property
    def net(self) -> BayesianNetwork:
        return self._net[0]

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments, plain JSON, with which the constructor makes the same family."""
        return {}

    @abstractmethod
    def rsample(
        self, n: int, random_state: Any = None, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """n draws (n, P) of that dtype, differentiable in the parameters."""

    @abstractmethod
    def log_prob(self, weights: Tensor) -> Tensor:
        """Log-density (...) at weights (..., P), in nats."""

    @abstractmethod
    def gaussian_scale(self) -> Tensor:
        """(P,) standard deviations of the independent centred Gaussian weights that this prior
        would have but for heavy tails and dependence: where `moments` starts a family."""

    def sample(self, n: int, random_state: Any = None) -> Tensor:
        """n draws (n, P) without gradient.

        Parameters
        ----------
        n : int
        random_state : int, torch.Generator, numpy Generator or None
        """
        with torch.no_grad():
            n = check_size("n", n, 1, 8 * self.net.n_weights)
            return self.rsample(n, torch_generator(random_state))

    def sample_functions(self, X: Tensor, n: int, random_state: Any = None) -> Tensor:
        """n functions drawn from the prior, at the rows of X.

        Parameters
        ----------
        X : Tensor
            (N, D).
        n : int
        random_state : int, torch.Generator, numpy Generator or None

        Returns
        -------
        Tensor
            (n, N, n_outputs), without gradient.
        """
        X = as_inputs("X", X, min_rows=1)
        n = check_size("n", n, 1, 8 * len(X) * self.net.n_outputs)
        generator, at_once = torch_generator(random_state), self._at_once(X)
        sizes = [min(at_once, n - start) for start in range(0, n, at_once)]
        return torch.cat([self.net(self.sample(size, generator), X) for size in sizes])

    def rsample_functions(self, X: Tensor, n: int, random_state: Any = None) -> Tensor:
        """n functions (n, N, n_outputs) in float32, differentiable in the parameters."""
        weights = self.rsample(n, random_state, torch.float32)
        return torch.cat([self.net(part, X) for part in weights.split(self._at_once(X))])

    def report(self, target: Any, inputs: Any, **options: Any) -> PriorReport:
        """How well functions of this prior match those of a target; see `report.report`."""
        from .report import report

        return report(self, target, inputs, **options)

    def to_pyro(self, net: BayesianNetwork | None = None) -> Callable[[Tensor], Tensor]:
        """A Pyro program that draws the weights and returns the function; see `pyro.to_pyro`."""
        from .pyro import to_pyro

        return to_pyro(self, net)

    def save(self, path: str | Path) -> Path:
        """Write the prior to a safetensors file; `load_prior(path, net)` reads it."""
        from .storage import save_prior

        return save_prior(self, path)

    def _weights(self, weights: Tensor) -> Tensor:
        """Weights (..., P) as `log_prob` takes them."""
        return check_weights("weights", weights, self.net.n_weights)

    def _at_once(self, X: Tensor) -> int:
        """Functions at the rows of X that are evaluated together."""
        widest = max(block.shape[0] for block in self.net.blocks)
        return max(1, CHUNK // max(widest * len(X), self.net.n_weights))

    def extra_repr(self) -> str:
        return f"{self.net}, " + ", ".join(f"{k}={v!r}" for k, v in self.settings.items())
