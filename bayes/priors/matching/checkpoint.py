"""The state of a fit on disk: a safetensors file, from which the fit goes on bit by bit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...storage import StorageError, group, members, read, write

if TYPE_CHECKING:
    from .run import Judge, State

KIND, VERSION = "checkpoint of a prior's fit", 2
_GROUPS = ("best", "parameters", "moments")


def write_checkpoint(
    path: Path, choices: dict[str, Any], state: State, judge: Judge, generator: Tensor
) -> None:
    """Write all that the next step needs."""
    header = {
        "choices": choices,
        "stage": state.stage,
        "step": state.step,
        "stale": state.stale,
        "status": state.status,
        "checks": [asdict(check) for check in state.checks],
        "judge": {"within": judge.within, "seed": judge.seed},
    }
    tensors = {"judge.X": judge.X, "judge.target": judge.target, "generator": generator}
    for name in _GROUPS:  # best parameters may be the current ones: a file shares no tensors
        own = {k: t.clone() for k, t in getattr(state, name).items()}
        tensors |= group(name, own)
    write(path, KIND, VERSION, header, tensors)


def read_checkpoint(path: Path, choices: dict[str, Any]) -> tuple[State, Judge, Tensor]:
    """Read it again.

    Raises
    ------
    StorageError
        If it was written by a fit with other choices; the message names them.
    """
    from .run import Judge, Progress, State

    header, tensors = read(path, KIND, VERSION)
    other = [k for k, v in choices.items() if header["choices"].get(k) != v]
    if other:
        raise StorageError(
            f"The checkpoint {str(path)!r} is of a fit with another "
            f"{', '.join(other)} ({header['choices'].get(other[0])!r}, not "
            f"{choices[other[0]]!r}). Fit as before, or remove the file."
        )
    parts = {name: members(name, tensors) for name in _GROUPS}
    checks = [Progress(**check) for check in header["checks"]]
    state = State(
        header["stage"], header["step"], header["stale"], checks, header["status"], **parts
    )
    judge = Judge(tensors["judge.X"], tensors["judge.target"], **header["judge"])
    return state, judge, tensors["generator"]
