r"""Laplace's approximation for the last layer, in closed form.

With g_i the gradient of the log density of target i in the weights of the head, the posterior of a
member's head is normal around its MAP with precision

.. math:: \frac{N}{n} \sum_i g_i g_i^\top + \operatorname{diag} 2\sigma(\theta)\sigma(-\theta):

the empirical Fisher information, scaled from the n targets to the N observations that they repeat,
and the curvature of the Logistic prior.

References
----------
Daxberger et al. (2021), Laplace redux: effortless Bayesian deep learning.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..architecture import Network
from ..training import LogProb, Plan, Targets, held_out
from .weights import flatten, unflatten, with_draws

N_DRAWS = 8
_CHUNK = 4096


def last_layer_laplace(
    network: Network, targets: Targets, log_prob: LogProb, plan: Plan, generator: torch.Generator
) -> Network:
    """An ensemble of draws of the heads of the trained members."""
    layer = network.head.out
    n_members, n_inputs, n_outputs = layer.weight.shape
    size = (n_inputs + 1) * n_outputs
    fisher = torch.zeros(n_members, size, size, dtype=torch.float64)
    count = torch.zeros(n_members, dtype=torch.float64)
    for start in range(0, len(targets.z), _CHUNK):
        rows = slice(start, start + _CHUNK)
        used = ~held_out(network, targets.fold[rows])
        gradient = _head_gradients(network, targets, rows, log_prob) * used[..., None]
        fisher += (gradient.mT @ gradient).double().cpu()
        count += used.sum(1).cpu()
    mode = torch.cat([layer.weight, layer.bias], dim=1).detach().double().flatten(1).cpu()
    curvature = 2 * torch.sigmoid(mode) * torch.sigmoid(-mode)
    precision = fisher * (plan.n_rows / count.clamp_min(1))[:, None, None]
    factor = torch.linalg.cholesky(precision + torch.diag_embed(curvature))
    noise = torch.randn(N_DRAWS, n_members, size, 1, generator=generator, dtype=torch.float64)
    moves = torch.linalg.solve_triangular(factor.mT, noise, upper=True)[..., 0]
    heads = (mode + moves).view(N_DRAWS, n_members, n_inputs + 1, n_outputs)
    draws = flatten(network).repeat(N_DRAWS, 1, 1)
    for draw, head in zip(draws, heads.to(draws), strict=True):
        weights = unflatten(network, draw)  # views of the draw
        weights["head.out.weight"].copy_(head[:, :-1])
        weights["head.out.bias"].copy_(head[:, -1:])
    return with_draws(network, draws)


def _head_gradients(network: Network, targets: Targets, rows: slice, log_prob: LogProb) -> Tensor:
    """Gradients (M, B, (width + 1) * outputs) of log densities in the head's weights."""
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        seen.extend([args[0].detach(), output.detach().requires_grad_(True)])
        return seen[1]

    hook = network.head.out.register_forward_hook(keep)
    try:
        outputs = network(targets.inputs.rows(rows).expand(network.n_members))
    finally:
        hook.remove()
    features, out = seen
    (slope,) = torch.autograd.grad(log_prob(targets.z[rows], *outputs).sum(), out)
    features = torch.cat(
        [features * network.head.out.multiplier, torch.ones_like(features[..., :1])], dim=-1
    )
    return (features[..., None] * slope[..., None, :]).flatten(-2)
