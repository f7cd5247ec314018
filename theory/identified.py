r"""What the density of a sparse gate says about the gate's parameters.

A top-K gate compares the scores of two experts only where both are selected. With K = 1 it never
does: the softmax over one logit is 1, and of the gate only the selection is identified. With K >= 2
and ranking by slope, intercept differences are identified only between experts that are selected
together on a set of positive measure, hence all of them only if these pairs connect all experts.
"""

from __future__ import annotations

import torch

from moe_stats import GaussianMoE

_N_PROBES = 4096


def identified_gate(model: GaussianMoE) -> tuple[tuple[str, ...], str]:
    """Groups of gate parameters that a model identifies, and a sentence about the others.

    Parameters
    ----------
    model : GaussianMoE
        A single model.

    Returns
    -------
    groups : tuple of str
        "mass" and the gate's parts of an atom, or nothing.
    sentence : str
        Empty if everything is identified.

    Notes
    -----
    Ranking by slope, selection depends on the direction of x alone: it is probed at 4,096 fixed
    directions, supposing a design that covers a neighbourhood of 0. Ranking by logit, boundaries
    tell more than this; nothing is then left out for K >= 2.

    Examples
    --------
    >>> from moe_stats import LinearExperts, TopKGate
    >>> experts = LinearExperts([[3.0], [-2.0]], [4.0, 0.0], [0.4, 0.5])
    >>> identified_gate(GaussianMoE(TopKGate([0.0, 1.0], [[2.0], [0.0]], top_k=1), experts))[0]
    ()
    """
    _, parts = model.gate.atoms()
    everything = ("mass", *parts)
    form = model.gate.form
    n_experts = model.n_experts
    if form.top_k is None or form.top_k >= n_experts:
        return everything, ""
    if form.top_k == 1:
        return (), (
            "Gate parameters were not compared: with one expert selected at each x the gate "
            "identifies only which one, not masses or slopes."
        )
    if form.rank is None:
        return everything, ""
    probes = torch.Generator().manual_seed(0)
    x = torch.randn(_N_PROBES, model.n_features, generator=probes, dtype=torch.float64)
    selected = (model.gate.log_probs(x) > -torch.inf).to(torch.float64)  # (N, E)
    together = (selected.mT @ selected > 0).to(torch.float64)
    linked = torch.linalg.matrix_power(together + torch.eye(n_experts).to(together), n_experts) > 0
    if bool(linked.all()):
        return everything, ""
    groups = sorted({tuple((row.nonzero().squeeze(-1) + 1).tolist()) for row in linked})
    named = ", ".join("{" + ", ".join(map(str, g)) + "}" for g in groups)
    silent = (selected.sum(0) == 0).nonzero().squeeze(-1) + 1
    never = f" Never selected: {silent.tolist()}." if len(silent) else ""
    return (), (
        "Gate parameters were not compared: intercept differences are identified only among "
        f"experts selected together, {named}.{never}"
    )
