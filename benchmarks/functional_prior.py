"""Matching priors: energy distance against process CPU seconds, and the critic's inner step.

Boston (split 0 of the UCI folder that ``MOEBIUS_UCI`` names; left out without it): 13-100-1 tanh,
the hierarchical RBF-ARD target. Toy: 1-50-50-50-1 tanh, RBF target of lengthscale .6 and variance 1
on 200 points of [-6, 6]. Distances are between 2,000 noise-free functions of each at measurement
sets never trained on, five seeds, with the standard error. "as published" marks the target whose
log-normal draws are put through softplus, as the published implementation does.

The critic's peer is `experiments.published_prior`, a plain transcription: a critic of layers M,
200, 200, 1, a gradient penalty by differentiating twice, torch's Adagrad.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bayes.networks import MLP, BayesianNetwork
from bayes.priors import (
    FlowPrior,
    GaussianPrior,
    Grid,
    HierarchicalPrior,
    fit_functional_prior,
    fixed_gaussian,
    hierarchical_rbf,
)
from bayes.priors.base import Prior
from bayes.priors.energy import energy_distance
from bayes.priors.matching import Energy
from bayes.priors.matching.critic import Critic
from bayes.priors.matching.wasserstein import principal_directions
from bayes.priors.measurement import as_measurement
from bayes.priors.targets import FunctionTarget, as_target
from experiments.datasets import DataError, uci
from experiments.published_prior import CriticTraining, softplus_rbf

from .measure import Row

SEEDS = 5
N_FUNCTIONS = 2_000


def boston() -> Tensor | None:
    """Standardised training inputs of split 0, or None without the data."""
    try:
        return torch.from_numpy(uci("boston").X)
    except DataError:
        return None


def toy_target() -> FunctionTarget:
    """The Gaussian process of the toy example."""
    from gpytorch.kernels import RBFKernel

    kernel = RBFKernel()
    kernel.lengthscale = 0.6
    return as_target(kernel)


@dataclass(frozen=True)
class Yardstick:
    """Functions of a target at inputs never trained on, five seeds; every prior is held against
    the same."""

    X: list[Tensor]
    functions: list[Tensor]

    @classmethod
    def draw(cls, target: Any, inputs: Any, n_points: int) -> Yardstick:
        X, functions = [], []
        for seed in range(SEEDS):
            generator = torch.Generator().manual_seed(1_000 + seed)
            X.append(as_measurement(inputs).sample(n_points, generator))
            drawn = as_target(target).sample_functions(X[-1], N_FUNCTIONS, generator)
            functions.append(drawn.flatten(1))
        return cls(X, functions)

    def energy_distance(self, functions: Prior | FunctionTarget) -> tuple[float, float]:
        """Energy distance to a prior, or to the target again, and its standard error over seeds."""
        values = []
        for seed, (X, g) in enumerate(zip(self.X, self.functions, strict=True)):
            f = functions.sample_functions(X, N_FUNCTIONS, 2_000 + seed).flatten(1).double()
            values.append(float(energy_distance(f, g)))
        return statistics.mean(values), statistics.stdev(values) / SEEDS**0.5


def critic_rows(
    label: str, net: BayesianNetwork, target: FunctionTarget, X: Tensor, n: int, quick: bool
) -> Iterator[Row]:
    f = fixed_gaussian(net).sample_functions(X, n, 0).flatten(1).float()
    g = target.sample_functions(X, n, 1).flatten(1).float()
    basis = principal_directions(torch.cat([f, g]))
    generator = torch.Generator().manual_seed(0)
    plain = CriticTraining(len(X), 0.02, generator)
    critics = {m: Critic(basis.shape[1], 200, generator) for m in (n, n // 8)}
    f_in, g_in = f @ basis, g @ basis
    seconds: dict[Any, list[float]] = {"plain": [], n: [], n // 8: []}

    def ours(m: int) -> None:
        critics[m].step(f_in, g_in, torch.rand(m, 1, generator=generator), 0, 10.0, 0.02)

    calls: dict[Any, Callable[[], None]] = {"plain": lambda: plain.step(f, g)}
    calls |= {m: partial(ours, m) for m in critics}
    for _ in range(5 if quick else 30):  # in turn, so that load is shared
        for key, call in calls.items():
            begin = time.process_time()
            for _ in range(10):
                call()
            seconds[key].append((time.process_time() - begin) / 10)
    base = statistics.median(seconds["plain"])
    shape = f"{label} M={len(X)} S={n}"
    yield Row("critic inner step", "transcription", shape, base, 1.0)
    for m in critics:
        median = statistics.median(seconds[m])
        note = f"penalty at {m} pairs, {basis.shape[1]} principal directions"
        yield Row("critic inner step", "bayes", shape, median, base / median, note)


def fit_row(
    form: str,
    shape: str,
    prior: Prior,
    target: Any,
    inputs: Any,
    method: Any,
    yardstick: Yardstick,
    **options: Any,
) -> Row:
    begin = time.process_time()
    fitted = fit_functional_prior(
        prior.net, prior, target, inputs, method=method, random_state=0, **options
    )
    seconds = time.process_time() - begin
    return Row("prior matching", form, shape, seconds, 1.0, distance(yardstick, fitted))


def distance(yardstick: Yardstick, functions: Prior | FunctionTarget) -> str:
    return "energy distance {:.4f} ({:.4f})".format(*yardstick.energy_distance(functions))


def boston_rows(X: Tensor, quick: bool) -> Iterator[Row]:
    net = MLP(13, [100], 1, activation="tanh")
    gaussian, hierarchical = (
        GaussianPrior.per_layer(net),
        HierarchicalPrior.per_layer(net, 4.0, 4.0),
    )
    few = Energy(n_steps=20, n_functions=256, learning_rate=0.2)
    many = Energy(learning_rate=0.2)
    for name, target in ((", as published", softplus_rbf), ("", hierarchical_rbf(13))):
        shape, yardstick = f"boston{name} M=100", Yardstick.draw(target, X, 100)
        for form, unmatched in (("target again", as_target(target)), ("FG", fixed_gaussian(net))):
            yield Row("prior matching", form, shape, 0.0, 1.0, distance(yardstick, unmatched))
        cases: list[tuple[str, Prior, Any]] = [
            ("GPi-G moments", gaussian, "moments"),
            ("GPi-H moments, 20 energy", hierarchical, ["moments", few]),
        ]
        if not quick:
            cases += [
                ("GPi-G moments, 150 energy", gaussian, ["moments", many]),
                ("GPi-H moments, 150 energy", hierarchical, ["moments", many]),
                ("GPi-NF moments, 150 energy", FlowPrior(net), ["moments", many]),
                ("GPi-G critic", gaussian, "wasserstein"),
                ("GPi-H critic", hierarchical, "wasserstein"),
            ]
        for form, prior, method in cases:
            yield fit_row(form, shape, prior, target, X, method, yardstick)
    X_measured = as_measurement(X).sample(100, 0)
    yield from critic_rows("boston", net, as_target(softplus_rbf), X_measured, 128, quick)


def toy_rows(quick: bool) -> Iterator[Row]:
    net, grid, target = MLP(1, [50, 50, 50], 1, activation="tanh"), Grid(-6, 6, 200), toy_target()
    cases: dict[str, tuple[Prior, Energy]] = {
        "GPi-G": (GaussianPrior.per_layer(net), Energy(n_steps=100, n_functions=256)),
    }
    if not quick:
        long = Energy(n_steps=500, n_functions=256)
        cases["per parameter"] = (GaussianPrior.per_parameter(net), long)
        cases["GPi-H"] = (HierarchicalPrior.per_layer(net, 4.0, 4.0), long)
    yardstick = Yardstick.draw(target, grid, 200)
    yield Row("prior matching", "target again", "toy M=200", 0.0, 1.0, distance(yardstick, target))
    for form, (prior, energy) in cases.items():
        yield fit_row(form, "toy M=200", prior, target, grid, ["moments", energy], yardstick,
                      n_measurement=40, patience=10)  # fmt: skip
    yield from critic_rows("toy", net, target, grid.points, 512, quick)


def run(quick: bool) -> Iterator[Row]:
    X = boston()
    hierarchical_rbf(2).sample_functions(torch.ones(2, 2), 2, 0)  # imports gpytorch
    if X is None:
        print("boston is left out: MOEBIUS_UCI names no folder with it", file=sys.stderr)
    else:
        yield from boston_rows(X, quick)
    yield from toy_rows(quick)
