"""The updates as one hand-written GPU pass, with noise that is drawn where it is used.

Every tensor is read once and every new state written once; with a `Stream` for noise there is no
noise to read. All updates share one kernel: they differ in the formula it applies to a tile, and
the formulas are those of ``naive.py``, line by line. Entry j of the state, in row-major order, gets
normal j of the stream, so a thread that handles four neighbours uses all of a counter's words.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import gpu
from ..philox import Stream
from ..philox.triton import normal_four

_BLOCK = 256
_SCALAR, _FLAT, _STRIDED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


def update(name: str, arguments: dict[str, Any]) -> Any:
    """The update of this name with its arguments by name, as `naive` takes them; ``noise`` may be
    a `Stream`.

    Raises
    ------
    ImportError, ValueError
        If Triton or a device for it is missing, or tensors differ in device or dtype or are
        neither float32 nor float64.
    """
    position: Tensor = arguments["position"]
    gpu.require(position.device)
    _check(arguments, position)
    noise = arguments["noise"]
    seed, number = (noise.seed, noise.number) if isinstance(noise, Stream) else (0, 0)
    inputs, kinds, strides = [], [], []
    for value in arguments.values():
        if isinstance(value, Stream):
            continue
        tensor, kind = _readable(value, position)
        inputs.append(tensor)
        kinds.append(kind)
        strides.append(tensor.stride() if kind == _STRIDED.value else (0, 0))
    formula, n_states = _FORMULAS[name]
    outputs = tuple(
        torch.empty_like(position, memory_format=torch.contiguous_format) for _ in range(n_states)
    )
    if position.numel():
        _kernel[(triton.cdiv(position.numel(), 4 * _BLOCK),)](
            outputs,
            tuple(inputs),
            tuple(strides),
            seed,
            number,
            position.numel(),
            position.shape[-1],
            FORMULA=formula,
            KINDS=tuple(kinds),
            NOISE_AT=list(arguments).index("noise"),
            DRAWN=isinstance(noise, Stream),
            BLOCK=_BLOCK,
            enable_fp_fusion=True,
        )
    return outputs if n_states > 1 else outputs[0]


@triton.jit(do_not_specialize=["seed", "number"])
def _kernel(
    outputs,
    inputs,
    strides,
    seed,
    number,
    size,
    n_columns,
    FORMULA: tl.constexpr,
    KINDS: tl.constexpr,
    NOISE_AT: tl.constexpr,
    DRAWN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = outputs[0].dtype.element_ty
    counter = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = counter[:, None] * 4 + tl.arange(0, 4)[None, :]
    mask = at < size
    values = ()
    for i in tl.static_range(len(KINDS)):
        if DRAWN and i == NOISE_AT:
            values = values + (normal_four(seed, number, counter, dtype),)
        if KINDS[i] == _SCALAR:
            values = values + (tl.load(inputs[i]),)
        elif KINDS[i] == _FLAT:
            values = values + (tl.load(inputs[i] + at, mask=mask, other=1.0),)
        else:
            where = at // n_columns * strides[i][0] + at % n_columns * strides[i][1]
            values = values + (tl.load(inputs[i] + where, mask=mask, other=1.0),)
    new = FORMULA(values)
    for i in tl.static_range(len(outputs)):
        tl.store(outputs[i] + at, new[i], mask=mask)


@triton.jit
def _sgld(values):
    q, g, noise, step_size, temperature = values
    return (q - step_size * g + tl.sqrt(2 * step_size * temperature) * noise,)


@triton.jit
def _sghmc(values):
    q, p, g, noise, step_size, decay, mass, noise_variance, temperature = values
    variance = 2 * decay * mass * temperature - step_size * step_size * noise_variance
    variance = tl.where(variance < 0, 0.0, variance)
    new = (1 - decay) * p - step_size * g + tl.sqrt(variance) * noise
    return q + step_size * new / mass, new


@triton.jit
def _baoab(values):
    q, p, g, noise, step_size, friction, temperature = values
    decay = tl.exp(-friction * step_size)
    kicked = p - step_size * g
    new = decay * kicked + tl.sqrt(temperature * (1 - decay * decay)) * noise
    return q + 0.5 * step_size * (kicked + new), new


_FORMULAS = {"sgld": (_sgld, 1), "sghmc": (_sghmc, 2), "baoab": (_baoab, 2)}
"""Formula and number of state tensors of each update."""

NAMES = frozenset(_FORMULAS)


def _readable(value: float | Tensor, like: Tensor) -> tuple[Tensor, int]:
    """A tensor that the kernel reads, and how: one number, entry by entry, or by strides."""
    if not isinstance(value, Tensor):
        return _constant(float(value), like.dtype, like.device), _SCALAR.value
    if value.numel() == 1 and like.numel() != 1:
        return value, _SCALAR.value
    expanded = value.expand(like.shape)
    return expanded, _FLAT.value if expanded.is_contiguous() else _STRIDED.value


@functools.lru_cache(maxsize=256)
def _constant(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number on a device; kept, so that constant settings are not sent at every step."""
    return torch.full((), value, dtype=dtype, device=device)


def _check(arguments: dict[str, Any], like: Tensor) -> None:
    if like.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"The 'position' parameter must be float32 or float64; got {like.dtype}.")
    for name, value in arguments.items():
        if isinstance(value, Tensor) and (value.dtype, value.device) != (like.dtype, like.device):
            raise ValueError(
                f"The {name!r} parameter must have the dtype and device of 'position', "
                f"{like.dtype} on {str(like.device)!r}; got {value.dtype} on "
                f"{str(value.device)!r}."
            )
