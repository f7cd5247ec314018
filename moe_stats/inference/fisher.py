r"""Expected Fisher information of a model, by quadrature over y.

.. math::
    I(\theta) = \frac1N \sum_n E_{y \mid x_n}[u u'], \qquad
    E_{y \mid x}[u u'] = \sum_e g_e(x)\, E_{N_e}[u u'],

each expert's expectation by Gauss-Hermite nodes. Every node adds a positive semidefinite matrix
that vanishes in exactly the directions in which no score changes, so the null space is exact
whatever the number of nodes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.gating import Layout, naive

from ..model import GaussianMoE
from .scores import scores


def fisher_information(
    model: GaussianMoE,
    X: Tensor,  # (N, D)
    n_nodes: int = 32,
) -> Tensor:
    """Fisher information of the flat parameters per observation, averaged over X; (P, P).

    Parameters
    ----------
    model : GaussianMoE
        A single model.
    X : Tensor
        (N, D) features.
    n_nodes : int
        Gauss-Hermite nodes an expert.
    """
    params, layout = model.to_params(), Layout.of(model.gate.form, model.n_experts, X.shape[-1])
    node, weight = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(n_nodes))
    weight = weight / weight.sum()
    gate, mean = model.gate_probs(X), model.experts.mean(X)  # (N, E)
    total = params.new_zeros(layout.size, layout.size)
    width = layout.n_experts * (layout.width + layout.n_shared)
    for e, scale in enumerate(model.experts.scale):
        for part in torch.arange(len(X)).split(max(1, naive.MAX_ELEMENTS // (width * n_nodes))):
            x = X[part].mT.repeat_interleave(n_nodes, dim=-1)
            y = (mean[part, e, None] + scale * node).ravel()
            point = naive.terms(params[None], model.gate.form, x[None], y[None], layout)
            columns = scores(point, layout)[0]  # (P, M)
            total += (columns * (gate[part, e, None] * weight).ravel()) @ columns.mT
    return total / len(X)
