"""The `likelihood` kind: a batch against stored data, what its settings refuse, and its figure."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2

from experiments.kinds import Batch, Cell, get_kind
from experiments.kinds.likelihood import ARMS, MAX_DISPLACED
from experiments.simulation import truth
from experiments.study import StudyError, load_study, study_from_document
from kernels import simulate
from kernels.philox import Stream
from paper_figures import likelihood as figure
from paper_figures import render

FALSE_ALARM = 1e-5  # of the random check below; the suite's budget is 1e-3

FEW = (200, 1_000, 5_000)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Too small to compile for."""
    monkeypatch.setattr(simulate.naive, "CHUNK", 2**12)


@pytest.fixture(scope="module")
def study():
    return load_study("likelihood-at-scale")


def batch_of(n, replicates, arms=ARMS):
    return Batch("b", tuple(Cell(arm, n, r) for r in replicates for arm in arms))


def rows_of(study, n, replicates):
    batch = batch_of(n, replicates)
    rows = get_kind("likelihood").run_batch(study, batch)
    return [{"arm": c.arm, "n": c.n} | row for c, row in zip(batch.cells, rows, strict=True)]


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper", "beyond"])
def test_batches_cover_every_cell_once_and_are_shared_by_profiles(study, profile):
    wanted = study.profile(profile)
    cells = [cell for batch in study.batches(profile) for cell in batch.cells]
    both = sum(n <= MAX_DISPLACED for n in wanted.sizes)
    assert len(set(cells)) == len(cells) == (len(wanted.sizes) + both) * wanted.replicates
    by_key = {batch.key: batch.cells for p in study.profiles for batch in study.batches(p)}
    assert all(by_key[batch.key] == batch.cells for batch in study.batches(profile))


def test_a_row_is_that_of_data_that_are_held(study):
    """Log-likelihood and score by automatic differentiation of the density, on the drawn data."""
    n, model = 700, truth(study.setting)
    law = simulate.Design("uniform", -1.0, 2.0)
    source = simulate.Truth(model.to_params(), model.gate.form, law)
    x, y = simulate.draw(source, Stream(study.seed_of(n, 1, "data", bits=64)), 0, n)
    params = model.to_params().requires_grad_()
    value = model.with_params(params).log_prob(y[0], x[0].mT).mean()
    (score,) = torch.autograd.grad(value, params)
    wanted = score @ torch.linalg.pinv(information(study), rtol=1e-9, hermitian=True) @ score
    row = rows_of(study, n, [1])[0]
    assert row["mean_log_likelihood"] == pytest.approx(float(value.detach()), rel=1e-12)
    assert row["score_error"] == pytest.approx(float(wanted.detach().sqrt()), rel=1e-9)
    assert row["score_statistic"] == pytest.approx(n * row["score_error"] ** 2, rel=1e-12)
    assert row["degrees"] == 13  # of 15: an intercept and a slope of the gate are not identified
    assert rows_of(study, n, [2])[0]["score_error"] != pytest.approx(row["score_error"], rel=0.01)


def information(study):
    from experiments.kinds.likelihood import _information

    return _information(study.setting)


def test_the_information_is_that_of_many_draws(study):
    """Quadrature against the mean Hessian: H0 that their difference, in units of the information,
    is of order n^-1/2; at n = 40,000 it is below .1. Control: at n = 200 it is not."""
    assert rows_of(study, 40_000, [0])[0]["hessian_error"] < 0.1
    assert rows_of(study, 200, [0])[0]["hessian_error"] > 0.1


def test_rows_depend_neither_on_batches_nor_on_chunks(study, monkeypatch):
    together = rows_of(study, 900, [0, 1])
    assert together == rows_of(study, 900, [0]) + rows_of(study, 900, [1])
    monkeypatch.setattr(simulate.naive, "CHUNK", 77)
    for row, again in zip(together, rows_of(study, 900, [0, 1]), strict=True):
        assert list(row.values())[2:] == pytest.approx(list(again.values())[2:], rel=1e-9)


def test_the_score_is_centred_at_the_truth_alone(study):
    """H0: the sum of R statistics is chi-squared with R d degrees of freedom. Control: parameters
    displaced by .02."""
    table = pd.DataFrame(rows_of(study, 10_000, range(5)))
    for arm, part in table.groupby("arm"):
        tail = chi2.sf(part["score_statistic"].sum(), part["degrees"].sum())
        assert (FALSE_ALARM / 2 < tail < 1 - FALSE_ALARM / 2) == (arm == "truth")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("design", {"low": -1.0, "high": 1.0, "n_features": 2}, "n_features must be 1"),
        ("displacement", 0.0, "greater than 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(study, key, value, words):
    document = study.document()
    document["setting"][key] = value
    with pytest.raises(StudyError, match=words):
        study_from_document(document, "test")


def made(rng, covariance=1.0, replicates=40):
    """A stored table, its scores with a covariance that is the information times a factor."""
    rows = []
    for n in FEW:
        for arm in ARMS:
            spread = (np.arange(replicates) + 0.5) / replicates
            statistic = covariance * chi2.ppf(spread, 13)  # a law's quantiles, without luck
            statistic = statistic + 0.1 * n if arm == "displaced" else statistic
            error = np.sqrt(rng.chisquare(20, replicates) / n)
            error = error + 0.3 if arm == "displaced" else error
            rows += [
                {"arm": arm, "n": n, "status": "ok", "degrees": 13, "hessian_error": e}
                | {"score_statistic": s, "score_error": np.sqrt(s / n)}
                for s, e in zip(statistic, error, strict=True)
            ]
    return pd.DataFrame(rows)


def test_the_figure_and_its_verdicts(study, tmp_path):
    prepared = {"rank": 13, "condition": 440.0}
    table = made(np.random.default_rng(0))
    found = render(study, "quick", table, prepared, tmp_path)
    names = [path.name for path in found.files]
    assert names == [f"quick-likelihood{end}" for end in (".pdf", ".png", ".csv", "-ratios.csv")]
    assert all(path.stat().st_size > 0 for path in found.files)
    status = found.summary.set_index(["arm", "role", "quantity"])["verdict"].sort_index()
    assert (status["truth", "predicted"] == "consistent").all()
    assert (status["truth", "control"] == "inconsistent").all()
    assert (status["displaced"] == "inconsistent").all()
    assert "3 predictions consistent, 0 inconsistent" in found.headline
    assert "5 of 5 controls rejected. 0 of 240 cells failed." in found.headline


@pytest.mark.parametrize(("covariance", "status"), [(1.0, "consistent"), (1.3, "inconsistent")])
def test_a_covariance_that_is_not_the_information_is_told(covariance, status):
    table = made(np.random.default_rng(1), covariance)
    found = figure.covariance_verdicts(table).set_index("arm").loc["truth"]
    assert found["verdict"] == status
    assert found["low"] < covariance < found["high"]
    few = made(np.random.default_rng(1), covariance, replicates=1)
    few = figure.covariance_verdicts(few).set_index("arm").loc["truth"]
    assert few["verdict"] == "inconclusive"  # three scores: their interval is too wide
