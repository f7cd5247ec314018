"""Information and Hessian as pairs of gradient columns: which there are, and where they go.

`triton_second` sums products of two columns, c <= d, over observations: of column d of one expert,
or of a shared parameter, and column c of every expert. A launch handles `MAX_PAIRS` such pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from .form import GateForm, Layout, Order
from .triton_form import translate_curvature
from .triton_sums import Sums

MAX_COLUMNS = 24
"""Columns of an expert, shared ones included, up to which there is a kernel: 10 features of a
softmax gate. What wider models need is the product of large matrices, which a library does better,
and every 24 pairs are a kernel to compile."""

MAX_PAIRS = 24
"""Pairs of a launch: what fits in registers."""

Launch = Callable[[Sums, dict[str, Any], int, Tensor], None]
"""``launch(sums, constants, start, parts)`` runs every program from observation ``start`` on and
writes sums ``parts`` (B, rows, programs, pairs, E)."""


@dataclass(frozen=True)
class _Pair:
    """Columns c <= d, and whether their entries are the information's or the Hessian's."""

    c: int
    d: int
    expected: bool


def matrices(
    launch: Launch,
    sums: Sums,
    form: GateForm,
    order: Order,
) -> tuple[Tensor, Tensor | None]:
    """Information and, if asked for, Hessian of each model, both (B, P, P).

    Parameters
    ----------
    launch : callable
        See `Launch`.
    sums : Sums
        How observations are dealt out.
    form : GateForm
    order : {"information", "hessian"}
    """
    layout = sums.layout
    curvature, curved = translate_curvature(form, layout.n_features)
    gate = [*range(layout.n_own), *range(layout.width, layout.width + layout.n_shared)]
    entries = {(gate[q], gate[s]): place for (q, s), place in curved.items()}
    information, hessian = (
        sums.params.new_zeros((len(sums.params), layout.size, layout.size), dtype=torch.float64)
        for _ in range(2)
    )
    for shared_row in (False, True) if layout.n_shared else (False,):
        pairs = _pairs(layout, shared_row, order)
        for first in range(0, len(pairs), MAX_PAIRS):
            group = pairs[first : first + MAX_PAIRS]
            places = [-1 if p.expected else entries.get((p.c, p.d), -1) for p in group]
            flat = [(p.c, p.d, p.expected, i) for p, i in zip(group, places, strict=True)]
            constants = {
                "CURVATURE": curvature,
                "PAIRS": tuple(chain.from_iterable(flat)),
                "COUNT": len(group),
                "SHARED_ROW": shared_row,
            }
            n_rows = 1 if shared_row else layout.n_experts
            found = sums.of_rows(partial(launch, sums, constants), n_rows, len(group))
            for place, pair in enumerate(group):
                half = information if pair.expected else hessian
                _put(half, found[:, :, place], pair, layout)
    whole = [(half + half.mT).to(sums.params.dtype) for half in (information, hessian)]
    return whole[0], whole[1] if order == "hessian" else None


def _pairs(layout: Layout, shared_row: bool, order: Order) -> list[_Pair]:
    """The pairs of a row, those of the information first: two gate parameters, two of a mean, or a
    scale twice; its other entries are zero."""
    scale = layout.width - 1
    columns = range(layout.width + layout.n_shared)
    kinds = [
        "mean" if layout.n_own <= c < scale else "scale" if c == scale else "gate" for c in columns
    ]
    every = [
        _Pair(c, d, expected=False)
        for d in columns
        for c in columns[: d + 1]
        if (d >= layout.width) == shared_row
    ]
    expected = [replace(pair, expected=True) for pair in every if kinds[pair.c] == kinds[pair.d]]
    return expected + (every if order == "hessian" else [])


def _put(
    half: Tensor,  # (B, P, P)
    part: Tensor,  # (B, rows, E)
    pair: _Pair,
    layout: Layout,
) -> None:
    """Write a pair's entries where those of the mirrored pair do not go."""
    starts = torch.arange(0, layout.n_experts * layout.width, layout.width, device=half.device)
    beyond = (layout.n_experts - 1) * layout.width
    part = 0.5 * part if pair.c == pair.d else part
    if pair.c >= layout.width:
        half[:, beyond + pair.c, beyond + pair.d] = part.sum((1, 2))
    elif pair.d >= layout.width:
        half[:, starts + pair.c, beyond + pair.d] = part[:, 0]
    else:
        half[:, (starts + pair.d)[:, None], starts + pair.c] = part
