"""Chain-steps per second of SGHMC: a 13-50-50-1 network at 1, 8 and 64 chains, and a logistic
regression with 10 parameters at one.

Float32, one thread, batches of 32 of N = 455 observations. The peer is the library ``posteriors``,
its SGHMC over ``torch.func.vmap`` as its documentation does it, in the same process; without it
the rows say so and their ratio is to the plain, uncompiled form. Compilation is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from bayes.networks import MLP
from bayes.samplers import SGHMC
from bayes.samplers.chains import run as run_chains

from .measure import Row, median_seconds

N, BATCH, STEP = 455, 32, 1e-3
SAMPLER = SGHMC(STEP, momentum_decay=0.1)
LogJoint = Callable[[Tensor, Tensor], Tensor]  # weights (C, P), batches (C, B) -> (C,)


def run(quick: bool) -> Iterator[Row]:
    repeats = 3 if quick else 7
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N, 13, generator=generator)
    y = torch.randn(N, generator=generator)
    net = MLP(13, [50, 50], 1)

    def network(weights: Tensor, batch: Tensor) -> Tensor:
        residual = net(weights, X[batch])[..., 0] - y[batch]
        return -N / BATCH * residual.square().sum(1) / 0.2 - 0.5 * weights.square().sum(1)

    def network_of_one(weights: Tensor, batch: Tensor) -> Tensor:
        return network(weights[None], batch[None])[0]

    for n_chains in (1, 8, 64):
        label = f"13-50-50-1, {n_chains} chains"
        yield from _rows(label, network, network_of_one, net.n_weights, n_chains, 200, repeats)

    features, labels = X[:, :10], (y > 0).float()

    def logistic(weights: Tensor, batch: Tensor) -> Tensor:
        logits = (features[batch] * weights[:, None]).sum(-1)
        likelihood = labels[batch] * logits - torch.nn.functional.softplus(logits)
        return N / BATCH * likelihood.sum(1) - 0.5 * weights.square().sum(1)

    def logistic_of_one(weights: Tensor, batch: Tensor) -> Tensor:
        return logistic(weights[None], batch[None])[0]

    yield from _rows("logistic, 1 chain", logistic, logistic_of_one, 10, 1, 2000, repeats)


def _rows(
    label: str,
    log_joint: LogJoint,
    of_one: LogJoint,
    n_parameters: int,
    n_chains: int,
    n_steps: int,
    repeats: int,
) -> Iterator[Row]:
    def total(weights: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        value = -log_joint(weights, batch)
        return value.sum(), value

    gradient = torch.func.grad(total, has_aux=True)

    def potential(weights: Tensor, batch: Tensor | None) -> tuple[Tensor, Tensor]:
        assert batch is not None
        return gradient(weights, batch)[::-1]

    start = 0.1 * torch.randn(n_chains, n_parameters, generator=torch.Generator().manual_seed(1))
    seconds: dict[str, float] = {}
    for form, compile in (("plain", False), ("compiled", True)):
        call = partial(
            run_chains,
            potential,
            SAMPLER,
            start,
            n_draws=1,
            burn_in=n_steps,
            seed=0,
            n_observations=N,
            batch_size=BATCH,
            compile=compile,
        )
        done = call().n_steps
        seconds[form] = median_seconds(call, repeats) / done
    peer, note = seconds["plain"], "no `posteriors` here: ratio to the plain form"
    if find_spec("posteriors") is not None:
        peer, note = _posteriors(of_one, start, n_steps // 4, repeats), ""
        yield Row("SGHMC step", "posteriors", label, peer, 1.0, _rate(peer, n_chains))
    for form, value in seconds.items():
        said = f"{_rate(value, n_chains)} {note}".strip()
        yield Row("SGHMC step", form, label, value, peer / value, said)


def _rate(seconds: float, n_chains: int) -> str:
    return f"{n_chains / seconds:,.0f} chain-steps/s"


def _posteriors(of_one: LogJoint, start: Tensor, n_steps: int, repeats: int) -> float:
    """Seconds a step of the peer, on the same problem with the same step and friction."""
    import posteriors

    transform = posteriors.sgmcmc.sghmc.build(
        lambda weights, batch: (of_one(weights, batch), torch.zeros(0)),
        lr=STEP,
        alpha=0.1 / STEP,
    )
    many = len(start) > 1

    def update(state: Any, batch: Tensor) -> Any:
        return transform.update(state, batch, inplace=False)[0]

    if many:
        state = torch.func.vmap(transform.init, randomness="different")(start)
        update = torch.func.vmap(update, randomness="different")
    else:
        state = transform.init(start[0])
    batches = torch.randint(N, (n_steps, *((len(start),) if many else ()), BATCH))

    def call() -> None:
        now = state
        for batch in batches:
            now = update(now, batch)

    return median_seconds(call, repeats) / n_steps
