"""The posterior of a network: predictions as mixtures over draws, scores, export."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kernels.checks import check_int

from .._validation import as_inputs
from ..networks import BayesianNetwork
from ..storage import StorageError, group, read, understanding, write
from .cyclical import AnySampler
from .draws import ChainDraws
from .likelihoods import Likelihood, Regression
from .predictions import Classes, Mixture

if TYPE_CHECKING:
    from ..priors import Prior

KIND, VERSION = "posterior", 1

CHUNK = 2**22
"""Numbers of the widest layer that a prediction holds at a time."""


@dataclass(frozen=True)
class Posterior:
    """Draws of a network's weights, and the data they belong to.

    Attributes
    ----------
    net, prior, likelihood
    X, y : Tensor
        What was conditioned on.
    run : ChainDraws
        Draws (C, S, P + E): weights, then the likelihood's own parameters; behind them the log
        scales of a hierarchical prior, if Gibbs steps drew them.
    """

    net: BayesianNetwork
    prior: Prior
    likelihood: Likelihood
    X: Tensor
    y: Tensor
    run: ChainDraws

    @property
    def weights(self) -> Tensor:
        """(C, S, P) of the chains that were not stopped."""
        return self.run.draws[self.run._some_kept()][..., : self.net.n_weights]

    @property
    def extra(self) -> Tensor:
        """(C, S, E), the likelihood's own parameters."""
        n = self.net.n_weights
        return self.run.draws[self.run._some_kept()][..., n : n + self.likelihood.n_extra]

    def functions(self, X: Any) -> Tensor:
        """Outputs of the network at every draw, (C, S, N, K)."""
        X = as_inputs("X", X)
        weights = self.weights
        flat = weights.flatten(0, 1)
        widest = max(block.size // block.fan_in for block in self.net.blocks)
        at_once = max(1, CHUNK // (widest * len(X)))
        outputs = torch.cat([self.net(part, X) for part in flat.split(at_once)])
        return outputs.unflatten(0, weights.shape[:2])

    def predict(self, X: Any) -> Any:
        """The predictive law at X (N, D): a `Mixture`, or `Classes` for labels."""
        outputs = self.functions(X).flatten(0, 1)
        if not isinstance(self.likelihood, Regression):
            return Classes(torch.softmax(outputs, -1).mean(0))
        location, scale = self.likelihood.location_scale(outputs, self.extra.flatten(0, 1))
        return Mixture(location, scale, self.likelihood)

    def log_likelihood(self, X: Any = None, y: Any = None) -> Tensor:
        """Log density (C, S, N) of each observation at each draw; of the data unless given."""
        X = self.X if X is None else as_inputs("X", X)
        y = self.y if y is None else self.likelihood.check(y, self.net.n_outputs, self.X)
        if len(y) != len(X):
            raise ValueError(
                f"The 'y' parameter must have one value a row of X; got {len(y)} for {len(X)} rows."
            )
        outputs = self.functions(X)
        flat = self.likelihood.log_prob(outputs.flatten(0, 1), y, self.extra.flatten(0, 1))
        return flat.unflatten(0, outputs.shape[:2])

    def log_joint(self) -> Tensor:
        """Log density (C, S) of all data and parameters at each draw, up to its constant."""
        with torch.no_grad():
            weights, extra = self.weights.flatten(0, 1), self.extra.flatten(0, 1)
            prior = self.prior.log_prob(weights) + self.likelihood.log_prior(extra)
        return self.log_likelihood().sum(-1) + prior.unflatten(0, self.weights.shape[:2])

    def rhat(self, X: Any = None) -> Tensor:
        """Rank-normalised split R-hat of predictions at X (at the data unless given), (N, K)."""
        from .diagnostics import rhat

        return self._on_functions(rhat, X)

    def ess(self, X: Any = None) -> Tensor:
        """Bulk effective sample size of predictions, (N, K)."""
        from .diagnostics import ess

        return self._on_functions(ess, X)

    def diagnose(self) -> list[str]:
        """What is wrong with the run, in sentences, with convergence judged on predictions and on
        the log posterior: weights can be permuted without changing the network."""
        from . import diagnostics

        said = diagnostics.diagnose(self.run, parameters=False)
        if self.run.kept and self.run.draws.shape[1] >= diagnostics.MIN_DRAWS:
            worst = max(
                float(self.rhat().max()), float(diagnostics.rhat(self.log_joint()[..., None]))
            )
            if worst > diagnostics.RHAT_LIMIT:
                said.append(
                    f"Chains disagree: split R-hat of predictions at the data and of the log "
                    f"posterior is up to {worst:.2f}, above {diagnostics.RHAT_LIMIT}. Run longer."
                )
        return said

    def to_datatree(self, n_prior: int = 0, random_state: Any = None) -> Any:
        """An `xarray.DataTree` for ArviZ.

        Groups ``posterior`` (a variable a block of weights), ``log_likelihood``, ``sample_stats``,
        ``observed_data`` and, with ``n_prior`` draws, ``prior``.
        """
        import arviz_base

        tree = self.run.to_datatree()
        groups = {
            "log_likelihood": {"y": self.log_likelihood().numpy()},
            "observed_data": {"y": self.y.numpy()},
        }
        if n_prior:
            drawn = self.prior.sample(check_int("n_prior", n_prior, 1), random_state)
            groups["prior"] = {
                b.name: drawn[None, :, b.start : b.stop].numpy() for b in self.net.blocks
            }
        for name, part in arviz_base.from_dict(groups).children.items():
            tree[name] = part
        stats = tree["sample_stats"].to_dataset()
        tree["sample_stats"].dataset = stats.assign(
            lp=(("chain", "draw"), self.log_joint().numpy())
        )
        return tree

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write draws and data to a safetensors file, whole or not at all.

        Raises
        ------
        StorageError
            If it cannot be written; what was there is intact.
        """
        tensors = {
            "draws": self.run.draws,
            "potential": self.run.potential,
            "X": self.X,
            "y": self.y,
            **group("moments", self.run.moments.as_tensors()),
        }
        identity = self._identity(self.net, self.likelihood, self.run.sampler)
        write(path, KIND, VERSION, {**identity, "run": self.run.document()}, tensors)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        net: BayesianNetwork,
        prior: Prior,
        likelihood: Likelihood,
        sampler: AnySampler,
    ) -> Posterior:
        """Read what `save` wrote, for the same network, likelihood and sampler.

        Raises
        ------
        FileNotFoundError
        StorageError
            If the file is torn, or of another network, likelihood or sampler.
        """
        header, tensors = read(path, KIND, VERSION)
        now = cls._identity(net, likelihood, sampler)
        differ = [key for key, value in now.items() if header.get(key) != value]
        if differ:
            raise StorageError(f"{path} is a posterior of another {', '.join(differ)}.")
        with understanding(path):
            X = as_inputs("X", tensors["X"])
            y = likelihood.check(tensors["y"], net.n_outputs, X)
            net(torch.zeros(net.n_weights, dtype=X.dtype), X[:1])
            if len(y) != len(X):
                raise ValueError(f"There must be {len(X)} values of y; got {len(y)}.")
            run = ChainDraws.from_document(header["run"], tensors, sampler)
            if run.draws.shape[2] < net.n_weights + likelihood.n_extra:
                raise ValueError(f"The draws must have {net.n_weights} weights.")
            if set(tensors) != {
                "X",
                "y",
                "draws",
                "potential",
                *group("moments", run.moments.as_tensors()),
            }:
                raise ValueError(f"The tensors are not those of a posterior: {sorted(tensors)}.")
        return cls(net, prior, likelihood, X, y, run)

    @staticmethod
    def _identity(
        net: BayesianNetwork, likelihood: Likelihood, sampler: AnySampler
    ) -> dict[str, Any]:
        return {
            "net": net.signature(),
            "likelihood": repr(likelihood),
            "sampler": repr(sampler),
        }

    def _on_functions(self, statistic: Any, X: Any) -> Tensor:
        outputs = self.functions(self.X if X is None else X)
        return statistic(outputs.flatten(2)).unflatten(0, outputs.shape[2:])
