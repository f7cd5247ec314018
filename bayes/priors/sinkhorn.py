r"""Sinkhorn divergence with squared Euclidean cost, computed by POT.

.. math:: S_\epsilon(F, G) = OT_\epsilon(F, G) - \tfrac12 OT_\epsilon(F, F)
    - \tfrac12 OT_\epsilon(G, G),

between the squared 2-Wasserstein distance (:math:`\epsilon \to 0`) and half the squared distance of
the means (:math:`\epsilon \to \infty`).

References
----------
Feydy et al. (2019), Interpolating between optimal transport and MMD using Sinkhorn divergences,
AISTATS. Flamary et al. (2021), POT: Python Optimal Transport, JMLR 22.
"""

from __future__ import annotations

from torch import Tensor

from kernels.checks import check_real


def sinkhorn_divergence(f: Tensor, g: Tensor, regularisation: float = 0.05) -> Tensor:
    """Divergence of two samples, differentiable.

    Parameters
    ----------
    f, g : Tensor
        (n, M) and (m, M) draws of function values.
    regularisation : float
        Entropic regularisation over the mean squared distance of f and g, > 0.

    Returns
    -------
    Tensor
        A scalar, in the unit of the values squared.
    """
    import ot

    check_real("regularisation", regularisation, low=0.0, strict=True)
    between = ot.dist(f, g)
    epsilon = regularisation * float(between.detach().mean())

    def cost(squared: Tensor) -> Tensor:
        return ot.solve(
            squared, reg=epsilon, reg_type="entropy", max_iter=500, tol=1e-6, grad="envelope"
        ).value

    return cost(between) - 0.5 * (cost(ot.dist(f, f)) + cost(ot.dist(g, g)))
