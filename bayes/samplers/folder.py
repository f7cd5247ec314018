"""Draws larger than memory: a folder with a file a chunk, and the state that says which count.

Layout::

    FOLDER/
        draws-<first>.safetensors   (C, n, P), draws first to first + n - 1
        state.safetensors           the run's checkpoint, with the sizes n of the chunks

A chunk is written before the state that counts it, each whole or not at all. Whenever a run is
killed, the state is that of an earlier moment with all draws up to then; a run that goes on from it
takes the rest again, bit by bit the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from kernels.checks import check_int

from .._validation import check_path
from ..storage import StorageError, check_tensors, read, understanding, write
from . import checkpoint

KIND, VERSION = "chunk of draws", 1

CHUNK_BYTES = 2**26
"""Of draws in memory at which a chunk is written."""

RETURNED_BYTES = 2**28
"""Of draws that a run hands back from a folder."""


class DrawFolder:
    """The chunks of a run.

    Parameters
    ----------
    path : path
        Made if it is not there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = check_path("stream_to", path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = error.strerror or error
            raise StorageError(f"The folder {str(path)!r} cannot be made: {why}.") from error
        self.sizes: list[int] = []
        self._waiting: list[Tensor] = []

    @property
    def state(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def is_full(self) -> bool:
        """Whether a chunk's worth of draws waits to be written."""
        return sum(t.numel() * t.element_size() for t in self._waiting) >= CHUNK_BYTES

    def add(self, draws: Tensor) -> None:
        """Draws (C, n, P) that follow those before."""
        self._waiting.append(draws)

    def flush(self) -> None:
        """Write what waits.

        Raises
        ------
        StorageError
            If it cannot be written; the chunks before are intact.
        """
        if not self._waiting:
            return
        draws = torch.cat(self._waiting, 1)
        write(self._chunk(sum(self.sizes)), KIND, VERSION, {}, {"draws": draws})
        self.sizes.append(draws.shape[1])
        self._waiting = []

    def chunks(self, n_draws: int) -> Iterator[Tensor]:
        """The first ``n_draws`` draws, (C, n, P) at a time."""
        first = 0
        shape: tuple[int, int] | None = None
        for size in self.sizes:
            path = self._chunk(first)
            tensors = read(path, KIND, VERSION)[1]
            with understanding(path):
                draws = tensors["draws"]
                n_chains, width = shape or (draws.shape[0], draws.shape[-1])
                dtype = draws.dtype if draws.is_floating_point() else torch.float64
                expected = {"draws": (dtype, (n_chains, size, width))}
                check_tensors(tensors, expected, unbounded=("draws",))  # NaN of stopped chains
                shape = n_chains, width
            if first < n_draws:
                yield draws[:, : n_draws - first]
            first += size

    def stride(self, n_bytes: int) -> int:
        """The smallest k such that every k-th of draws of so many bytes may be handed back."""
        return max(1, -(-n_bytes // RETURNED_BYTES))

    def every(self, k: int, n_draws: int) -> Tensor:
        """Every k-th of the first ``n_draws`` draws, (C, n_draws // k, P)."""
        parts, first = [], 0
        for draws in self.chunks(n_draws):
            parts.append(draws[:, (k - 1 - first) % k :: k].clone())
            first += draws.shape[1]
        return torch.cat(parts, 1)

    def _chunk(self, first: int) -> Path:
        return self.path / f"draws-{first:09d}.safetensors"


def read_draws(path: str | os.PathLike[str]) -> Iterator[Tensor]:
    """The draws of a run with ``stream_to=path``, a chunk (C, n, P) at a time.

    The run may be under way, or have been interrupted: these are the draws up to its last state.

    Raises
    ------
    FileNotFoundError
    StorageError
        If a file is torn or not what it should be.

    Examples
    --------
    >>> import tempfile
    >>> from bayes.samplers import BAOAB, read_draws, sample_density
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = sample_density(
    ...         lambda q: -0.5 * q.square().sum(), torch.zeros(2), BAOAB(0.5), n_chains=4,
    ...         n_draws=500, random_state=0, stream_to=folder)
    ...     total = sum(chunk.sum((0, 1)) for chunk in read_draws(folder))
    >>> torch.allclose(total / 2000, run.mean().float(), atol=1e-5)
    True
    """
    state = check_path("path", path) / "state.safetensors"
    header, _ = read(state, checkpoint.KIND, checkpoint.VERSION)
    folder = DrawFolder(path)
    with understanding(state):
        folder.sizes = checkpoint.chunk_sizes(header)
        n_draws = check_int("n_draws", header["n_draws"], 0, sum(folder.sizes))
    yield from folder.chunks(n_draws)
