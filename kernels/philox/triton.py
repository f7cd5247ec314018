"""The same stream inside a GPU kernel; see `naive` for the formulas and the counter's layout."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TWO_PI = tl.constexpr(6.283185307179586)
_BELOW_ONE_32 = tl.constexpr(1 - 2.0**-24)
_BELOW_ONE_64 = tl.constexpr(1 - 2.0**-53)
_BLOCK = 256


@triton.jit
def words(seed, number, index, slot: tl.constexpr):
    """Four uint32 blocks of the counters (index, slot, number); the index is int64."""
    low = (index & 0xFFFFFFFF).to(tl.uint32)
    high = (index >> 32).to(tl.uint32)
    third = tl.zeros_like(low) + slot
    fourth = tl.full(low.shape, number, tl.uint32)
    return tl.philox(seed, low, high, third, fourth)


@triton.jit
def uniform(word, dtype: tl.constexpr):
    """(w + 1/2) / 2^32, rounded and kept below 1."""
    if dtype == tl.float64:
        return tl.minimum((word.to(dtype) + 0.5) * (1.0 / 4294967296.0), _BELOW_ONE_64)
    else:
        return tl.minimum((word.to(dtype) + 0.5) * (1.0 / 4294967296.0), _BELOW_ONE_32)


@triton.jit
def normal_pair(first, second, dtype: tl.constexpr):
    """Two standard normals of two words, by Box and Muller."""
    radius = tl.sqrt(-2.0 * tl.log(uniform(first, dtype)))
    angle = _TWO_PI * uniform(second, dtype)
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def normal_four(seed, number, index, dtype: tl.constexpr):
    """(B, 4) standard normals: row i holds those of counter ``index[i]``."""
    w0, w1, w2, w3 = words(seed, number, index, 0)
    n0, n1 = normal_pair(w0, w1, dtype)
    n2, n3 = normal_pair(w2, w3, dtype)
    return tl.join(tl.join(n0, n2), tl.join(n1, n3)).reshape(index.shape[0], 4)


def normal(seed: int, number: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """As `naive.normal`, equal up to the rounding of logarithm, sine and cosine."""
    out = torch.empty(shape, dtype=like.dtype, device=like.device)
    if out.numel():
        grid = (triton.cdiv(out.numel(), 4 * _BLOCK),)
        _normal[grid](out, out.numel(), seed, number, BLOCK=_BLOCK, enable_fp_fusion=True)
    return out


@triton.jit(do_not_specialize=["size", "seed", "number"])
def _normal(out, size, seed, number, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = index[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(out + at, normal_four(seed, number, index, out.dtype.element_ty), mask=at < size)
