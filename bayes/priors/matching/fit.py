"""Training a prior until its functions look like those of a target."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kernels.checks import check_int, check_memory

from ..._validation import check_instance, check_path, torch_generator
from ...networks import BayesianNetwork, as_network
from ..base import Prior
from ..measurement import as_measurement
from ..targets import as_target
from .method import Method
from .methods import resolve
from .run import Progress, Run


def fit_functional_prior(
    net: BayesianNetwork | nn.Module,
    prior: Prior,
    target: Any,
    inputs: Any,
    *,
    method: str | Method | Sequence[str | Method] = "auto",
    n_measurement: int = 50,
    random_state: Any = None,
    check_every: int = 20,
    patience: int = 10,
    callback: Callable[[Progress], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Prior:
    """Fit a prior over weights to a target over functions.

    Each step draws a fresh measurement set and descends a method's loss there. Every
    ``check_every`` steps the energy distance at a held-out measurement set is taken; the
    parameters returned are those for which it was least.

    Parameters
    ----------
    net : BayesianNetwork or torch.nn.Module
        That of the prior.
    prior : Prior
        The family and where to start; left as it is.
    target : gpytorch kernel, (mean, kernel), callable or FunctionTarget
        See `as_target`.
    inputs : array-like (N, D) or MeasurementSet
        Training inputs, or where functions are compared; see `as_measurement`.
    method : str, Method or sequence of them
        "auto" (moments where the network has them, then energy), "moments",
        "energy", "bures", "sliced", "sinkhorn", "wasserstein", or a `Method` with its options.
    n_measurement : int
        M, points in a measurement set.
    random_state : int, torch.Generator, numpy Generator or None
    check_every : int
        Steps between checks.
    patience : int
        Checks without improvement after which a method is left early.
    callback : callable, optional
        Called with a `Progress` after every check.
    checkpoint : path, optional
        File that every check rewrites; if it is there, the fit goes on from it and ends as if it
        had never been interrupted.

    Returns
    -------
    Prior
        A fitted copy, its parameters frozen; ``fit_`` is its `FitRecord`.

    Raises
    ------
    ValueError
        If the network is another than the prior's, a target or measurement set does not fit, the
        matrices would not fit in memory, or a loss is not finite.

    References
    ----------
    Tran, Rossi, Milios and Filippone (2022), All you need is a good functional prior for Bayesian
    deep learning, JMLR 23.

    Examples
    --------
    >>> import torch
    >>> from gpytorch.kernels import RBFKernel
    >>> from bayes.priors import GaussianPrior, MLP
    >>> net = MLP(1, [20], 1)
    >>> X = torch.linspace(-3, 3, 40)[:, None]
    >>> prior = fit_functional_prior(
    ...     net, GaussianPrior.per_layer(net), RBFKernel(), X, method="moments", random_state=0)
    >>> prior.fit_.best.held_out < 0.5 * prior.fit_.checks[0].held_out
    True
    """
    check_instance("prior", prior, Prior, "a Prior")
    if as_network(net).signature() != prior.net.signature():
        raise ValueError(
            f"The 'prior' parameter must be one over the weights of 'net'; got a prior of "
            f"{prior.net} for {as_network(net)}."
        )
    n_measurement = check_int("n_measurement", n_measurement, 2)
    check_memory("n_measurement", n_measurement, 24 * n_measurement**2)
    run = Run(
        prior=copy.deepcopy(prior).requires_grad_(True),
        target=as_target(target, prior.net.n_outputs),
        measurement=as_measurement(inputs),
        methods=resolve(method, prior),
        n_measurement=n_measurement,
        check_every=check_int("check_every", check_every, 1),
        patience=check_int("patience", patience, 1),
        generator=torch_generator(random_state),
    )
    place = None if checkpoint is None else check_path("checkpoint", checkpoint)
    return run.to_the_end(callback, place)
