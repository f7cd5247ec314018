"""Methods by name, and which of them "auto" takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kernels.checks import check_choice

from ..._validation import check_sequence
from ..base import Prior
from ..nngp import network_covariance
from .bures import Bures
from .energy import Energy
from .method import Method
from .moments import Moments
from .sinkhorn import Sinkhorn
from .sliced import Sliced
from .wasserstein import Wasserstein

METHODS: dict[str, type[Method]] = {
    m.name: m for m in (Moments, Energy, Bures, Sliced, Sinkhorn, Wasserstein)
}


def resolve(method: str | Method | Sequence[str | Method], prior: Prior) -> list[Method]:
    """The methods to run, in order."""
    if isinstance(method, str) and method == "auto":
        return [Moments(), Energy()] if has_moments(prior) else [Energy()]
    given = (
        [method]
        if isinstance(method, str | Method)
        else check_sequence("method", method, "str or Method")
    )
    if not given:
        raise ValueError(f"The 'method' parameter must name a method at least; got {method!r}.")
    choices = ("auto", *METHODS) if isinstance(method, str) else tuple(METHODS)
    return [
        m if isinstance(m, Method) else METHODS[check_choice("method", m, choices)]() for m in given
    ]


def has_moments(prior: Prior) -> bool:
    """Whether the covariance is known: dense layers, scales alike in all units of each."""
    X = torch.ones(2, prior.net.n_inputs or 1, dtype=torch.float64)
    try:
        network_covariance(prior.net, prior.gaussian_scale().unsqueeze(0), X)
    except ValueError:
        return False
    return True
