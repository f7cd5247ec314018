"""Draws from the posterior of a network's weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from kernels.checks import check_choice, check_int

from .._validation import as_inputs, check_instance, check_size
from ..networks import BayesianNetwork, as_network
from .chains import Progress, run
from .cyclical import AnySampler
from .ensemble import deep_ensemble
from .likelihoods import Gaussian, Likelihood
from .network_potential import (
    ConjugateNetworkPotential,
    NetworkPotential,
    has_conjugate_scales,
)
from .posterior import Posterior
from .streams import seed_of

if TYPE_CHECKING:
    from ..priors import Prior


def sample(
    net: BayesianNetwork | nn.Module,
    prior: Prior,
    X: Any,
    y: Any,
    sampler: AnySampler,
    n_chains: int = 4,
    n_draws: int = 100,
    thin: int = 50,
    burn_in: int = 2000,
    batch_size: int | None = 32,
    *,
    likelihood: Likelihood | None = None,
    gibbs_every: int | None = 50,
    init: Tensor | Literal["prior", "ensemble"] = "prior",
    random_state: int | None = None,
    callback: Callable[[Progress], None] | None = None,
    compile: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    stream_to: str | os.PathLike[str] | None = None,
) -> Posterior:
    """Sample the posterior of a network's weights, chains starting from the prior.

    Parameters
    ----------
    net : BayesianNetwork or torch.nn.Module
    prior : Prior
        Over its weights.
    X, y : array
        (N, D) and (N,).
    sampler : Sampler
    n_chains, n_draws, thin, burn_in : int
    batch_size : int or None
        Observations of a step's gradient, drawn with replacement; None for all.
    likelihood : Likelihood, optional
        `Gaussian()` with a learned scale unless given.
    gibbs_every : int or None
        Steps after which a Gibbs step (`gibbs`) draws the precision of a learned Gaussian noise and
        those of a `HierarchicalPrior`, at the next block. It looks at all data once, and, for the
        moves of scales with their weights that follow (`interweaving`), once more and once for each
        of the prior's scales: about 10 is good with full batches. None samples the logarithm of the
        noise with the weights, and integrates the prior's precisions out.
    init : {"prior", "ensemble"} or Tensor
        Where chains start: at draws of the prior, at a mode near each (`deep_ensemble`), or at
        given weights (C, P).
    random_state : int or None
    callback, compile, checkpoint, stream_to
        As in `sample_density`.

    Returns
    -------
    Posterior

    Raises
    ------
    ValueError
        If shapes disagree, the prior is another network's, labels are out of range, or the batch
        is larger than the data.

    Examples
    --------
    >>> from bayes.networks import MLP
    >>> from bayes.priors import GaussianPrior
    >>> from bayes.samplers import AdaptiveSGHMC, Gaussian, sample
    >>> net = MLP(1, [5], 1)
    >>> x = torch.linspace(-1, 1, 20)[:, None].double()
    >>> posterior = sample(
    ...     net, GaussianPrior.per_layer(net), x, x[:, 0].sin(), AdaptiveSGHMC(0.001),
    ...     n_chains=2, n_draws=10, thin=5, burn_in=50, batch_size=5,
    ...     likelihood=Gaussian(0.1), random_state=0)
    >>> posterior.predict(x).mean.shape
    torch.Size([20])
    """
    from ..priors import Prior

    net = as_network(net)
    check_instance("prior", prior, Prior, "a Prior")
    if likelihood is not None:
        check_instance("likelihood", likelihood, Likelihood, "a Likelihood or None")
    if prior.net.n_weights != net.n_weights:
        raise ValueError(
            f"The 'prior' parameter must be over the weights of 'net', which has {net.n_weights}; "
            f"got one over {prior.net.n_weights}."
        )
    likelihood = Gaussian() if likelihood is None else likelihood
    X = as_inputs("X", X)
    y = likelihood.check(y, net.n_outputs, X)
    if len(y) != len(X):
        raise ValueError(
            f"The 'y' parameter must have one value a row of X; got {len(y)} for {len(X)} rows."
        )
    seed = seed_of(random_state)
    check_size("n_chains", n_chains, 1, 8 * net.n_weights)
    if gibbs_every is not None:
        check_int("gibbs_every", gibbs_every, 1)
    start = init
    if not isinstance(start, Tensor):
        check_choice("init", start, ("prior", "ensemble"))
        start = torch.cat([prior.sample(1, _start_seed(seed, c)) for c in range(n_chains)])
    if tuple(start.shape) != (n_chains, net.n_weights):
        raise ValueError(
            f"The 'init' parameter must have shape ({n_chains}, {net.n_weights}), a row of "
            f"weights a chain; got shape {tuple(start.shape)}."
        )
    if batch_size is not None:
        check_int("batch_size", batch_size, 1, len(X))
    position = torch.cat([start.to(X), likelihood.start(n_chains, X)], 1)
    potential = NetworkPotential(net, prior, X, y, likelihood)
    if isinstance(init, str) and init == "ensemble":
        position = deep_ensemble(
            potential,
            position,
            seed=(2**62 + seed) % 2**63,  # other batches than the chains'
            n_observations=len(X),
            batch_size=batch_size,
        )
    names = {b.name: slice(b.start, b.stop) for b in net.blocks}
    n, n_noise = net.n_weights, net.n_weights + likelihood.n_extra
    if likelihood.n_extra:
        names["log_noise"] = slice(n, n_noise)
    if gibbs_every is not None and has_conjugate_scales(prior, likelihood):
        potential = ConjugateNetworkPotential(net, prior, X, y, likelihood)
        position = position[:, :n]
        if potential.n_prior_scales:
            names["prior_log_scale"] = slice(n_noise, n_noise + potential.n_prior_scales)
    else:
        gibbs_every = None
    draws = run(
        potential,
        sampler,
        position,
        n_draws=n_draws,
        burn_in=burn_in,
        thin=thin,
        seed=seed,
        n_observations=len(X),
        batch_size=batch_size,
        gibbs_every=gibbs_every,
        compile=compile,
        callback=callback,
        checkpoint=checkpoint,
        stream_to=stream_to,
        names=names,
    )
    return Posterior(net, prior, likelihood, X, y, draws)


def _start_seed(seed: int, chain: int) -> torch.Generator:
    """A generator of a chain's own, so that its start does not depend on the others."""
    return torch.Generator().manual_seed((2**32 + seed * 1_000_003 + chain) % 2**63)
