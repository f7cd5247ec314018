r"""Sign changes of combinations of Gaussian densities: what the upper side of rbar rests on.

A combination f = sum_i c_i N(mu_i, v_i) of n Gaussian densities of distinct (mean, variance), not
all c_i zero, changes sign at most 2 (n - 1) times (Kalai, Moitra and Valiant 2010, Proposition 7;
docs/rbar.md has a proof with repeated variances). `count_sign_changes` counts from below: only
points where f is demonstrably not 0 are asked for its sign.

The bound is attained: the Gauss-Hermite mixture and the Gaussian it imitates share the moments
0, ..., 2m - 1, so that their difference changes sign at least 2m times, and at most.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.checks import check_int, check_real

from .._validation import as_array
from .rbar import MAX_EXACT

Array = NDArray[np.float64]

_ROUNDING = 1e-14
"""|f| from which its sign is certain, as a fraction of the sum of terms, each times one plus the
size of the exponents that make it: rounding leaves about 1e-15."""

_REACH, _N_POINTS = 12.0, 1201


def count_sign_changes(
    coefficients: Any,  # (n,)
    means: Any,  # (n,)
    variances: Any,  # (n,)
) -> int:
    """Sign changes of sum_i c_i N(mean_i, variance_i) on the line, counted from below.

    Parameters
    ----------
    coefficients, means : array-like of shape (n,)
        Finite.
    variances : array-like of shape (n,)
        Finite and positive.

    Returns
    -------
    int
        Alternations of sign on 1,201 points within 12 scales of each mean, signs lost in rounding
        left out: never more than there are.

    Raises
    ------
    ValueError
        If shapes disagree or a value is out of range.

    Examples
    --------
    >>> count_sign_changes([1.0, -1.0], [0.0, 0.0], [1.0, 2.0])
    2
    """
    c = as_array("coefficients", coefficients)
    mean, variance = as_array("means", means), as_array("variances", variances)
    if not (c.ndim == 1 and c.shape == mean.shape == variance.shape and len(c)):
        raise ValueError(
            "The 'coefficients', 'means' and 'variances' parameters must have one shape (n,); got "
            f"{c.shape}, {mean.shape} and {variance.shape}."
        )
    if not (variance > 0).all():
        raise ValueError(f"The 'variances' parameter must be positive; got {variance.tolist()}.")
    steps = np.linspace(-_REACH, _REACH, _N_POINTS)
    y = np.unique(mean[:, None] + np.sqrt(variance)[:, None] * steps)
    exponents = -((y - mean[:, None]) ** 2) / (2 * variance[:, None])
    most = exponents.max(0)
    terms = (c / np.sqrt(variance))[:, None] * np.exp(exponents - most)
    f, size = terms.sum(0), (np.abs(terms) * (1 - exponents - most)).sum(0)
    signs = np.sign(f[np.abs(f) > _ROUNDING * size])
    return int((signs[1:] != signs[:-1]).sum())


def imitation(m: int, variance: float = 2.0) -> tuple[Array, Array, Array]:
    """The Gauss-Hermite mixture less the Gaussian it imitates, as `count_sign_changes` takes it.

    Parameters
    ----------
    m : int
        Number of atoms, in [2, `MAX_EXACT`].
    variance : float
        sigma^2 > 1 of the Gaussian; the mixture's components have sigma^2 - 1.

    Returns
    -------
    tuple of ndarray
        Coefficients, means and variances (m + 1,) of m + 1 densities whose combination has moments
        0, ..., 2m - 1 equal to 0.
    """
    check_int("m", m, 2, MAX_EXACT)
    check_real("variance", variance, low=1.0, strict=True)
    nodes, weights = np.polynomial.hermite_e.hermegauss(m)
    return (
        np.append(weights / weights.sum(), -1.0),
        np.append(nodes, 0.0),
        np.append(np.full(m, variance - 1.0), variance),
    )
