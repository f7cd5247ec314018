"""The second stage of a pass: how observations are dealt out to programs, and their sums added.

A program adds up a run of blocks of observations for one model: in tiles, one for every column of
the gradient. At the end it writes the sums of its tiles, which are added here, in float64. No
number is added atomically, so a result is the same every time, and it does not depend on the other
models of a batch.

In float32 at most `_MAX_RUN` terms are added in a row before they enter a sum in float64. That
bounds the error of a sum by half as many units of rounding of its terms, however many there are;
log-likelihoods are added in float64 throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import triton
from torch import Tensor

from .form import Layout

THREADS = 128

_REGISTERS = 200
"""What a thread has, of 32 bits, for its parameters, and for the features and partial sums of the
one to four observations it handles at once."""

_MAX_RUN = 64
"""Blocks of observations that one program adds up."""

_MIN_PROGRAMS = 1024
"""Programs of a model below which runs are kept shorter, so that all of a GPU has work."""

_MAX_COLUMNS = 24
"""Gradient columns of a launch: what fits in registers. Wider models are passed over again."""

_MAX_PARTIAL = 2**24
"""Partial sums of a launch (128 MiB); longer data are passed over in slices."""

Launch = Callable[..., None]
"""``launch(sums, start, first, values, columns)`` runs every program from observation ``start`` on
and writes sums (B, programs) of log-likelihoods and (B, programs, count, E) of the columns
``first`` to ``first + count``."""


@dataclass(frozen=True)
class Sums:
    """Sums over n observations for each of B models.

    Parameters
    ----------
    params : Tensor
        (B, P).
    layout : Layout
    n : int
    """

    params: Tensor
    layout: Layout
    n: int

    @property
    def experts(self) -> int:
        """Experts of a tile: the next power of two."""
        return triton.next_power_of_2(self.layout.n_experts)

    @property
    def block(self) -> int:
        """Observations of a tile, a power of two."""
        layout = self.layout
        free = 4 * _REGISTERS // self.params.element_size() - layout.width
        each = layout.n_features + min(layout.width, _MAX_COLUMNS) + 8
        at_once = 4 if free >= 4 * each else 2 if free >= 2 * each else 1
        return max(1, THREADS * at_once // self.experts)

    @property
    def run_length(self) -> int:
        """Tiles that a program adds up."""
        return max(1, min(_MAX_RUN, self.n // (self.block * _MIN_PROGRAMS)))

    @property
    def constants(self) -> dict[str, object]:
        """What every kernel of a pass is compiled for, beside the model's own."""
        return {
            "EXPERTS": self.experts,
            "BLOCK": self.block,
            "num_warps": THREADS // 32,
            "enable_fp_fusion": True,
        }

    def run(self, launch: Launch, *, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Log-likelihoods (B,) and gradients (B, P)."""
        layout, dtype = self.layout, self.params.dtype
        width = layout.width + layout.n_shared if with_gradient else 0
        value, columns = self._columns(launch, 0, min(width, _MAX_COLUMNS))
        if not with_gradient:
            return value.to(dtype), None
        others = [
            self._columns(launch, first, min(width - first, _MAX_COLUMNS))[1]
            for first in range(_MAX_COLUMNS, width, _MAX_COLUMNS)
        ]
        columns = torch.cat([columns, *others], 1)  # (B, width + Qs, E)
        own, shared = columns[:, : layout.width], columns[:, layout.width :]
        return value.to(dtype), torch.cat([own.mT.flatten(1), shared.sum(-1)], -1).to(dtype)

    def of_rows(self, launch: Callable[[int, Tensor], None], n_rows: int, count: int) -> Tensor:
        """Sums (B, n_rows, count, E) of what ``launch(start, parts)`` writes, the programs of a
        launch in the third of five dimensions."""
        shape = (len(self.params), n_rows, count, self.layout.n_experts)
        total = self.params.new_zeros(shape, dtype=torch.float64)
        for start, length in self._slices(total.numel()):
            parts = total.new_empty((*shape[:2], length, *shape[2:]))
            launch(start, parts)
            total += parts.sum(2)
        return total

    def _columns(self, launch: Launch, first: int, count: int) -> tuple[Tensor, Tensor]:
        batch, n_experts = len(self.params), self.layout.n_experts
        new_zeros = partial(self.params.new_zeros, dtype=torch.float64)
        value, columns = new_zeros((batch,)), new_zeros((batch, count, n_experts))
        for start, length in self._slices(value.numel() + columns.numel()):
            values = value.new_empty((batch, length))
            parts = value.new_empty((batch, length, count, n_experts))
            launch(self, start, first, values, parts)
            value += values.sum(1)
            columns += parts.sum(1)
        return value, columns

    def _slices(self, written: int) -> Iterator[tuple[int, int]]:
        """First observation and programs, for each model, of every launch, where a program of all
        models writes so many numbers; none where they write nothing."""
        per_program = self.block * self.run_length
        n_programs = triton.cdiv(self.n, per_program)
        most = max(1, _MAX_PARTIAL // max(1, written))
        for first in range(0, n_programs if written else 0, most):
            yield first * per_program, min(most, n_programs - first)
