"""A second kind, to show that `experiments` knows nothing of mixtures: mean and median of normals.

It can be told to fail in every way that a kind can fail. Workers import it, so it is a module.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.kinds import Batch, Cell, ProfileModel, SettingModel
from experiments.study import Study


class Trouble(SettingModel):
    n: int
    how: Literal["cell", "raise", "die", "short", "mixed", "exit"]


class ToySetting(SettingModel):
    scale: float = 1.3
    delay: float = 0.0
    trouble: tuple[Trouble, ...] = ()


class ToyProfile(ProfileModel):
    sizes: tuple[int, ...]
    replicates: int


class Toy:
    name = "toy"
    revision = 1
    Setting = ToySetting
    Profile = ToyProfile
    group = 3

    def batches(self, setting: ToySetting, profile: ToyProfile) -> list[Batch]:
        batches = []
        for n in profile.sizes:
            for first in range(0, profile.replicates, self.group):
                last = min(first + self.group, profile.replicates) - 1
                cells = [Cell("mean", n, r) for r in range(first, last + 1)]
                cells += [Cell("median", n, r) for r in range(first, last + 1)]
                batches.append(Batch(f"n{n}-r{first}-{last}", tuple(cells)))
        return batches

    def prepare(self, study: Study) -> dict[str, Any]:
        return {"scale": study.setting.scale, "threads": os.environ["OMP_NUM_THREADS"]}

    def describe(self, prepared: dict[str, Any]) -> str:
        return f"normals of scale {prepared['scale']}"

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        if "TOY_PIDS" in os.environ:
            (Path(os.environ["TOY_PIDS"]) / str(os.getpid())).touch()
        setting: ToySetting = study.setting
        time.sleep(setting.delay)
        how = {trouble.n: trouble.how for trouble in setting.trouble}.get(batch.cells[0].n)
        if how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "raise":
            raise FloatingPointError("the \udcff toy broke")
        if how == "exit":
            raise SystemExit(3)
        rows: list[dict[str, Any]] = []
        for cell in batch.cells:
            if how == "cell" and cell.replicate == 1:
                rows.append({"status": "failed", "error": "one bad cell"})
                continue
            rng = np.random.default_rng(study.seed_of(cell.n, cell.replicate, "data"))
            x = rng.normal(scale=setting.scale, size=cell.n)
            rows.append(
                {"estimate": getattr(np, cell.arm)(x), "first": float(x[0]), "size": x.size}
            )
        if how == "short":
            rows.pop()
        if how == "mixed":
            rows[0]["estimate"] = "much"
        return rows


class OneThread(Toy):
    """Reports the threads of a worker."""

    name = "one-thread"

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        from threadpoolctl import threadpool_info

        pools = [pool["num_threads"] for pool in threadpool_info()]
        return [{"threads": max(pools, default=1), "pid": os.getpid()} for _ in batch.cells]


TOY = Toy()
