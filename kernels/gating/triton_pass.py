"""What one block of observations contributes, inside a GPU kernel.

A tile is (BLOCK, EXPERTS): observations by experts, the experts padded to a power of two. A column
of `form` is then a tile, or broadcasts to one: own parameters are rows (1, EXPERTS), features
columns (BLOCK, 1). Padded experts have score minus infinity and take part in nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

_HALF_LOG_2PI = tl.constexpr(0.9189385332046727)


@triton.jit
def parameters(
    params,
    E: tl.constexpr,
    EXPERTS: tl.constexpr,
    D: tl.constexpr,
    OWN: tl.constexpr,
    SHARED: tl.constexpr,
):
    """Own columns, slope, intercept, log scale and shared parameters of the model at a pointer."""
    expert = tl.arange(0, EXPERTS)
    real = expert < E
    width: tl.constexpr = OWN + D + 2
    own = ()
    for q in tl.static_range(OWN):
        own = own + (tl.load(params + expert * width + q, mask=real, other=0.0)[None, :],)
    slope = ()
    for d in tl.static_range(D):
        row = tl.load(params + expert * width + (OWN + d), mask=real, other=0.0)
        slope = slope + (row[None, :],)
    at = params + expert * width + (OWN + D)
    intercept = tl.load(at, mask=real, other=0.0)[None, :]
    log_scale = tl.load(at + 1, mask=real, other=0.0)[None, :]
    shared = ()
    for q in tl.static_range(SHARED):
        shared = shared + (tl.load(params + (E * width + q)),)
    return own, slope, intercept, log_scale, shared


@triton.jit
def load(x, y, at, inside, x_strides, y_strides, D: tl.constexpr):
    """Features and responses of a data set at some places, each (BLOCK, 1)."""
    features = ()
    for d in tl.static_range(D):
        feature = tl.load(x + d * x_strides[1] + at * x_strides[2], mask=inside, other=0.0)
        features = features + (feature[:, None],)
    return features, tl.load(y + at * y_strides[1], mask=inside, other=0.0)[:, None]


@triton.jit
def scores(columns, E: tl.constexpr, TOP_K: tl.constexpr, zero):
    """The score tile, minus infinity for padded and for unselected experts."""
    expert = tl.arange(0, zero.shape[1])[None, :]
    kept = tl.broadcast_to(expert < E, zero.shape)
    if TOP_K < E:
        rank = columns[1] + zero
        left = kept
        kept = kept & (rank != rank)  # what is not a number must not vanish
        for _ in tl.static_range(TOP_K):
            best = tl.max(tl.where(left, rank, float("-inf")), axis=1)[:, None]
            tied = tl.where(left & (rank >= best), expert, E)
            chosen = expert == tl.min(tied, axis=1)[:, None]  # ties go to the first
            kept = kept | chosen
            left = left & ~chosen
    return tl.where(kept, columns[0] + zero, float("-inf"))


@triton.jit
def softmax(logits):
    """Largest logit, exponentials of what is above it, and their sum; columns (BLOCK, 1)."""
    top = tl.max(logits, axis=1)[:, None]
    small = tl.exp(logits - top)
    return top, small, tl.sum(small, axis=1)[:, None]


@triton.jit
def means(slope, intercept, x, D: tl.constexpr):
    """The tile of the experts' means."""
    mean = intercept
    for d in tl.static_range(D):
        mean = mean + slope[d] * x[d]
    return mean


@triton.jit
def terms(
    model,
    x,
    y,
    inside,
    zero,
    FORM: tl.constexpr,
    TOP_K: tl.constexpr,
    E: tl.constexpr,
    D: tl.constexpr,
):
    """Gate columns, log densities (BLOCK,), responsibilities and gate probabilities, both zero
    outside the data, standardised residuals z and z / scale."""
    own, slope, intercept, log_scale, shared = model
    inverse_scale = tl.exp(-log_scale)
    columns = FORM(own, shared, x)
    score = scores(columns, E, TOP_K, zero)
    z = (y - means(slope, intercept, x, D)) * inverse_scale
    top_s, exp_s, sum_s = softmax(score)
    top_j, exp_j, sum_j = softmax((score - top_s) - 0.5 * z * z - log_scale)
    log_density = tl.sum(top_j + tl.log(sum_j / sum_s), axis=1) - _HALF_LOG_2PI
    r = tl.where(inside[:, None], exp_j / sum_j, 0.0)
    g = tl.where(inside[:, None], exp_s / sum_s, 0.0)
    return columns, log_density, r, g, z, z * inverse_scale


@triton.jit
def empty_sums(
    BLOCK: tl.constexpr, EXPERTS: tl.constexpr, COUNT: tl.constexpr, dtype: tl.constexpr
):
    """COUNT tiles of zeros."""
    total = ()
    for _ in tl.static_range(COUNT):
        total = total + (tl.zeros([BLOCK, EXPERTS], dtype=dtype),)
    return total


@triton.jit
def add(
    value,
    total,
    model,
    x,
    y,
    inside,
    zero,
    FORM: tl.constexpr,
    TOP_K: tl.constexpr,
    E: tl.constexpr,
    D: tl.constexpr,
    OWN: tl.constexpr,
    FIRST: tl.constexpr,
    COUNT: tl.constexpr,
):
    """The sums with a block of observations added, and its responsibilities."""
    columns, log_density, r, g, z, t = terms(model, x, y, inside, zero, FORM, TOP_K, E, D)
    value += tl.where(inside, log_density, 0.0).to(tl.float64)
    excess = r - g
    t = r * t
    more = ()
    for c in tl.static_range(COUNT):
        if FIRST + c < OWN:
            part = excess * columns[2 + FIRST + c]
        elif FIRST + c < OWN + D:
            part = t * x[FIRST + c - OWN]
        elif FIRST + c == OWN + D:
            part = t
        elif FIRST + c == OWN + D + 1:
            part = r * (z * z - 1.0)
        else:
            part = excess * columns[FIRST + c - D]
        more = more + (total[c] + part,)
    return value, more, r


@triton.jit
def store_sums(parts, program, total, E: tl.constexpr, COUNT: tl.constexpr):
    """Write the sums of tiles over a program's observations."""
    for c in tl.static_range(COUNT):
        expert = tl.arange(0, total[c].shape[1])
        place = parts + (program * COUNT + c) * E + expert
        tl.store(place, tl.sum(total[c].to(tl.float64), axis=0), mask=expert < E)
