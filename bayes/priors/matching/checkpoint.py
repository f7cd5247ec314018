"""The state of a fit on disk: a safetensors file, from which the fit goes on bit by bit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kernels.checks import check_int, check_real

from ...headers import from_document
from ...storage import (
    StorageError,
    check_tensors,
    group,
    like,
    members,
    read,
    understanding,
    write,
)

if TYPE_CHECKING:
    from .run import Judge, Run, State

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
    for name in _GROUPS:
        tensors |= group(name, getattr(state, name))
    write(path, KIND, VERSION, header, tensors)


def read_checkpoint(path: Path, run: Run, choices: dict[str, Any]) -> tuple[State, Judge, Tensor]:
    """Read it again, for a run with these choices.

    Raises
    ------
    StorageError
        If the file is torn, changed, or was written by a fit with other choices; the message names
        them.
    """
    from .run import N_HELD_OUT, Judge, Progress, State

    header, tensors = read(path, KIND, VERSION)
    with understanding(path):
        other = [k for k, v in choices.items() if header["choices"].get(k) != v]
        if other:
            raise StorageError(
                f"The checkpoint {str(path)!r} is of a fit with another "
                f"{', '.join(other)} ({header['choices'].get(other[0])!r}, not "
                f"{choices[other[0]]!r}). Fit as before, or remove the file."
            )
        parts = {name: members(name, tensors) for name in _GROUPS}
        own = dict(run.prior.named_parameters())
        moments = group("first", own) | group("second", own)
        moments = {k: v for k, v in moments.items() if k in parts["moments"]}  # 0 if not there
        width = run.n_measurement * run.prior.net.n_outputs
        X = tensors["judge.X"]
        expected = like(
            {
                **group("best", own),
                **group("parameters", own),
                **group("moments", moments),
                "generator": run.generator.get_state(),
                "judge.target": torch.empty(N_HELD_OUT, width),
                "judge.X": X.new_empty(run.n_measurement, *X.shape[1:], dtype=torch.float64),
            }
        )
        check_tensors(tensors, expected)
        state = State(
            check_int("stage", header["stage"], 0, len(run.methods)),
            check_int("step", header["step"], 0),
            check_int("stale", header["stale"], 0),
            [from_document(Progress, check) for check in header["checks"]],
            [str(sentence) for sentence in header["status"]],
            **parts,
        )
        if not state.checks:
            raise ValueError("There must be a check at least; got none.")
        judge = header["judge"]
        within = check_real("within", judge["within"])
        seed = check_int("seed", judge["seed"], 0)
        return state, Judge(X, tensors["judge.target"], within, seed), tensors["generator"]
