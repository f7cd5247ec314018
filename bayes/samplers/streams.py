"""Random numbers addressed by seed and chain.

Every chain has a generator of its own, whose seed depends on the run's seed and the chain's number
alone. So a chain draws the same numbers whatever runs beside it, and a run continued from saved
generator states draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import torch
from torch import Tensor

from kernels.checks import check_int

_STRIDE = 0x9E3779B1  # odd: seeds of different chains differ, modulo 2^32


class ChainStreams:
    """One generator a chain.

    A CPU generator of torch keeps 32 bits of its seed. Chain c takes ``head + c * odd`` modulo
    2^32, so no two chains of a run share a stream.

    Parameters
    ----------
    seed : int
        The run's.
    n_chains : int
        C.
    device : torch.device
        Where numbers are drawn; streams of different kinds of device differ.
    """

    def __init__(self, seed: int, n_chains: int, device: torch.device) -> None:
        digest = hashlib.sha256(f"bayes.samplers/{seed}".encode()).digest()
        head = int.from_bytes(digest[:4], "big")
        self.device = device
        self.generators = [
            torch.Generator(device).manual_seed((head + _STRIDE * chain) % 2**32)
            for chain in range(n_chains)
        ]

    def normal(self, n_steps: int, n_parameters: int, dtype: torch.dtype) -> Tensor:
        """Standard normal numbers (n_steps, C, P)."""
        shape = (len(self.generators), n_steps, n_parameters)
        noise = torch.empty(shape, dtype=dtype, device=self.device)
        for chain, generator in zip(noise, self.generators, strict=True):
            chain.normal_(generator=generator)
        return noise.transpose(0, 1)

    def indices(self, n_steps: int, n_observations: int, batch_size: int) -> Tensor:
        """Observations drawn independently and with replacement, (n_steps, C, batch_size)."""
        shape = (len(self.generators), n_steps, batch_size)
        drawn = torch.empty(shape, dtype=torch.long, device=self.device)
        for chain, generator in zip(drawn, self.generators, strict=True):
            chain.random_(0, n_observations, generator=generator)
        return drawn.transpose(0, 1)

    def uniform(self, n: int, dtype: torch.dtype) -> Tensor:
        """Uniform numbers in [0, 1), (C, n)."""
        numbers = torch.empty(len(self.generators), n, dtype=dtype, device=self.device)
        for row, generator in zip(numbers, self.generators, strict=True):
            row.uniform_(generator=generator)
        return numbers

    def gamma(self, shape: Tensor) -> Tensor:
        """Gamma(shape, 1) numbers, a row of shapes (C, G) a chain."""
        rows = [
            torch._standard_gamma(row, generator=generator)
            for row, generator in zip(shape, self.generators, strict=True)
        ]
        return torch.stack(rows)

    def state(self) -> Tensor:
        """The generators' states, (C, bytes)."""
        return torch.stack([generator.get_state() for generator in self.generators])

    def restore(self, state: Tensor) -> None:
        """Continue from what `state` gave."""
        for generator, own in zip(self.generators, state, strict=True):
            generator.set_state(own.clone())  # of a view torch reads the wrong bytes


def seed_of(random_state: Any) -> int:
    """A run's seed: the given one, or a fresh one for None.

    Raises
    ------
    ValueError
        If ``random_state`` is neither a non-negative int nor None.
    """
    if random_state is None:
        return secrets.randbits(63)
    return check_int("random_state", random_state, 0)
