"""Checkpoints: all that the next block of steps needs, from which a run goes on bit by bit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.checks import check_int, check_real

from ..storage import (
    StorageError,
    check_tensors,
    group,
    like,
    members,
    read,
    understanding,
    write,
)
from .draws import Divergence, divergences_of

KIND, VERSION = "checkpoint of chains", 3


@dataclass(frozen=True)
class Checkpoint:
    """A run between two blocks."""

    state: Mapping[str, Tensor]
    streams: Tensor
    draws: Tensor  # (C, S, P), or (C, 0, P) if they are in a folder
    potential: Tensor  # (C, S)
    moments: Mapping[str, Tensor]
    at_start: Tensor  # (C,), the potential on all data where chains started
    at_position: Tensor  # (C,), the potential on all data at the state's position
    step: int
    seconds: float
    divergences: tuple[Divergence, ...]
    n_draws: int  # asked for and taken
    chunks: list[int]  # sizes of those in the folder

    def check_potential(self, value: Tensor, path: Any) -> None:
        """Refuse if the potential at the saved positions is not what it was.

        Raises
        ------
        StorageError
        """
        tolerance = 100 * torch.finfo(value.dtype).eps  # the same sums, perhaps in another order
        if not torch.allclose(value.cpu(), self.at_position, rtol=tolerance, equal_nan=True):
            raise StorageError(
                f"{path} is a checkpoint of another density or of other data: at the positions it "
                f"holds the potential was {float(self.at_position[0]):.9g} and now is "
                f"{float(value[0]):.9g}. Choose another file, or remove this one."
            )


def write_checkpoint(
    path: str | os.PathLike[str], checkpoint: Checkpoint, fingerprint: dict[str, Any]
) -> None:
    """Write a checkpoint in place of what may be there.

    Raises
    ------
    StorageError
        If the file cannot be written; the one that was there is intact.
    """
    header = {
        "run": fingerprint,
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "divergences": [asdict(d) for d in checkpoint.divergences],
        "n_draws": checkpoint.n_draws,
        "chunks": checkpoint.chunks,
    }
    write(path, KIND, VERSION, header, _tensors(checkpoint))


def read_checkpoint(
    path: str | os.PathLike[str],
    fingerprint: dict[str, Any],
    fresh: Checkpoint,
    *,
    in_memory: bool,
) -> Checkpoint:
    """Read the checkpoint of a run.

    Parameters
    ----------
    path : path
    fingerprint : dict
        What the run is, in JSON's types.
    fresh : Checkpoint
        Of the same run before its first block: what names, dtypes and shapes there are.
    in_memory : bool
        Whether the draws are in the checkpoint itself, or else in the folder around it.

    Raises
    ------
    StorageError
        If the file is torn, changed, of another format, or of a run with another fingerprint; the
        message names what differs.
    """
    header, tensors = read(path, KIND, VERSION)
    with understanding(path):
        differ = [key for key, value in fingerprint.items() if header["run"].get(key) != value]
        if differ:
            pairs = "; ".join(
                f"{k} was {header['run'].get(k)!r}, now {fingerprint[k]!r}" for k in differ
            )
            raise StorageError(f"{path} is a checkpoint of another run: {pairs}.")
        chunks = chunk_sizes(header)
        n_chains, n_seen = tensors["potential"].shape
        if sum(chunks) != (0 if in_memory else n_seen):
            raise ValueError(f"The chunks must have the {n_seen} draws seen; got {chunks}.")
        expected = like(_tensors(fresh))
        dtype, (_, _, width) = expected["draws"]
        expected["draws"] = dtype, (n_chains, n_seen if in_memory else 0, width)
        expected["potential"] = dtype, (len(fresh.at_start), n_seen)
        moments = tuple(name for name in expected if name.startswith("moments."))
        stopped = ("draws", "potential", "at_start", "at_position")  # chains leave NaN in them
        check_tensors(tensors, expected, unbounded=(*stopped, *moments))
        return Checkpoint(
            members("state", tensors),
            tensors["streams"],
            tensors["draws"],
            tensors["potential"],
            members("moments", tensors),
            tensors["at_start"],
            tensors["at_position"],
            check_int("step", header["step"], 0),
            check_real("seconds", header["seconds"], low=0),
            divergences_of(header, n_chains),
            check_int("n_draws", header["n_draws"], 0, n_seen),
            chunks,
        )


def chunk_sizes(header: dict[str, Any]) -> list[int]:
    """Sizes of the chunks in a folder of draws, by the header of its state."""
    return [check_int("chunks", size, 1) for size in header["chunks"]]


def _tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {
        "streams": checkpoint.streams,
        "draws": checkpoint.draws,
        "potential": checkpoint.potential,
        "at_start": checkpoint.at_start,
        "at_position": checkpoint.at_position,
        **group("state", checkpoint.state),
        **group("moments", checkpoint.moments),
    }
