"""Plots of a fit: what is drawn is what the model says, and none needs colour to be read."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import chi2
from sklearn.exceptions import NotFittedError

from moe_stats import (
    GaussianMoE,
    GaussianMoERegressor,
    LinearExperts,
    SoftmaxGate,
    TopKGate,
    Uniform,
)
from moe_stats.plots import (
    COLOURS,
    HATCHES,
    LINES,
    MARKERS,
    SILENT,
    plot_dendrogram,
    plot_experts,
    plot_gate,
    plot_partition,
    plot_profile_likelihood,
    plot_responsibilities,
)
from moe_stats.selection import dendrogram

GRID = 2e-2
"""How far a boundary may be drawn from where it is: a cell of the map, of a range of 2 and 250
cells, and the rounding of its corners."""


@pytest.fixture
def ax():
    return Figure().subplots()


def fitted(model, n=80, seed=0, columns=None):
    """An estimator that holds a given model, with data drawn from it."""
    X = Uniform(-1, 1, n_features=model.n_features).sample(n, seed)
    y = model.sample(X, seed + 1).numpy()
    X = X.numpy() if columns is None else pd.DataFrame(X.numpy(), columns=columns)
    short = GaussianMoERegressor(1, n_init=1, n_rounds=0, random_state=0).fit(X, y)
    short.model_ = model
    return short, X, y


ONE = GaussianMoE(
    SoftmaxGate([1.0, 0.0], [[5.0], [0.0]]), LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4])
)
TWO = GaussianMoE(
    SoftmaxGate([0.0, 0.5], [[3.0, 1.0], [0.0, -1.0]]),
    LinearExperts([[2.0, 1.0], [-1.0, 0.0]], [1.0, 0.2], [0.3, 0.4]),
)
SELECTS = GaussianMoE(
    TopKGate([0.2, 0.0, -0.3], [[2.0], [0.0], [-2.0]], top_k=2, rank="slope"),
    LinearExperts([[3.0], [-2.0], [1.0]], [4.0, 0.0, -4.0], [0.4, 0.5, 0.45]),
)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def lines(ax, label):
    return [line for line in ax.get_lines() if line.get_label() == label]


def test_styles_tell_experts_apart_without_colour():
    for styles in (COLOURS, LINES, MARKERS, HATCHES):
        assert len(set(styles)) == len(COLOURS)


def test_matplotlib_is_imported_when_something_is_drawn():
    code = "import moe_stats.plots, sys; print('matplotlib' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "False", printed.stderr


def test_a_strip_changes_where_the_leader_does(ax):
    """At x = -0.2, where 1 + 5 x = 0."""
    fit, X, _ = fitted(ONE)
    assert plot_partition(fit, X, feature_names=["length (mm)"], ax=ax) is ax
    edges = [p.vertices[:, 0] for c in ax.collections for p in c.get_paths() if len(p.vertices)]
    boundary = [e for e in edges if np.ptp(e) < GRID]
    assert boundary
    assert all(abs(e.mean() + 0.2) < GRID for e in boundary)
    assert ax.get_xlabel() == "length (mm)"
    assert legend(ax) == ["expert 0", "expert 1"]


def test_a_map_is_split_along_the_line_of_equal_scores(ax):
    """3 x + y = 0.5 - y: along the contour the two gate probabilities are equal."""
    fit, X, _ = fitted(TWO, columns=["length", "width"])
    plot_partition(fit, X, ax=ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("length", "width")
    border = [c for c in ax.collections if c.get_linewidth()[0] > 0]
    points = np.concatenate([p.vertices for c in border for p in c.get_paths()])
    assert np.abs(3 * points[:, 0] + 2 * points[:, 1] - 0.5).max() < 5 * GRID  # gradient (3, 2)
    assert len({patch.get_hatch() for patch in ax.get_legend().get_patches()}) == 2


def test_a_gate_that_selects_shows_its_sets(ax):
    fit, X, _ = fitted(SELECTS)
    plot_partition(fit, X, ax=ax)
    assert sorted(legend(ax)) == ["experts 0, 1", "experts 1, 2"]
    assert ax.get_legend().get_title().get_text() == "selected"


def test_gate_probabilities_over_a_feature(ax):
    fit, X, _ = fitted(TWO)
    assert plot_gate(fit, X, feature=1, ax=ax) is ax
    drawn = [lines(ax, f"expert {e}")[0] for e in range(2)]
    x = drawn[0].get_xdata()
    rows = np.column_stack([np.full(len(x), np.median(X[:, 0])), x])
    assert np.allclose([d.get_ydata() for d in drawn], TWO.gate_probs(torch.tensor(rows)).numpy().T)
    assert drawn[0].get_linestyle() != drawn[1].get_linestyle()
    assert ax.get_xlabel() == "x1"


def test_a_gate_that_selects_is_broken_at_its_jumps(ax):
    fit, X, _ = fitted(SELECTS)
    plot_gate(fit, X, ax=ax)
    line = lines(ax, "expert 0")[0]
    gaps = np.flatnonzero(np.isnan(line.get_ydata()))
    assert len(gaps) == 1
    assert abs(line.get_xdata()[gaps[0] - 1]) < GRID  # selection changes at 0


def test_expert_means_and_bands(ax):
    fit, X, y = fitted(ONE)
    tensors = torch.from_numpy(X), torch.from_numpy(y)
    assert plot_experts(fit, *tensors, y_name="height (m)", ax=ax) is ax
    assert ax.get_ylabel() == "height (m)"
    for e, (slope, intercept, scale) in enumerate([(2.0, 1.0, 0.3), (-1.0, 0.2, 0.4)]):
        line = lines(ax, f"expert {e}")[0]
        x, mean = line.get_xdata(), line.get_ydata()
        speaks = ONE.gate_probs(torch.from_numpy(x[:, None]))[:, e].numpy() >= SILENT
        assert np.allclose(mean[speaks], intercept + slope * x[speaks])
        assert np.isnan(mean[~speaks]).all()
        assert 0 < speaks.sum() < len(x)
        band = ax.collections[e].get_paths()[0].vertices
        at = x[speaks][speaks.sum() // 2]
        reach = np.ptp(band[np.isclose(band[:, 0], at), 1])
        assert reach == pytest.approx(4 * scale)


def test_responsibilities_mix_colours(ax):
    fit, X, y = fitted(ONE, n=300)
    assert plot_responsibilities(fit, X, y, ax=ax) is ax
    r = ONE.responsibilities(torch.from_numpy(X), torch.from_numpy(y)).numpy()
    shown = {
        tuple(np.round(xy, 9)): colour[:3]
        for c in ax.collections
        for xy, colour in zip(c.get_offsets(), c.get_edgecolors(), strict=True)
    }
    palette = np.array([mpl.colors.to_rgb(colour) for colour in COLOURS[:2]])
    for xy, weights in zip(np.column_stack([X[:, 0], y]), r, strict=True):
        assert np.allclose(shown[tuple(np.round(xy, 9))], weights @ palette)
    unsure = [c for c in ax.collections if len(c.get_facecolors()) == 0]
    assert sum(len(c.get_offsets()) for c in unsure) == (r.max(1) < 0.9).sum() > 0


def test_a_dendrogram_has_its_heights(ax):
    model = GaussianMoE(
        SoftmaxGate([0.0, 0.2, 0.4], [[1.0], [1.1], [-2.0]]),
        LinearExperts([[1.0], [1.0], [-2.0]], [0.0, 0.1, 3.0], [0.5, 0.5, 1.0]),
    )
    tree = dendrogram(model)
    assert plot_dendrogram(tree, n_experts=2, ax=ax) is ax
    merges = [line for line in ax.get_lines() if len(line.get_xdata()) == 4]
    assert [line.get_ydata()[1] for line in merges] == tree.heights.tolist()
    assert [line.get_linestyle() for line in merges] == ["--", "-"]  # down to two, and beyond
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert sorted(names) == ["expert 0", "expert 1", "expert 2"]
    assert abs(names.index("expert 0") - names.index("expert 1")) == 1
    with pytest.raises(ValueError, match="at least 2 experts; got 1"):
        plot_dendrogram(dendrogram(tree.model(1)), ax=ax)


def test_atoms_that_coincide_are_drawn(ax):
    one = LinearExperts([[1.0], [1.0]], [0.0, 0.0], [0.5, 0.5])
    plot_dendrogram(dendrogram(GaussianMoE(SoftmaxGate([0.0, 0.0], [[1.0], [1.0]]), one)), ax=ax)
    assert all(np.isfinite(line.get_ydata()).all() for line in ax.get_lines())


def test_a_profile_and_its_cut(ax):
    values = np.array([2.0, 0.0, 1.0, 3.0])
    assert plot_profile_likelihood(values, [-11.0, -19.0, -13.0, -12.0], name="slope", ax=ax) is ax
    assert ax.get_lines()[0].get_xdata().tolist() == [0, 1, 2, 3]
    assert ax.get_lines()[0].get_ydata().tolist() == [-8, -2, 0, -1]
    assert len(ax.get_lines()) == 2  # no cut-off unless it is asked for
    plot_profile_likelihood(values, -values, level=0.9, ax=ax)
    assert ax.get_lines()[-1].get_ydata()[0] == pytest.approx(-chi2.ppf(0.9, 1) / 2)


def test_without_axes_a_figure_is_made():
    from matplotlib import pyplot as plt

    before, backend = plt.get_fignums(), mpl.get_backend()
    plt.switch_backend("Agg")
    try:
        made = plot_profile_likelihood([0.0, 1.0], [0.0, -1.0])
        assert made.figure.number not in before
        plt.close(made.figure)
    finally:
        plt.switch_backend(backend)


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda f, X, y, ax: plot_gate(f, X, feature=1, ax=ax), r"'feature' .* int in \[0, 0\]"),
        (lambda f, X, y, ax: plot_gate(f, X, feature_names=["a", "b"], ax=ax), "must have 1 names"),
        (lambda f, X, y, ax: plot_experts(f, X[:, 0], y, ax=ax), r"'X' .* shape \(N, 1\)"),
        (lambda f, X, y, ax: plot_profile_likelihood([1.0], [1.0, 2.0]), "one shape"),
        (lambda f, X, y, ax: plot_profile_likelihood([1.0], [np.nan]), "finite value; got none"),
        (lambda f, X, y, ax: plot_profile_likelihood([1.0], [1.0], level=1.0, ax=ax), "'level'"),
    ],
)
def test_errors(draw, sentence, ax):
    fit, X, y = fitted(ONE)
    with pytest.raises(ValueError, match=sentence):
        draw(fit, X, y, ax)


def test_a_map_needs_two_different_features(ax):
    fit, X, _ = fitted(TWO)
    for features in ([0, 0], [0], [0, 1, 1]):
        with pytest.raises(ValueError, match="must be two different features"):
            plot_partition(fit, X, features=features, ax=ax)


def test_a_plot_needs_a_fit(ax):
    with pytest.raises(NotFittedError):
        plot_gate(GaussianMoERegressor(), np.zeros((3, 1)), ax=ax)
