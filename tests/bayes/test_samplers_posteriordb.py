"""Two linear regressions of posteriordb, against its gold-standard draws.

The folder is that of the environment variable ``MOEBIUS_POSTERIORDB``, or ``../shared/data/
posteriordb`` beside the repository; without it these tests are skipped. Parameters are taken
relative to least squares, in units of its covariance, which BAOAB and MCLMC (unit masses) expect.

Null hypothesis: a mean is that of the reference. Statistic: the difference in combined Monte-Carlo
standard errors, at a step and at its half. It is accepted below 3 for each parameter: over all
parameters of a run, a false-alarm probability of 1 to 2%.
"""

import json
import os
import zipfile
from pathlib import Path

import pytest
import torch

from bayes.samplers import BAOAB, MCLMC, sample_density

ROOT = Path(__file__).parents[2]
FOLDER = Path(
    os.environ.get("MOEBIUS_POSTERIORDB", ROOT.parent / "shared" / "data" / "posteriordb")
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FOLDER.is_dir(), reason=f"no posteriordb at {FOLDER}; set MOEBIUS_POSTERIORDB"
    ),
]
MODELS = ("sblri-blr", "earnings-earn_height")
SAMPLERS = {
    "baoab": lambda step: BAOAB(step, friction=1.0),
    "mclmc": lambda step: MCLMC(step, decoherence_length=2.0),
}


def read(name):
    with zipfile.ZipFile(FOLDER / f"{name}.json.zip") as archive:
        return json.loads(archive.read(archive.namelist()[0]))


class Regression:
    """y ~ N(X beta, sigma^2), beta ~ N(0, prior^2) (flat if None), sigma ~ half N(0, prior^2)."""

    def __init__(self, name):
        data = read(name.split("-")[0] + ".data")
        if name == "sblri-blr":
            self.X, y, self.prior = data["X"], data["y"], 10.0
        else:
            self.X, y, self.prior = [[1.0, h] for h in data["height"]], data["earn"], None
        self.X = torch.tensor(self.X, dtype=torch.float64)
        self.y = torch.tensor(y, dtype=torch.float64)
        n, d = self.X.shape
        self.centre = torch.linalg.lstsq(self.X, self.y[:, None]).solution[:, 0]
        self.residual_scale = (self.y - self.X @ self.centre).square().sum().div(n - d).sqrt()
        inverse = torch.linalg.inv(self.X.T @ self.X)
        self.root = self.residual_scale * torch.linalg.cholesky(inverse)

    def constrain(self, z):
        """(beta, sigma) of whitened parameters (..., D + 1)."""
        sigma = self.residual_scale * torch.exp(z[..., -1:] / (2 * len(self.y)) ** 0.5)
        return self.centre + z[..., :-1] @ self.root.T, sigma

    def log_density(self, z, factor=1.0):
        beta, sigma = self.constrain(z)
        sigma = sigma[:, 0]
        squares = (self.y - beta @ self.X.T).square().sum(1)
        value = -len(self.y) * sigma.log() - factor * 0.5 * squares / sigma.square()
        if self.prior is not None:
            value = value - 0.5 * (beta.square().sum(1) + sigma.square()) / self.prior**2
        return value + sigma.log()  # the Jacobian of log sigma


def deviations(model, name, make, step, factor=1.0):
    start = torch.randn(
        64, model.X.shape[1] + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    run = sample_density(
        lambda z: model.log_density(z, factor),
        start,
        make(step),
        n_draws=150,
        burn_in=100,
        thin=round(2 / step),
        random_state=1,
        batched=True,
    )
    own = torch.cat(model.constrain(run.draws), -1).mean(1)  # (C, D + 1), independent chains
    chains = read(f"{name}.draws")
    columns = [f"beta[{d + 1}]" for d in range(model.X.shape[1])] + ["sigma"]
    reference = torch.tensor([[c[k] for k in columns] for c in chains]).double()  # (10, D+1, S)
    variance = reference.var((0, 2)) / (len(chains) * reference.shape[2])  # its draws are thinned
    error = torch.sqrt(own.var(0) / len(own) + variance)
    return (own.mean(0) - reference.mean((0, 2))) / error


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_means_are_those_of_the_reference(name, sampler):
    model = Regression(name)
    for step in (0.5, 0.25):
        assert float(deviations(model, name, SAMPLERS[sampler], step).abs().max()) < 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_half_the_likelihood_is_rejected(sampler):
    model = Regression("sblri-blr")
    off = deviations(model, "sblri-blr", SAMPLERS[sampler], 0.25, factor=0.5)
    assert float(off.abs().max()) > 3
