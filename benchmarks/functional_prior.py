"""Matching priors: energy distance against process CPU seconds, and the critic's inner step.

Boston (split 0 of the UCI folder that ``MOEBIUS_UCI`` names; left out without it): 13-100-1 tanh,
the hierarchical RBF-ARD target. Toy: 1-50-50-50-1 tanh, RBF target of lengthscale .6 and variance 1
on 200 points of [-6, 6]. Distances are between 2,000 noise-free functions of each at measurement
sets never trained on, five seeds, with the standard error. "as published" marks the target whose
log-normal draws are put through softplus, as the published implementation does. "n energy" are n
steps, of 256 functions unless said otherwise.

Where a figure has a limit, of distance and of seconds, it stands beside it: kept if the upper end
of Student's 95% interval over the seeds, and the seconds, are within it; broken if the lower end or
the seconds are not; else inconclusive. Of the gap that a Gaussian prior leaves to the floor, the
share that a hierarchical one closes has its standard error by the delta method, seed by seed.

The critic's peer is `experiments.published_prior`, a plain transcription: a critic of layers M,
200, 200, 1, a gradient penalty by differentiating twice, torch's Adagrad.
"""

from __future__ import annotations

import math
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

STUDENT = 2.776
"""Student's 97.5% quantile with SEEDS - 1 degrees of freedom."""


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

    def energy_distances(self, functions: Prior | FunctionTarget) -> list[float]:
        """Energy distances to a prior, or to the target again, one a seed."""
        values = []
        for seed, (X, g) in enumerate(zip(self.X, self.functions, strict=True)):
            f = functions.sample_functions(X, N_FUNCTIONS, 2_000 + seed).flatten(1).double()
            values.append(float(energy_distance(f, g)))
        return values


@dataclass(frozen=True)
class Limit:
    """What a match must reach, and in how many CPU seconds."""

    distance: float
    seconds: float = math.inf

    def verdict(self, distances: list[float], seconds: float) -> str:
        """See the module's docstring.

        Examples
        --------
        >>> values = [0.05, 0.06, 0.05, 0.06, 0.05]
        >>> Limit(0.08, 2.0).verdict(values, 1.0), Limit(0.08, 2.0).verdict(values, 3.0)
        ('at most 0.08 within 2 s: kept', 'at most 0.08 within 2 s: broken')
        >>> Limit(0.05).verdict(values, 3.0), Limit(0.03).verdict(values, 3.0)
        ('at most 0.05: inconclusive', 'at most 0.03: broken')
        """
        words = f"at most {self.distance:g}"
        words += f" within {self.seconds:g} s" if math.isfinite(self.seconds) else ""
        late = seconds > self.seconds
        return f"{words}: {'broken' if late else judged([d - self.distance for d in distances])}"


def judged(excess: list[float]) -> str:
    """What is said of a bound that values, one a seed, exceed by so much."""
    mean, error = mean_and_error(excess)
    if mean + STUDENT * error <= 0:
        return "kept"
    return "broken" if mean - STUDENT * error > 0 else "inconclusive"


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean over seeds and its standard error."""
    return statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5


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


@dataclass(frozen=True)
class Case:
    """A prior, how it is matched, and what that must reach."""

    prior: Prior
    method: Any
    limit: Limit | None = None


@dataclass
class Table:
    """Cases on one set of inputs; ``found`` are their distances, for what compares them."""

    shape: str
    target: FunctionTarget
    inputs: Any
    yardstick: Yardstick
    found: dict[str, list[float]]

    @classmethod
    def of(cls, shape: str, target: FunctionTarget, inputs: Any, n_points: int) -> Table:
        return cls(shape, target, inputs, Yardstick.draw(target, inputs, n_points), {})

    def unmatched(self, form: str, functions: Prior | FunctionTarget) -> Row:
        self.found[form] = self.yardstick.energy_distances(functions)
        return Row("prior matching", form, self.shape, 0.0, 1.0, self._note(form))

    def matched(self, form: str, case: Case, **options: Any) -> Row:
        begin = time.process_time()
        fitted = fit_functional_prior(
            case.prior.net, case.prior, self.target, self.inputs, method=case.method,
            random_state=0, **options,
        )  # fmt: skip
        seconds = time.process_time() - begin
        self.found[form] = self.yardstick.energy_distances(fitted)
        note = self._note(form)
        if case.limit is not None:
            note += f"; {case.limit.verdict(self.found[form], seconds)}"
        return Row("prior matching", form, self.shape, seconds, 1.0, note)

    def gap_closed(self, form: str, other: str) -> Row:
        """The share of the gap between another case and the floor that a case closes."""
        again, wide, close = (self.found[name] for name in ("target again", other, form))
        gap = [w - a for w, a in zip(wide, again, strict=True)]
        closed = [w - c for w, c in zip(wide, close, strict=True)]
        share = statistics.mean(closed) / statistics.mean(gap)
        rests = [c - share * g for c, g in zip(closed, gap, strict=True)]
        error = mean_and_error(rests)[1] / statistics.mean(gap)
        half = judged([g / 2 - c for c, g in zip(closed, gap, strict=True)])
        note = f"closes {share:.2f} ({error:.2f}) of the gap to the floor; half of it: {half}"
        return Row("prior matching", f"{form} / {other}", self.shape, 0.0, 1.0, note)

    def _note(self, form: str) -> str:
        return "energy distance {:.4f} ({:.4f})".format(*mean_and_error(self.found[form]))


def boston_rows(X: Tensor, quick: bool) -> Iterator[Row]:
    net = MLP(13, [100], 1, activation="tanh")
    gaussian = GaussianPrior.per_layer(net)
    hierarchical = HierarchicalPrior.per_layer(net, 4.0, 4.0)
    many = ["moments", Energy(n_steps=400, n_functions=256, learning_rate=0.2)]
    few = ["moments", Energy(n_steps=20, n_functions=256, learning_rate=0.2)]
    flow = ["moments", Energy(n_steps=150, n_functions=512, learning_rate=0.2)]
    cases = {
        "GPi-G moments": Case(gaussian, "moments", Limit(0.080, 2.0)),
        "GPi-H 20 energy": Case(hierarchical, few, Limit(0.080, 2.0)),
    }
    if not quick:
        cases |= {
            "GPi-G 400 energy": Case(gaussian, many),
            "GPi-H 400 energy": Case(hierarchical, many, Limit(0.065, 15.0)),
            "GPi-H 400 energy, ard": Case(HierarchicalPrior.ard(net, 4.0, 4.0), many),
            "GPi-NF 150 energy of 512": Case(FlowPrior(net), flow),
            "GPi-G critic": Case(gaussian, "wasserstein", Limit(0.09)),
            "GPi-H critic": Case(hierarchical, "wasserstein", Limit(0.09)),
        }
    laws = {", as published": as_target(softplus_rbf), "": hierarchical_rbf(13)}
    for name, target in laws.items():
        table = Table.of(f"boston{name} M=100", target, X, 100)
        yield table.unmatched("target again", target)
        yield table.unmatched("FG", fixed_gaussian(net))
        for form, case in cases.items():
            yield table.matched(form, case)
        if not quick:
            for other in ("GPi-G moments", "GPi-G 400 energy"):
                yield table.gap_closed("GPi-H 400 energy", other)
    X_measured = as_measurement(X).sample(100, 0)
    yield from critic_rows("boston", net, laws[", as published"], X_measured, 128, quick)


def toy_rows(quick: bool) -> Iterator[Row]:
    net, grid, target = MLP(1, [50, 50, 50], 1, activation="tanh"), Grid(-6, 6, 200), toy_target()
    table = Table.of("toy M=200", target, grid, 200)
    yield table.unmatched("target again", target)
    few = ["moments", Energy(n_steps=100, n_functions=256)]
    short = Case(GaussianPrior.per_layer(net), few, Limit(0.18, 12.0))
    yield table.matched("GPi-G 100 energy", short, n_measurement=40)
    if not quick:
        n = 1500
        long = ["moments", Energy(n_steps=n, n_functions=256)]
        for form, prior in (
            ("per parameter", GaussianPrior.per_parameter(net)),
            ("GPi-H", HierarchicalPrior.per_layer(net, 4.0, 4.0)),
        ):  # to the end, however little it gains
            case = Case(prior, long)
            yield table.matched(f"{form} {n} energy", case, n_measurement=40, patience=n)
    yield from critic_rows("toy", net, target, grid.points, 512, quick)


def run(quick: bool) -> Iterator[Row]:
    X = boston()
    hierarchical_rbf(2).sample_functions(torch.ones(2, 2), 2, 0)  # imports gpytorch
    if X is None:
        print("boston is left out: MOEBIUS_UCI names no folder with it", file=sys.stderr)
    else:
        yield from boston_rows(X, quick)
    yield from toy_rows(quick)
