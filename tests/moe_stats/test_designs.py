"""Designs: their law, their quadrature, their seeds."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from moe_stats import Grid, Normal, Uniform

EXACT = 1e-12
"""Quadrature of polynomials of order 1, float64."""

DESIGNS = [Uniform(-0.7, 1.9), Normal(0.4, 1.7), Grid(-0.7, 1.9)]


@pytest.mark.parametrize(
    ("design", "law"),
    [(Uniform(-0.7, 1.9), stats.uniform(-0.7, 2.6)), (Normal(0.4, 1.7), stats.norm(0.4, 1.7))],
)
def test_samples_follow_the_law(design, law, false_alarm):
    """Null: the sample follows the law. Statistic: Kolmogorov-Smirnov. The control, the same
    law moved by a tenth of its standard deviation, must be rejected at the same level."""
    x = design.sample(20_000, random_state=3)[:, 0].numpy()
    assert stats.kstest(x, law.cdf).pvalue > false_alarm
    assert stats.kstest(x + 0.1 * law.std(), law.cdf).pvalue < false_alarm


def test_features_are_independent(false_alarm):
    """Null: no rank correlation between the features; Spearman's test."""
    x = Uniform(0, 1, n_features=2).sample(20_000, random_state=0)
    assert stats.spearmanr(*x.mT.numpy()).pvalue > false_alarm


@pytest.mark.parametrize("design", DESIGNS)
def test_shape_dtype_and_seed(design):
    x = design.sample(37, random_state=5)
    assert x.shape == (37, 1)
    assert x.dtype == torch.float64
    assert torch.equal(x, design.sample(37, random_state=5))
    assert torch.equal(x, design.sample(37, random_state=np.random.default_rng(5)))
    if not isinstance(design, Grid):
        assert not torch.equal(x, design.sample(37, random_state=6))


def test_a_grid_is_even_and_inside():
    x = Grid(-0.7, 1.9).sample(13)[:, 0]
    assert torch.allclose(torch.diff(x), torch.tensor(2.6 / 13).double(), rtol=0, atol=1e-7)
    assert math.isclose(float(x.mean()), 0.6, abs_tol=EXACT)
    plane = Grid(0, 1, n_features=2).sample(9)
    assert len(torch.unique(plane, dim=0)) == 9
    assert torch.allclose(plane.mean(0), torch.tensor([0.5, 0.5]).double(), atol=EXACT)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("breaks", [(), (0.3,), (-5.0, 0.1, 0.1, 30.0)])
def test_quadrature_gives_the_moments(design, breaks):
    nodes, weights = design.quadrature(40, breaks)
    assert nodes.shape == (len(weights), 1)
    law = stats.norm(0.4, 1.7) if isinstance(design, Normal) else stats.uniform(-0.7, 2.6)
    for order in range(5):
        moment = float((weights * nodes[:, 0] ** order).sum())
        assert math.isclose(moment, law.moment(order) if order else 1.0, rel_tol=1e-11), order


def test_quadrature_splits_at_breaks():
    """A jump at a break costs nothing; unsplit, the same rule misses it."""
    design, jump = Uniform(-0.7, 1.9), 0.3
    exact = (1.9 - jump) / 2.6
    errors = []
    for breaks in ([jump], []):
        nodes, weights = design.quadrature(10, breaks)
        errors.append(abs(float((weights * (nodes[:, 0] > jump)).sum()) - exact))
    assert errors[0] < EXACT
    assert errors[1] > 1e-3


@pytest.mark.parametrize(
    "design", [Uniform(n_features=2), Normal(n_features=2), Grid(n_features=2)]
)
def test_quadrature_is_for_one_feature(design):
    with pytest.raises(ValueError, match="n_features=1; got n_features=2"):
        design.quadrature(5)
