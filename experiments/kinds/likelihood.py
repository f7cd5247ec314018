r"""Kind `likelihood`: log-likelihood, score and Hessian at the truth, on data that are never held.

A pass over n observations is `kernels.simulate.evaluate`: each observation is drawn from its own
counter where it is used, so memory does not grow with n, and a result depends neither on workers
nor, but for rounding, on how a pass is cut. With the mean score s, the mean Hessian H and the
Fisher information I, which is found without data, by quadrature, a row holds

.. math:: \sqrt{s' I^+ s}, \qquad n\, s' I^+ s, \qquad
          d^{-1/2}\, \|I^{+1/2} (-H - I)\, I^{+1/2}\|_F.

At the truth the first and the last are of order :math:`n^{-1/2}`; the second has mean d = rank I,
and the chi-squared law with d degrees of freedom as n grows. Arm "displaced" is a negative control:
its parameters are all off by a constant, and its score does not vanish.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field, model_validator

from experiments.kinds import Batch, Cell, ProfileModel, SettingModel
from experiments.simulation import DesignSetting, TruthSetting, truth
from experiments.study import Study

ARMS = ("truth", "displaced")

MAX_DISPLACED = 10**6
"""Observations up to which the control is evaluated: its score is no smaller beyond."""

N_POINTS, N_NODES = 2_000, 64
"""Of the quadrature over x, and over y for each expert."""

NULL = 1e-9
"""Eigenvalue of the information, over the largest, below which a direction is an invariance."""


class LikelihoodSetting(SettingModel):
    """What is simulated, and how far off the control is."""

    design: DesignSetting
    truth: TruthSetting
    displacement: float = Field(gt=0, description="added to every parameter of the control")

    @model_validator(mode="after")
    def _builds(self) -> LikelihoodSetting:
        truth(self)
        if self.design.n_features != 1:
            raise ValueError(
                "n_features must be 1, for the information is found by quadrature; got "
                f"{self.design.n_features}"
            )
        return self


class LikelihoodProfile(ProfileModel):
    """Sample sizes and number of replicates, the latter in fives so that batches are full."""

    sizes: tuple[int, ...] = Field(min_length=1)
    replicates: int = Field(ge=5, multiple_of=5)


class Likelihood:
    """See the module's docstring."""

    name = "likelihood"
    revision = 1
    Setting = LikelihoodSetting
    Profile = LikelihoodProfile

    def batches(self, setting: LikelihoodSetting, profile: LikelihoodProfile) -> list[Batch]:
        """Replicates in fives up to 100,000 observations, then one by one."""
        made = []
        for n in profile.sizes:
            count = 5 if n <= 100_000 else 1
            for first in range(0, profile.replicates, count):
                last = first + count - 1
                cells = [Cell(arm, n, r) for r in range(first, last + 1) for arm in _arms(n)]
                made.append(Batch(f"n{n}-r{first}-{last}", tuple(cells)))
        return made

    def prepare(self, study: Study) -> dict[str, Any]:
        """The information's rank and condition number on its range."""
        import torch

        size = torch.linalg.eigvalsh(_information(study.setting))
        kept = size[size > NULL * size[-1]]
        return {"rank": len(kept), "condition": float(kept[-1] / kept[0])}

    def describe(self, prepared: dict[str, Any]) -> str:
        """What was prepared in a sentence."""
        return (
            f"{prepared['rank']} identified parameters; the Fisher information has condition "
            f"number {prepared['condition']:.3g}."
        )

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        """A pass over each replicate's data, both arms at once."""
        import torch

        from kernels import simulate
        from kernels.philox import Stream

        setting: LikelihoodSetting = study.setting
        true, law = truth(setting), setting.design
        params = true.to_params()
        models = torch.stack([params, params + setting.displacement])
        information = _information(setting)
        root, rank = _inverse_root(information)
        source = simulate.Truth(
            params, true.gate.form, simulate.Design("uniform", law.low, law.high - law.low)
        )
        rows = []
        for n, replicate in dict.fromkeys((cell.n, cell.replicate) for cell in batch.cells):
            n_models = len(_arms(n))
            stream = Stream(study.seed_of(n, replicate, "data", bits=64))
            found: Any = simulate.evaluate(
                models[:n_models], true.gate.form, source, stream, n, order="hessian"
            )
            for value, gradient, hessian in zip(
                found.value, found.gradient, found.hessian, strict=True
            ):
                error = float((root @ gradient / n).norm())
                excess = root @ (-hessian / n - information) @ root
                rows.append(
                    {
                        "mean_log_likelihood": float(value) / n,
                        "score_error": error,
                        "score_statistic": n * error**2,
                        "degrees": rank,
                        "hessian_error": float(excess.norm()) / math.sqrt(rank),
                    }
                )
        return rows


def _arms(n: int) -> tuple[str, ...]:
    return ARMS if n <= MAX_DISPLACED else ARMS[:1]


def _information(setting: LikelihoodSetting) -> Any:
    """Fisher information of the truth per observation; (P, P)."""
    import torch

    from moe_stats.inference.fisher import fisher_information

    law = setting.design
    middle = (torch.arange(N_POINTS, dtype=torch.float64) + 0.5) / N_POINTS
    X = law.low + (law.high - law.low) * middle
    return fisher_information(truth(setting), X[:, None], N_NODES)


def _inverse_root(information: Any) -> tuple[Any, int]:
    """I^{+1/2}, symmetric, and the rank of I."""
    import torch

    size, basis = torch.linalg.eigh(information)
    kept = size > NULL * size[-1]
    root = (basis[:, kept] / size[kept].sqrt()) @ basis[:, kept].mT
    return root, int(kept.sum())


KIND = Likelihood()
