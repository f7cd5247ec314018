r"""Training of all members at once, each on all but its own fold of the targets.

Member m minimises, over the targets i whose block of time is not in its fold,

.. math:: \frac{1}{n_m}\sum_i -\log p(z_i \mid \theta_m) - \frac{1}{N} \log p(\theta_m)

by Adam with a warm start and a cosine decay. After each epoch its log score on a part of its own
fold decides whether its weights are the best so far; these are what it ends with. Since every fold
is held out by some member, the whole of the data serves for recalibration as well. Where nothing is
held out, the last weights count as the best.

The prior is Logistic(0, 1) on every parameter, as in Bayesian neural fields; ``prior_weight`` 0
gives maximum likelihood.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from kernels.checks import check_int

from .._validation import check_path
from ..headers import from_document
from ..storage import StorageError, check_tensors, group, like, members, read, understanding, write
from .architecture import N_FOLDS, Inputs, Network

_HELD_OUT_ROWS = 4096
_WARM = 0.1  # of all updates
_KIND, _VERSION = "checkpoint of a forecaster", 1

LogProb = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Log densities of targets given location, log scale and tail, elementwise."""


@dataclass(frozen=True)
class Targets:
    """R targets with what the network sees of each."""

    inputs: Inputs
    z: Tensor  # (R,)
    fold: Tensor  # (R,), in [0, N_FOLDS], the last never held out; -1 held out from all

    @classmethod
    def join(cls, parts: list[Targets]) -> Targets:
        inputs = Inputs(*map(torch.cat, zip(*(part.inputs for part in parts), strict=True)))
        return cls(
            inputs, torch.cat([part.z for part in parts]), torch.cat([part.fold for part in parts])
        )

    def to(self, device: torch.device | str) -> Targets:
        inputs = Inputs(*(part.to(device) for part in self.inputs))
        return Targets(inputs, self.z.to(device), self.fold.to(device))


@dataclass(frozen=True)
class Progress:
    """After an epoch: means over members of the loss and of the held-out log score, NaN if nothing
    is held out."""

    epoch: int
    n_epochs: int
    loss: float
    held_out: float


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes
    ----------
    n_updates : int
        About; whole epochs are run.
    batch : int
    step_size : float
        The highest of Adam.
    patience : int
        Epochs without any member improving after which to stop.
    prior_weight : float
    n_rows : int
        N of the prior's weight: how many observations there are.
    """

    n_updates: int
    batch: int
    step_size: float
    patience: int
    prior_weight: float
    n_rows: int

    def n_epochs(self, n_targets: int) -> int:
        return max(round(self.n_updates / math.ceil(n_targets / self.batch)), 1)


def train(
    network: Network,
    targets: Targets,
    log_prob: LogProb,
    plan: Plan,
    generator: torch.Generator,
    callback: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> list[Progress]:
    """Train a network in place.

    Parameters
    ----------
    network : Network
    targets : Targets
    log_prob : callable
    plan : Plan
    generator : torch.Generator
        Orders the targets.
    callback : callable or None
        Called with a `Progress` after every epoch.
    checkpoint : path or None
        Written after every epoch, and gone on from if it is there: the result is the same.

    Returns
    -------
    list of Progress

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    """
    n_epochs = plan.n_epochs(len(targets.z))
    optimiser = torch.optim.Adam(network.parameters(), lr=plan.step_size)
    shown = _held_out_rows(targets, generator)
    best = Best.of(network)
    history: list[Progress] = []
    since = 0
    task = {"plan": repr(plan), "targets": zlib.crc32(targets.z.cpu().numpy().tobytes())}
    if checkpoint is not None and check_path("checkpoint", checkpoint).exists():
        history, since = _resume(checkpoint, network, optimiser, best, generator, task)
    total = n_epochs * math.ceil(len(targets.z) / plan.batch)
    update = len(history) * (total // n_epochs)
    while len(history) < n_epochs and since < plan.patience:
        losses = []
        order = torch.randperm(len(targets.z), generator=generator)
        for rows in order.split(plan.batch):
            for parameters in optimiser.param_groups:
                parameters["lr"] = plan.step_size * _schedule(update / total)
            loss = objective(network, targets, rows, log_prob, plan)
            optimiser.zero_grad()
            loss.sum().backward()
            optimiser.step()
            losses.append(loss.detach().mean())
            update += 1
        mean_loss = float(torch.stack(losses).mean())
        if not math.isfinite(mean_loss):
            raise FloatingPointError(
                f"The loss is {mean_loss} after epoch {len(history) + 1}; take a smaller step_size."
            )
        if len(shown):
            score = held_out_score(network, targets, shown, log_prob)
        else:
            score = best.score.new_full(best.score.shape, len(history))
        since = 0 if best.update(network, score) else since + 1
        shown_score = float(score.mean()) if len(shown) else math.nan
        history.append(Progress(len(history) + 1, n_epochs, mean_loss, shown_score))
        if checkpoint is not None:
            _save(checkpoint, network, optimiser, best, generator, task, history, since)
        if callback is not None:
            callback(history[-1])
    best.restore(network)
    return history


def objective(
    network: Network, targets: Targets, rows: Tensor, log_prob: LogProb, plan: Plan
) -> Tensor:
    """What each member minimises (M,), on a batch of rows."""
    loss = data_loss(network, targets, rows, log_prob)
    if plan.prior_weight:
        flat = torch.cat([p.flatten(1) for p in network.parameters()], dim=1)
        loss = loss - plan.prior_weight / plan.n_rows * log_prior(flat)
    return loss


def data_loss(
    network: Network,
    targets: Targets,
    rows: Tensor,
    log_prob: LogProb,
    weights: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Mean negative log density of the rows a member is trained on (M,), with its own weights or
    with others."""
    inputs = targets.inputs.rows(rows).expand(network.n_members)
    if weights is None:
        location, log_scale, tail = network(inputs)
    else:
        location, log_scale, tail = functional_call(network, dict(weights), (inputs,))
    density = log_prob(targets.z[rows], location, log_scale, tail)
    used = ~held_out(network, targets.fold[rows])
    return -(density * used).sum(1) / used.sum(1).clamp_min(1)


def log_prior(weights: Tensor) -> Tensor:
    """Logistic(0, 1) log density of all weights (M, P) of each member (M,)."""
    return (-weights - 2 * functional.softplus(-weights)).sum(1)


def held_out(network: Network, fold: Tensor) -> Tensor:
    """Which targets (M, B) each member is not trained on."""
    return (fold == network.folds[:, None]) | (fold == -1)


def held_out_score(network: Network, targets: Targets, rows: Tensor, log_prob: LogProb) -> Tensor:
    """Mean log density of its held-out targets among ``rows``, of each member (M,)."""
    with torch.no_grad():
        location, log_scale, tail = network(targets.inputs.rows(rows).expand(network.n_members))
        density = log_prob(targets.z[rows], location, log_scale, tail)
    hidden = held_out(network, targets.fold[rows])
    return (density * hidden).sum(1) / hidden.sum(1).clamp_min(1)


class Best:
    """The best weights of each member so far."""

    def __init__(self, score: Tensor, weights: dict[str, Tensor]) -> None:
        self.score, self.weights = score, weights

    @classmethod
    def of(cls, network: Network) -> Best:
        weights = {name: p.detach().clone() for name, p in network.named_parameters()}
        first = next(iter(weights.values()))
        return cls(first.new_full((network.n_members,), -math.inf), weights)

    def update(self, network: Network, score: Tensor) -> bool:
        """Keep the members that improved; whether there are any."""
        better = score > self.score
        self.score = torch.where(better, score, self.score)
        with torch.no_grad():
            for name, p in network.named_parameters():
                self.weights[name][better] = p[better]
        return bool(better.any())

    def restore(self, network: Network) -> None:
        with torch.no_grad():
            for name, p in network.named_parameters():
                p.copy_(self.weights[name])


def _schedule(share: float) -> float:
    if share < _WARM:
        return (share + 0.01) / (_WARM + 0.01)
    return 0.5 * (1 + math.cos(math.pi * (share - _WARM) / (1 - _WARM))) + 0.005


def _held_out_rows(targets: Targets, generator: torch.Generator) -> Tensor:
    rows = torch.nonzero(targets.fold < N_FOLDS)[:, 0]
    order = torch.randperm(len(rows), generator=generator)[:_HELD_OUT_ROWS]
    return rows[order.to(rows.device)]


def _save(
    path: str | os.PathLike[str],
    network: Network,
    optimiser: torch.optim.Adam,
    best: Best,
    generator: torch.Generator,
    task: dict[str, Any],
    history: list[Progress],
    since: int,
) -> None:
    state = optimiser.state_dict()["state"]
    tensors = {
        "generator": generator.get_state(),
        "score": best.score,
        **group("network", dict(network.named_parameters())),
        **group("best", best.weights),
        **{f"adam.{i}.{k}": v for i, entry in state.items() for k, v in entry.items()},
    }
    rows = [[h.epoch, h.n_epochs, h.loss, h.held_out] for h in history]
    header = {"task": task, "history": rows, "since": since}
    write(path, _KIND, _VERSION, header, tensors)


def _resume(
    path: str | os.PathLike[str],
    network: Network,
    optimiser: torch.optim.Adam,
    best: Best,
    generator: torch.Generator,
    task: dict[str, Any],
) -> tuple[list[Progress], int]:
    header, tensors = read(path, _KIND, _VERSION)
    with understanding(path):
        weights = members("network", tensors)
        parameters = dict(network.named_parameters())
        shapes = {name: p.shape for name, p in parameters.items()}
        if header["task"] != task or shapes != {k: v.shape for k, v in weights.items()}:
            raise StorageError(
                f"{str(path)!r} is a checkpoint of another training: its task was "
                f"{header['task']}, now {task}. Choose another file, or remove this one; the "
                "random_state must be the same."
            )
        trained = [i for i in range(len(parameters)) if f"adam.{i}.step" in tensors]
        expected = {
            "generator": generator.get_state(),
            "score": best.score,
            **group("network", parameters),
            **group("best", best.weights),
        }
        for i, p in enumerate(parameters.values()):
            if i in trained:  # the others have had no gradient yet
                expected |= {f"adam.{i}.exp_avg": p, f"adam.{i}.exp_avg_sq": p}
                expected[f"adam.{i}.step"] = torch.zeros(())
        check_tensors(tensors, like(expected), unbounded=("score",))  # -inf to begin with
        history = [_progress(row) for row in header["history"]]
        since = check_int("since", header["since"], 0)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(weights[name])
            best.weights[name].copy_(tensors[f"best.{name}"])
    best.score = tensors["score"].to(best.score)
    generator.set_state(tensors["generator"])
    names = ("step", "exp_avg", "exp_avg_sq")
    state = {i: {name: tensors[f"adam.{i}.{name}"] for name in names} for i in trained}
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return history, since


def _progress(row: list[Any]) -> Progress:
    names = [field.name for field in fields(Progress)]
    return from_document(Progress, dict(zip(names, row, strict=True)), missing=("held_out",))
