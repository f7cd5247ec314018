r"""Data of a gated Gaussian mixture of experts, each observation from its own counter.

The random words of observation n are those of the counters (n, 0), (n, 1), ... of a
`kernels.philox.Stream`, one after the other. They make, in this order,

* the D features: one word each for a uniform design; for a normal one a pair of words makes two,
* u, which chooses the expert: the first e with :math:`u < g_1(x) + \dots + g_e(x)`,
* from the next pair that starts at an even place, the noise of the response.

So any stretch of the data can be drawn alone, and a likelihood needs none of it stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import gating
from ..checks import check_choice, check_count, check_real
from ..gating import Evaluation, GateForm, Order
from ..gating import naive as gating_naive
from ..philox import Stream
from ..philox import naive as philox

CHUNK = 2**16
"""Observations drawn at once."""


@dataclass(frozen=True)
class Design:
    """Independent features: location + spread * u.

    Parameters
    ----------
    law : {"uniform", "normal"}
        Of u: uniform on (0, 1), or standard normal.
    location, spread : float
        In the feature's unit; spread > 0.
    n_features : int
        D.
    """

    law: Literal["uniform", "normal"] = "uniform"
    location: float = 0.0
    spread: float = 1.0
    n_features: int = 1

    def __post_init__(self) -> None:
        check_choice("law", self.law, ("uniform", "normal"))
        check_real("location", self.location)
        check_real("spread", self.spread, low=0.0, strict=True)
        check_count("n_features", self.n_features)


@dataclass(frozen=True, eq=False)
class Truth:
    """Where data come from.

    Parameters
    ----------
    params : Tensor
        (P,) flat parameters as `kernels.gating.Layout` has them.
    form : GateForm
    design : Design
    """

    params: Tensor
    form: GateForm
    design: Design


def draw(
    truth: Truth,
    stream: Stream,
    start: int,
    stop: int,
) -> tuple[Tensor, Tensor]:
    """Observations ``start`` to ``stop``: x (1, D, n) and y (1, n)."""
    params, design = truth.params[None], truth.design
    index = torch.arange(start, stop, device=params.device)
    words = _words(stream, index)
    features, used = _features(words, design, params.dtype)
    x = torch.stack(features)[None]
    chooser = philox.uniform(next(words), params.dtype)
    if used % 2 == 0:
        next(words)
    noise = philox.normal_pair(next(words), next(words), params.dtype)[0]

    layout = gating.layout_of(truth.form, params, x)
    cumulative = torch.exp(gating_naive.log_gate(params, truth.form, x, layout)).cumsum(1)[0]
    expert = (chooser * cumulative[-1] >= cumulative).sum(0).clamp_(max=layout.n_experts - 1)
    _, slope, intercept, log_scale, _ = layout.split(params[0])
    mean = intercept[expert] + (slope[expert].T * x[0]).sum(0)
    return x, (mean + torch.exp(log_scale)[expert] * noise)[None]


def evaluate(
    params: Tensor,  # (B, P)
    form: GateForm,
    truth: Truth,
    stream: Stream,
    n: int,
    order: Order = "gradient",
) -> Evaluation:
    """As `kernels.simulate.evaluate`, chunk by chunk."""
    total: dict[str, Tensor] = {}
    rows = torch.zeros(len(params), dtype=torch.long, device=params.device)
    for start in range(0, n, CHUNK):
        x, y = draw(truth, stream, start, min(start + CHUNK, n))
        part = gating.evaluate(params.detach(), form, x, y, rows, order=order)
        for name, value in vars(part).items():
            if value is not None:
                total[name] = total.get(name, 0) + value.double()
    return Evaluation(**{name: value.to(params.dtype) for name, value in total.items()})


def _words(stream: Stream, index: Tensor) -> Iterator[Tensor]:
    slot = 0
    while True:
        yield from philox.words(stream.seed, stream.number, index, slot)
        slot += 1


def _features(
    words: Iterator[Tensor], design: Design, dtype: torch.dtype
) -> tuple[list[Tensor], int]:
    """The features and how many words they took."""
    if design.law == "uniform":
        standard = [philox.uniform(next(words), dtype) for _ in range(design.n_features)]
        used = design.n_features
    else:
        pairs = [
            philox.normal_pair(next(words), next(words), dtype)
            for _ in range((design.n_features + 1) // 2)
        ]
        standard = [z for pair in pairs for z in pair][: design.n_features]
        used = 2 * len(pairs)
    return [design.location + design.spread * u for u in standard], used
