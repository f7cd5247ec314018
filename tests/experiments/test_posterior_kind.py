"""Kinds `posterior`, `sampler_bias`, `sampler_speed`: cells end to end, and what is refused."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from bayes.networks import MLP
from experiments.datasets import DataError
from experiments.kinds import Batch, Cell, get_kind, posterior
from experiments.kinds import sampler_bias as bias
from experiments.kinds.posterior import exact_posterior, matched, toy_split
from experiments.rows import tabulate
from experiments.splits import Split, digits_split, uci_split
from experiments.study import StudyError, load_study, study_from_document

STUDIES = (
    "uci-posterior",
    "toy-posterior",
    "digits-posterior",
    "sampler-exactness",
    "sampler-speed",
)


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("profile", ["smoke", "quick", "paper"])
def test_studies_are_shipped_and_cut_into_cells(name, profile):
    batches = load_study(name).batches(profile)
    assert all(len(batch.cells) == 1 for batch in batches)
    keys = {batch.key for batch in batches}
    assert len(keys) == len(batches)


def tiny(name, **sampling):
    """A study with a small network and few steps."""
    document = load_study(name).document()
    setting = document["setting"]
    setting["match_steps"] = 5
    setting["sampling"].update({"n_chains": 2, "thin": 2, "burn_in": 5, **sampling})
    for arm in setting["arms"].values():
        arm.update({"thin": None, "burn_in": None})
    if name == "digits-posterior":
        setting["data"]["n_train"] = 60
        setting["network"]["channels"] = [2]
    else:
        setting["network"]["hidden"] = [5]
    return study_from_document(document)


def cell_row(study, arm, n, replicate=0):
    """The row of a cell, which the store must be able to take."""
    batch = Batch("b", (Cell(arm, n, replicate),))
    rows = get_kind(study.kind).run_batch(study, batch)
    tabulate(study, batch, rows, seconds=1.0)
    (row,) = rows
    return row


def row_of(study, arm, replicate=0, n=8):
    row = cell_row(study, arm, n, replicate)
    assert not {k: v for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
    return row


SLOW = pytest.mark.slow


@pytest.mark.parametrize("arm", ["fg", pytest.param("gpi-g", marks=SLOW), "ensemble"])
def test_digits_are_scored(arm):
    study = tiny("digits-posterior", batch_size=10)
    row = row_of(study, arm)
    assert 0 <= row["ece"] <= 1
    assert 0 < row["accuracy"] <= 1
    assert row == row_of(study, arm) | {k: row[k] for k in row if k.endswith("seconds")}


def test_digits_of_a_replicate_are_its_own():
    one, two = digits_split(100, 0), digits_split(100, 1)
    assert len(one.X) == 100
    assert len(one.X) + len(one.X_test) == 1797
    assert not np.array_equal(one.y, two.y)
    assert one.X.max() == 1.0


@pytest.mark.parametrize("arm", ["gp", "fh", "gpi-g", "ensemble"])
def test_toy_bands(arm):
    row = row_of(tiny("toy-posterior"), arm)
    low, high = (np.array(json.loads(row[k])) for k in ("low", "high"))
    assert len(low) == 100
    assert (low <= high).all()
    assert len(json.loads(row["y"])) == 30


def test_an_arm_is_sampled_as_it_says(monkeypatch):
    """And as all are in what it does not say."""
    seen = []

    def remember(
        net, prior, X, y, sampler, n_chains, n_draws, thin, burn_in, batch_size, **options
    ):
        seen.append((sampler.step_size, thin, burn_in, options["gibbs_every"]))
        raise KeyboardInterrupt

    monkeypatch.setattr("bayes.samplers.sample", remember)
    study = load_study("uci-posterior")
    split = Split(np.zeros((3, 2)), np.zeros(3), np.zeros((3, 2)), np.zeros(3))
    for arm in ("fg", "fh"):
        prior = posterior.family(study.setting.arms[arm], MLP(2, [3], 1))
        with pytest.raises(KeyboardInterrupt):
            posterior.posterior(study, prior, split, Cell(arm, 8, 0))
    assert seen == [(0.015, 25, 700, 10), (0.015, 80, 4000, 10)]


def test_cells_that_run_hot_say_so(monkeypatch):
    study = tiny("toy-posterior")
    monkeypatch.setattr(posterior, "HOT", 1e9)
    assert "status" not in row_of(study, "fg")
    monkeypatch.setattr(posterior, "HOT", -1e9)
    assert row_of(study, "fg")["status"] == "hot"


def test_the_exact_posterior_is_gpytorchs():
    """A second route: gpytorch's own exact inference at the same kernel and noise."""
    import gpytorch

    study = load_study("toy-posterior")
    split = toy_split(study, 0)
    mean, scale = exact_posterior(study, split)
    X, y = torch.from_numpy(split.X), torch.from_numpy(split.y)
    noise = gpytorch.likelihoods.GaussianLikelihood().double()
    noise.noise = study.setting.sampling.noise_variance

    class Exact(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(X, y, noise)
            self.mean = gpytorch.means.ZeroMean()
            self.kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
            self.kernel.base_kernel.lengthscale = study.setting.target.lengthscale
            self.kernel.outputscale = study.setting.target.variance

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    model = Exact().double().eval()
    with torch.no_grad():
        law = model(torch.from_numpy(split.X_test))
    assert torch.allclose(mean, law.mean, atol=1e-5)
    assert torch.allclose(scale, law.stddev, atol=1e-4)
    assert not torch.allclose(mean, torch.zeros_like(mean), atol=0.1)  # not the prior


def uci_folder(path, n=30):
    rng = np.random.default_rng(0)
    place = path / "boston"
    place.mkdir()
    X = rng.standard_normal((n, 3))
    np.savetxt(place / "data.txt", np.c_[X, 10 + 5 * X[:, 0] + 0.1 * rng.standard_normal(n)])
    np.savetxt(place / "index_features.txt", [0, 1, 2], fmt="%d")
    np.savetxt(place / "index_target.txt", [3], fmt="%d")
    np.savetxt(place / "index_train_0.txt", np.arange(n - 5), fmt="%d")
    np.savetxt(place / "index_test_0.txt", np.arange(n - 5, n), fmt="%d")
    return path


def test_uci_splits_are_standardised_by_their_training_rows(tmp_path, monkeypatch):
    uci_folder(tmp_path)
    split = uci_split("boston", 0, tmp_path)
    assert split.X.mean(0) == pytest.approx([0, 0, 0], abs=1e-12)
    assert split.X.std(0) == pytest.approx([1, 1, 1])
    assert split.y.std() == pytest.approx(1)
    data = np.loadtxt(tmp_path / "boston" / "data.txt")
    back = split.y_test * split.scale + data[:25, 3].mean()
    assert back == pytest.approx(data[25:, 3])
    assert abs(split.y_test.mean()) > 1e-6  # not by their own
    monkeypatch.setenv("MOEBIUS_UCI", str(tmp_path))
    assert np.array_equal(uci_split("boston", 0).X, split.X)


@pytest.mark.parametrize(
    "arm", ["fg", "ensemble", *(pytest.param(a, marks=SLOW) for a in ("gpi-h", "gpi-nf"))]
)
def test_regression_is_scored_in_its_own_units(arm, tmp_path, monkeypatch):
    monkeypatch.setenv("MOEBIUS_UCI", str(uci_folder(tmp_path)))
    row = row_of(tiny("uci-posterior"), arm)
    assert row["rmse"] > 0
    assert math.isfinite(row["nll"])
    assert 0 <= row["coverage"] <= 1


def sharpest(prior):
    """The largest curvature of -log p, in units of the prior's scales, at four of its draws."""
    scale = prior.gaussian_scale().detach()
    slope = torch.func.grad(lambda q: -prior.log_prob(scale * q).sum())
    q = prior.sample(4, 0) / scale
    v = torch.ones_like(q)
    for _ in range(30):  # of the power method, each draw its own
        v = torch.func.jvp(slope, (q,), (v / v.norm(dim=1, keepdim=True),))[1].detach()
    return float(v.norm(dim=1).max())


@SLOW
@pytest.mark.parametrize(("learning_rate", "stable"), [(None, True), (0.1, False)])
def test_a_flow_is_matched_so_that_the_sampler_can_follow_it(learning_rate, stable):
    """BAOAB is stable where step^2 times curvature is below 4. Control: at 0.1, a rate for
    logarithms of scales, couplings saturate, and the walls of the density pass that by far."""
    study = load_study("uci-posterior")
    arm = study.setting.arms["gpi-nf"]
    change = {"n_functions": 128} | ({"learning_rate": learning_rate} if learning_rate else {})
    methods = (arm.methods[0], arm.methods[1].model_copy(update=change))
    X = np.random.default_rng(0).standard_normal((60, 5))
    prior = matched(
        study, arm.model_copy(update={"methods": methods}), MLP(5, [30], 1),
        Split(X, X[:, 0], X, X[:, 0]), Cell("gpi-nf", 8, 0),
    )  # fmt: skip
    ratio = study.setting.sampling.step_size**2 * sharpest(prior)
    assert ratio < 1 if stable else ratio > 4


def test_missing_data_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("MOEBIUS_UCI", raising=False)
    study = load_study("uci-posterior")
    with pytest.raises(DataError, match=r"set the environment variable MOEBIUS_UCI.*index_target"):
        get_kind("posterior").prepare(study)
    with pytest.raises(DataError, match=r"there is no .*data\.txt"):
        uci_split("boston", 0, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {"gp": {"family": "gaussian"}}}, "no arm may be called 'gp'"),
        ({"target": {"law": "hierarchical-rbf"}}, "target.law = 'rbf'"),
        ({"sampling": {"sampler": "sgld", "friction": 1.0}}, "no such option"),
        ({"sampling": {"step_size": 0.0}}, "greater than 0"),
    ],
)
def test_bad_settings(change, message):
    document = load_study("toy-posterior").document()
    for key, value in change.items():
        document["setting"][key] = {**document["setting"][key], **value}
    with pytest.raises(StudyError, match=message):
        study_from_document(document)


def bias_row(arm, n, replicate=0):
    return cell_row(load_study("sampler-exactness"), arm, n, replicate)


@pytest.mark.parametrize("arm", ["gaussian-sgld-noise", "gaussian-sghmc-noise", "gaussian-baoab"])
def test_biases_on_a_gaussian_are_the_closed_forms(arm):
    """Null: the bias is the closed form's. Statistic: in standard errors; 5 has a false-alarm
    probability of 6e-7. Control: twice the bias, or for none, one of 0.05."""
    row = bias_row(arm, 0)
    assert abs(row["bias"] - row["predicted"]) < 5 * row["standard_error"]
    wrong = 2 * row["predicted"] or 0.05
    assert abs(row["bias"] - wrong) > 5 * row["standard_error"]


@pytest.mark.parametrize("arm", ["tanh-baoab-momentum", "tanh-sgnht-momentum"])
def test_momenta_are_cold_at_the_second_order(arm):
    """Null: halving the step quarters the bias of the mean square of a momentum, which is -0.12
    and -0.15 at the larger one. Statistic: its difference from 0 in standard errors; 5 has a
    false-alarm probability of 6e-7 and leaves room for the fourth order. Control: half."""
    large = bias_row(arm, 0)
    small = pd.DataFrame([bias_row(arm, 1, r) for r in range(4)])
    bias = small["bias"].mean()
    error = math.hypot(small["standard_error"].mean() / 2, large["standard_error"] / 4)
    assert abs(bias - large["bias"] / 4) < 5 * error
    assert abs(bias - large["bias"] / 2) > 5 * error


@pytest.mark.parametrize("sampler", ["sgld", "sghmc"])
@pytest.mark.parametrize("v", [0.0, 1.3])
def test_closed_forms_solve_the_recursion(sampler, v):
    """Iterating the second moments of the linear recursion ends there."""
    options = {} if sampler == "sgld" else {"momentum_decay": 0.3}
    arm = bias.BiasArm(
        target="gaussian", sampler=sampler, step_size=0.4, thin=1, precision=0.7,
        noise_variance=v, options=options,
    )  # fmt: skip
    h, lam, a = 0.4, 0.7, 0.3
    if sampler == "sgld":
        F, Q = np.array([[1 - h * lam]]), np.array([[2 * h + h**2 * v]])
    else:
        F = np.array([[1 - h**2 * lam, h * (1 - a)], [-h * lam, 1 - a]])
        Q = (2 * a + h**2 * v) * np.array([[h**2, h], [h, 1.0]])
    S = np.zeros_like(Q)
    for _ in range(2000):
        S = F @ S @ F.T + Q
    assert bias.closed_form(arm, h) == pytest.approx(S[0, 0], rel=1e-9)


def test_quadrature_agrees_with_a_finer_grid():
    axis = torch.linspace(-9, 9, 1201, dtype=torch.float64)
    values = bias.log_density(torch.cartesian_prod(axis, axis))
    fine = float((torch.softmax(values, 0) * values).sum())
    assert bias.by_quadrature() == pytest.approx(fine, abs=1e-9)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"target": "gaussian", "sampler": "mclmc"}, "no closed form for mclmc"),
        ({"target": "tanh", "sampler": "sgld", "noise_variance": 1.0}, "noise_variance is for"),
        ({"target": "tanh", "sampler": "sgld", "options": {"mass": 1.0}}, "no such option"),
        ({"target": "tanh", "sampler": "sghmc", "quantity": "momentum"}, "'momentum' is for"),
    ],
)
def test_bad_arms(arm, message):
    with pytest.raises(ValidationError, match=message):
        bias.BiasArm(step_size=0.1, thin=1, **arm)


def test_speed_is_timed():
    study = load_study("sampler-speed")
    document = study.document()
    document["setting"]["n_steps"] = 8
    study = study_from_document(document)
    for arm in ("sghmc", "mclmc-full"):
        assert cell_row(study, arm, 2)["rate"] > 0
    document["setting"]["arms"]["mclmc-full"]["batch_size"] = 4
    with pytest.raises(StudyError, match="needs full batches"):
        study_from_document(document)
