r"""Profile likelihood over a gate's shared parameter, such as the logarithm of a temperature.

.. math:: \ell_p(v) = \max\{\ell(\theta) : \log\tau = v\}

is constant where (b0, b1, tau) may be scaled together, and has a peak where the temperature is
identified: a picture of what the data say about it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from kernels.checks import check_count, check_int, check_real

from ..fit.mle import MLE
from .profile import Profile


@dataclass(frozen=True, eq=False)
class SharedProfile:
    """A profile likelihood over one shared parameter.

    Attributes
    ----------
    value : ndarray
        (M,) ascending values of the flat parameter.
    log_likelihood : ndarray
        (M,) in nats, less the maximum.
    estimate : float
        Where the fit is.
    """

    value: np.ndarray
    log_likelihood: np.ndarray
    estimate: float


def shared_profile(
    fit: MLE, index: int = 0, *, width: float = 1.0, n_points: int = 21, row: int = 0
) -> SharedProfile:
    """Profile likelihood of a shared gate parameter around its estimate.

    Parameters
    ----------
    fit : MLE
        From `fit_mle`.
    index : int
        Which shared parameter; the temperature's logarithm is the first of its gates.
    width : float
        How far the profile goes to either side, in units of the flat parameter, at most the bound
        under which it is estimated.
    n_points : int
        Number of values, at least 3.
    row : int
        Which data set.

    Returns
    -------
    SharedProfile

    Raises
    ------
    ValueError
        If the gate has no such parameter, or a number is out of range.

    Examples
    --------
    >>> from moe_stats import DenseToSparseGate, GaussianMoE, LinearExperts, Uniform, fit_mle
    >>> experts = LinearExperts([[-1.0], [1.0]], [4.0, -4.0], [0.3, 0.4])
    >>> truth = GaussianMoE(DenseToSparseGate([-0.25, 0.0], [[5.0], [0.5]], 1.0), experts)
    >>> X = Uniform(-3, 3).sample(300, random_state=0)
    >>> y = truth.sample(X, random_state=1)
    >>> fit = fit_mle(X[None], y[None], n_experts=2, gate=truth.gate, random_states=[0])
    >>> profile = shared_profile(fit, n_points=5)
    >>> bool(abs(profile.log_likelihood).max() < 1e-6)  # flat: the temperature is not identified
    True
    """
    problem = fit._problem
    layout = problem.layout
    check_int("index", index, 0, layout.n_shared - 1, why=f" with {layout.n_shared} shared")
    check_real("width", width, low=0.0, high=problem.gate.shared_bound, strict=True)
    check_count("n_points", n_points, 3)
    check_int("row", row, 0, len(problem.y) - 1)
    params = fit.model.to_params().reshape(-1, layout.size)[row]
    place = layout.size - layout.n_shared + index
    direction = torch.zeros_like(params)
    direction[place] = 1.0
    curvature = problem.evaluate(params[None], torch.tensor([row]), "hessian").hessian
    assert curvature is not None
    rest = torch.arange(layout.size) != place
    path = direction.clone()
    inverse = torch.linalg.pinv(curvature[0][rest][:, rest], rtol=1e-10)
    path[rest] = -inverse @ curvature[0][rest, place]
    half = n_points // 2
    steps = width * np.arange(1, half + 1) / half
    sides = []
    for sign in (-1.0, 1.0):  # outwards, each maximum started from the one before
        profile = Profile(problem, row, params, direction, path)
        sides.append([-profile.deviance(profile.estimate + sign * s) / 2 for s in steps])
    estimate = float(params[place])
    return SharedProfile(
        np.concatenate([estimate - steps[::-1], [estimate], estimate + steps]),
        np.array([*sides[0][::-1], 0.0, *sides[1]]),
        estimate,
    )
