r"""Information and Hessian inside a GPU kernel: rows of products of gradient columns.

With :math:`\alpha_e = s_e + \log\phi_e`, responsibilities r and gate probabilities g, the entry of
the Hessian for parameter i of expert e and parameter j of expert f is the sum over observations of

.. math::
    r_e (\delta_{ef} - r_f)\,\partial_i\alpha_e\,\partial_j\alpha_f
    - g_e (\delta_{ef} - g_f)\,\partial_i s_e\,\partial_j s_f
    + \delta_{ef}\,\bigl(r_e\,\partial_i\partial_j\alpha_e - g_e\,\partial_i\partial_j s_e\bigr),

and for a parameter j that all experts share :math:`\partial_j s_e - \sum_f r_f \partial_j s_f`
takes the place of :math:`(\delta_{ef} - r_f)\,\partial_j\alpha_f`, likewise with g. A program keeps
f fixed: everything of j is then a column (BLOCK, 1), and a *pair* of columns (i, j) is one tile of
partial sums, over e. Pairs with i <= j are enough.

Columns are counted as in the gradient: own gate parameters, slope, intercept, log scale, then
shared gate parameters.
"""

# Tuples grow in kernels.

from __future__ import annotations

import triton
import triton.language as tl

from .triton_pass import means, parameters, terms


@triton.jit
def row_of(at_model, f, D: tl.constexpr, OWN: tl.constexpr):
    """Expert f and its own parameters, as those of a model without others: each (1, 1)."""
    own, slope, intercept, log_scale, _ = parameters(at_model + f * (OWN + D + 2), 1, 1, D, OWN, 0)
    return f, own, slope, intercept, log_scale


@triton.jit
def add_pairs(
    total,
    model,
    row,
    x,
    y,
    inside,
    zero,
    FORM: tl.constexpr,
    TOP_K: tl.constexpr,
    E: tl.constexpr,
    D: tl.constexpr,
    OWN: tl.constexpr,
    CURVATURE: tl.constexpr,
    PAIRS: tl.constexpr,
    COUNT: tl.constexpr,
    SHARED_ROW: tl.constexpr,
):
    """The tiles of pairs with a block of observations added.

    PAIRS holds four numbers a pair: columns c <= d, whether their entry is the information's, and
    the place of their second derivative of the score among those that CURVATURE gives, or -1.
    """
    columns, _, r, g, z, t = terms(model, x, y, inside, zero, FORM, TOP_K, E, D)
    own, _, _, log_scale, shared = model
    of_all = columns, z, t
    expert = tl.arange(0, zero.shape[1])[None, :]
    more = ()
    bends = ()
    if CURVATURE is not None:
        bends = CURVATURE(own, shared, x)
    if SHARED_ROW:
        real = expert < E
        for i in tl.static_range(COUNT):
            slope = columns[PAIRS[4 * i + 1] - D]
            part = _shared_pair(
                PAIRS[4 * i],
                PAIRS[4 * i + 2],
                r * (slope - tl.sum(tl.where(real, r * slope, 0.0), axis=1)[:, None]),
                g * (slope - tl.sum(tl.where(real, g * slope, 0.0), axis=1)[:, None]),
                of_all,
                x,
                D,
                OWN,
            )
            if PAIRS[4 * i + 3] >= 0:
                part += (r - g) * bends[PAIRS[4 * i + 3]]
            more = more + (total[i] + part,)
    else:
        f, row_own, row_slope, row_intercept, row_log_scale = row
        inverse_scale = tl.exp(-row_log_scale)
        row_z = (y - means(row_slope, row_intercept, x, D)) * inverse_scale
        of_row = FORM(row_own, shared, x), row_z, row_z * inverse_scale
        r_here, g_here = tl.where(expert == f, r, 0.0), tl.where(expert == f, g, 0.0)
        by_r = r_here - r * tl.sum(r_here, axis=1)[:, None]
        by_g = g_here - g * tl.sum(g_here, axis=1)[:, None]
        precise = r_here * tl.exp(-2.0 * log_scale)
        for i in tl.static_range(COUNT):
            part = _own_pair(
                PAIRS[4 * i],
                PAIRS[4 * i + 1],
                PAIRS[4 * i + 2],
                by_r,
                by_g,
                r_here,
                precise,
                of_all,
                of_row,
                x,
                D,
                OWN,
            )
            if PAIRS[4 * i + 3] >= 0:
                part += (r_here - g_here) * bends[PAIRS[4 * i + 3]]
            more = more + (total[i] + part,)
    return more


@triton.jit
def _own_pair(
    c: tl.constexpr,
    d: tl.constexpr,
    expected: tl.constexpr,
    by_r,
    by_g,
    r_here,
    precise,
    of_all,
    of_row,
    x,
    D: tl.constexpr,
    OWN: tl.constexpr,
):
    """What column c of every expert and column d of expert f give, curvature of scores left out."""
    if d < OWN:  # both of the gate
        if expected:
            return _times(_times(by_g, c, of_all, x, D, OWN), d, of_row, x, D, OWN)
        else:
            return _times(_times(by_r - by_g, c, of_all, x, D, OWN), d, of_row, x, D, OWN)
    elif expected:  # both of the mean, or the scale twice
        if d == OWN + D + 1:
            return 2.0 * r_here
        else:
            return _times_design(_times_design(precise, c, x, D, OWN), d, x, D, OWN)
    else:
        part = _times(_times(by_r, c, of_all, x, D, OWN), d, of_row, x, D, OWN)
        if c >= OWN:  # second derivatives of the log density
            z, t = of_all[1], of_all[2]
            if d < OWN + D + 1:
                part -= _times_design(_times_design(precise, c, x, D, OWN), d, x, D, OWN)
            elif c < OWN + D + 1:
                part -= _times_design(2.0 * r_here * t, c, x, D, OWN)
            else:
                part -= 2.0 * r_here * z * z
        return part


@triton.jit
def _shared_pair(
    c: tl.constexpr,
    expected: tl.constexpr,
    by_r,
    by_g,
    of_all,
    x,
    D: tl.constexpr,
    OWN: tl.constexpr,
):
    """What column c of every expert and a shared parameter give, likewise."""
    if expected:
        return _times(by_g, c, of_all, x, D, OWN)
    elif c < OWN or c > OWN + D + 1:
        return _times(by_r - by_g, c, of_all, x, D, OWN)
    else:
        return _times(by_r, c, of_all, x, D, OWN)


@triton.jit
def _times(weight, c: tl.constexpr, of, x, D: tl.constexpr, OWN: tl.constexpr):
    """A tile times column c of the derivatives of score plus log density."""
    columns, z, t = of
    if c < OWN:
        return weight * columns[2 + c]
    elif c < OWN + D:
        return weight * (t * x[c - OWN])
    elif c == OWN + D:
        return weight * t
    elif c == OWN + D + 1:
        return weight * (z * z - 1.0)
    else:
        return weight * columns[c - D]


@triton.jit
def _times_design(weight, c: tl.constexpr, x, D: tl.constexpr, OWN: tl.constexpr):
    """A tile times the derivative of the mean by column c, a slope or the intercept."""
    if c < OWN + D:
        return weight * x[c - OWN]
    else:
        return weight
