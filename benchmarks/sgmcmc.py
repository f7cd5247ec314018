"""Steps of stochastic-gradient Hamiltonian Monte Carlo a second, beside `posteriors` and blackjax.

One thread, float32, batches of 32 of N = 455 observations, the same problem, step and friction for
all, process CPU seconds; rounds of all forms take turns, and the median of a form's rounds is told
as a ratio to that of ``posteriors``. Compilation is not timed. "written out" is our loop with
the gradients of `bayes.samplers.backpropagation`; "compiled" the same with `compile=True`.
``posteriors`` runs over ``torch.func.vmap`` as its documentation does it; blackjax is jitted,
256 steps a call, over ``jax.vmap``. A peer that is not installed has a row that says so.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bayes.networks import MLP
from bayes.priors import fixed_gaussian
from bayes.samplers import SGHMC, Gaussian, NetworkPotential
from bayes.samplers.chains import run as run_chains

from .measure import Row

N, BATCH, STEP, DECAY = 455, 32, 1e-3, 0.1
NOISE = 0.1**0.5
HIDDEN = (50, 50)
JAX_STEPS = 256

Round = Callable[[], float]
"""Runs a while and returns process CPU seconds a step."""


def run(quick: bool) -> Iterator[Row]:
    rounds = 3 if quick else 9
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N, 13, generator=generator)
    y = torch.randn(N, generator=generator)
    net = MLP(13, HIDDEN, 1)
    potential = NetworkPotential(net, fixed_gaussian(net), X, y, Gaussian(NOISE))
    for n_chains in (1, 8, 64):
        start = 0.1 * torch.randn(n_chains, net.n_weights, generator=generator)
        forms = {
            "posteriors": _posteriors(potential.log_joint, start, 100),
            "blackjax": _blackjax(_jax_network, start, X, y),
            "written out": _ours(potential, start, 256, compile=False),
            "compiled": _ours(potential, start, 256, compile=True),
        }
        yield from _rows(f"13-50-50-1, {n_chains} chains", forms, n_chains, rounds)

    features, labels = X[:, :10].contiguous(), (y > 0).float()

    def logistic(weights: Tensor, batch: Tensor) -> Tensor:
        logits = (features[batch] * weights[:, None]).sum(-1)
        likelihood = labels[batch] * logits - torch.nn.functional.softplus(logits)
        return N / BATCH * likelihood.sum(1) - 0.5 * weights.square().sum(1)

    def total(weights: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        value = -logistic(weights, batch)
        return value.sum(), value

    slope = torch.func.grad(total, has_aux=True)

    def by_autodiff(weights: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        gradient, value = slope(weights, batch)
        return value, gradient

    start = 0.1 * torch.randn(1, 10, generator=generator)
    forms = {
        "posteriors": _posteriors(logistic, start, 300),
        "blackjax": _blackjax(_jax_logistic, start, features, labels),
        "by autodiff": _ours(by_autodiff, start, 512, compile=False),
        "compiled": _ours(by_autodiff, start, 4096, compile=True),
    }
    yield from _rows("logistic, 10 parameters, 1 chain", forms, 1, rounds)


def _rows(label: str, forms: dict[str, Any], n_chains: int, rounds: int) -> Iterator[Row]:
    present = {name: form for name, form in forms.items() if form is not None}
    for form in present.values():
        form()
    taken: dict[str, list[float]] = {name: [] for name in present}
    for _ in range(rounds):
        for name, form in present.items():
            taken[name].append(form())
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    peer = seconds.get("posteriors", float("nan"))
    for name in forms:
        if name not in seconds:
            yield Row("SGHMC step", name, label, float("nan"), float("nan"), "not installed")
            continue
        rate = f"{n_chains / seconds[name]:,.0f} chain-steps/s"
        yield Row("SGHMC step", name, label, seconds[name], peer / seconds[name], rate)


def _ours(potential: Any, start: Tensor, n_steps: int, *, compile: bool) -> Round:
    call = partial(
        run_chains,
        potential,
        SGHMC(STEP, momentum_decay=DECAY),
        start,
        n_draws=1,
        burn_in=n_steps,
        seed=0,
        n_observations=N,
        batch_size=BATCH,
        compile=compile,
    )

    def take() -> float:
        began = time.process_time()
        n_steps = call().n_steps
        return (time.process_time() - began) / n_steps

    return take


def _posteriors(log_joint: Any, start: Tensor, n_steps: int) -> Round | None:
    if find_spec("posteriors") is None:
        return None
    import posteriors

    transform = posteriors.sgmcmc.sghmc.build(
        lambda w, batch: (log_joint(w[None], batch[None])[0], torch.zeros(0)),
        lr=STEP,
        alpha=DECAY / STEP,
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

    def take() -> float:
        began, now = time.process_time(), state
        for batch in batches:
            now = update(now, batch)
        return (time.process_time() - began) / n_steps

    return take


def _blackjax(log_joint: Any, start: Tensor, X: Tensor, y: Tensor) -> Round | None:
    if find_spec("blackjax") is None:
        return None
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import blackjax
    import jax
    import jax.numpy as jnp

    rows, responses = jnp.asarray(X.numpy()), jnp.asarray(y.numpy())
    sghmc = blackjax.sghmc(
        jax.grad(lambda w, batch: log_joint(w, rows[batch], responses[batch])),
        num_integration_steps=1,
        alpha=DECAY,
    )

    def one(weights: Any, key: Any) -> Any:
        draw, move = jax.random.split(key)
        batch = jax.random.randint(draw, (BATCH,), 0, N)
        return sghmc.step(move, weights, batch, STEP)

    @jax.jit
    def steps(weights: Any, key: Any) -> Any:
        def step(weights: Any, key: Any) -> Any:
            return jax.vmap(one)(weights, jax.random.split(key, len(start))), None

        return jax.lax.scan(step, weights, jax.random.split(key, JAX_STEPS))[0]

    weights, key = jnp.asarray(start.numpy()), jax.random.key(0)

    def take() -> float:
        began = time.process_time()
        steps(weights, key).block_until_ready()
        return (time.process_time() - began) / JAX_STEPS

    return take


def _jax_network(weights: Any, X: Any, y: Any) -> Any:
    import jax.numpy as jnp

    h, at = X, 0
    widths = (X.shape[1], *HIDDEN, 1)
    for i, (before, after) in enumerate(pairwise(widths)):
        W = weights[at : at + before * after].reshape(after, before)
        b = weights[at + before * after : at + before * after + after]
        at += (before + 1) * after
        h = h @ W.T * before**-0.5 + b
        h = jnp.tanh(h) if i < len(HIDDEN) else h
    residual = (h[:, 0] - y) / NOISE
    return -0.5 * N / BATCH * (residual**2).sum() - 0.5 * (weights**2).sum()


def _jax_logistic(weights: Any, X: Any, y: Any) -> Any:
    import jax
    import jax.numpy as jnp

    logits = X @ weights
    likelihood = y * logits - jax.nn.softplus(logits)
    return N / BATCH * jnp.sum(likelihood) - 0.5 * (weights**2).sum()
