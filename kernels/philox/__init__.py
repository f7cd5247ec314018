"""Counter-based random numbers: the same stream on a CPU and inside a GPU kernel.

A `Stream` is an address, not a state: nothing has to be drawn before entry j, and any kernel may
draw it. `naive` has the generator in plain PyTorch, `triton` inside kernels; words and uniforms
agree to the bit, normals up to the rounding of logarithm, sine and cosine.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .. import gpu
from ..checks import check_int
from . import naive

__all__ = ["Stream"]


@dataclass(frozen=True)
class Stream:
    """An endless sequence of random numbers.

    Parameters
    ----------
    seed : int
        In [0, 2^64).
    number : int
        Which of the seed's streams, in [0, 2^32): the step of a chain, for instance.

    Raises
    ------
    ValueError
        If the seed or the number is out of range.

    Examples
    --------
    >>> import torch
    >>> like = torch.empty(0, dtype=torch.float64)
    >>> Stream(7, number=3).normal((2, 3), like).shape
    torch.Size([2, 3])
    >>> bool((Stream(7).normal((3,), like) == Stream(7).normal((9,), like)[:3]).all())
    True
    """

    seed: int
    number: int = 0

    def __post_init__(self) -> None:
        check_int("seed", self.seed, 0, 2**64 - 1)
        check_int("number", self.number, 0, 2**32 - 1)

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """The first standard normals of the stream, of this shape in row-major order, in the
        dtype and on the device of ``like``."""
        if like.is_cuda and gpu.is_available(like.device):
            from . import triton

            return triton.normal(self.seed, self.number, shape, like)
        return naive.normal(self.seed, self.number, shape, like)
