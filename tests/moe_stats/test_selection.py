"""How many experts: criteria, dendrograms and choices, against closed forms and invariances."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from moe_stats import (
    GaussianMoE,
    GaussianMoERegressor,
    LinearExperts,
    SoftmaxGate,
    TopKGate,
    Uniform,
    fit_mle,
)
from moe_stats.selection import (
    dendrogram,
    information_criteria,
    select_n_experts,
    select_n_experts_batch,
)

ROUNDING = 1e-10
"""Two orders of the same sums, relative: 1e-16 a term times some 1e3 terms of opposite sign."""

TRUTH = GaussianMoE(
    SoftmaxGate([0.3, 0.0], [[5.0], [0.0]]), LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4])
)
WIDE = GaussianMoE(
    SoftmaxGate([0.2, -0.1, 0.4], [[3.0, -1.0], [0.0, 1.0], [-1.0, 0.5]]),
    LinearExperts([[1.0, 2.0], [-1.0, 0.4], [0.3, -0.8]], [2.0, -2.0, 0.5], [0.3, 0.4, 0.7]),
)
X = Uniform(-1, 1).sample(400, random_state=0)
y = TRUTH.sample(X, random_state=1)
BOUNDS = {"min_weight": 0.05, "gate_bound": 20.0, "min_scale": 0.05, "n_init": 3, "n_rounds": 0}


def moved(model, b0=0.0, b1=0.0):
    """The model with a number added to all gate intercepts and slopes, or to those given."""
    return GaussianMoE(SoftmaxGate(model.gate.intercept + b0, model.gate.slope + b1), model.experts)


def in_units(model, x_unit, x_shift, y_unit, y_shift):
    """The same law for x_unit x + x_shift and y_unit y + y_shift."""
    gate_slope, slope = model.gate.slope / x_unit, model.experts.slope * y_unit / x_unit
    intercept = y_unit * model.experts.intercept + y_shift - slope @ x_shift
    return GaussianMoE(
        SoftmaxGate(model.gate.intercept - gate_slope @ x_shift, gate_slope),
        LinearExperts(slope, intercept, model.experts.scale * y_unit),
    )


def doubled(model, share):
    """Every expert twice, with these shares of its mass."""
    two = torch.tensor([share, 1 - share], dtype=torch.float64)
    return GaussianMoE(
        SoftmaxGate(
            (model.gate.intercept[:, None] + two.log()).ravel(),
            model.gate.slope.repeat_interleave(2, 0),
        ),
        LinearExperts(
            model.experts.slope.repeat_interleave(2, 0),
            model.experts.intercept.repeat_interleave(2),
            model.experts.scale.repeat_interleave(2),
        ),
    )


def same_heights(first, second):
    same_tree = np.array_equal(first.linkage[:, :2], second.linkage[:, :2])
    return same_tree and np.allclose(first.heights, second.heights, rtol=1e-8, atol=0)


def same_density(first, second, X, y):
    return torch.allclose(first.log_prob(y, X), second.log_prob(y, X), rtol=0, atol=ROUNDING)


def test_criteria_are_their_formulas():
    found = information_criteria(TRUTH, X, y)
    r = TRUTH.responsibilities(X, y).numpy()
    value = float(TRUTH.log_prob(y, X).sum())
    entropy = -np.sum(r * np.log(np.clip(r, 1e-300, None)))
    bic = -2 * value + 8 * math.log(400)  # five numbers an expert, less the two translations
    assert float(found.aic) == pytest.approx(-2 * value + 16, rel=ROUNDING)
    assert float(found.bic) == pytest.approx(bic, rel=ROUNDING)
    assert float(found.icl) == pytest.approx(bic + 2 * entropy, rel=ROUNDING)
    assert entropy > 1  # the two overlap: ICL is not BIC here


def test_criteria_of_an_estimator_a_batch_and_a_model_agree():
    estimator = GaussianMoERegressor(2, n_init=2, n_rounds=0, random_state=0).fit(X, y)
    from_estimator = information_criteria(estimator, X, y)
    assert float(from_estimator.bic) == pytest.approx(estimator.bic(X, y), rel=ROUNDING)
    assert float(from_estimator.aic) == pytest.approx(estimator.aic(X, y), rel=ROUNDING)
    assert from_estimator.bic.shape == ()
    both_X, both_y = X.view(2, 200, 1), y.view(2, 200)
    batch = fit_mle(both_X, both_y, n_experts=2, n_init=2, n_rounds=0, random_states=[0, 1])
    found = information_criteria(batch, both_X, both_y)
    for r in range(2):
        alone = information_criteria(batch.model[r], both_X[r], both_y[r])
        for name in ("aic", "bic", "icl"):
            value = float(getattr(found, name)[r])
            assert value == pytest.approx(float(getattr(alone, name)), rel=ROUNDING)


def test_copies_merge_first_and_give_the_truth_back():
    """At height 0 where two atoms coincide; the control merges different ones."""
    features = Uniform(-1, 1, n_features=2).sample(200, random_state=0)
    response = WIDE.sample(features, random_state=1)
    for over in (None, features):
        tree = dendrogram(doubled(WIDE, 0.3), over)
        assert np.abs(tree.heights[:3]).max() < 1e-14
        assert {tuple(pair) for pair in tree.linkage[:3, :2]} == {(0, 1), (2, 3), (4, 5)}
        assert same_density(tree.model(3), WIDE, features, response)
        assert tree.heights[3] > 1e-3
        assert not same_density(tree.model(2), WIDE, features, response)


def test_a_merge_by_hand():
    """Weights 1/4 and 3/4 at the origin, in the units given: every formula on paper.

    The slope gains <(b1 - 2.5)(m - 1.75)> = (-1.5)(-0.75)/4 + (0.5)(0.25) 3/4 = 0.375, the
    variance <(m - 1.75)^2> = 0.1875.
    """
    pair = GaussianMoE(
        SoftmaxGate([0.0, math.log(3)], [[1.0], [3.0]]),
        LinearExperts([[0.0], [1.0]], [1.0, 2.0], [1.0, 2.0]),
    )
    tree = dendrogram(pair)
    one = tree.model(1)
    assert tree.heights[0] == pytest.approx(0.25 * 0.75 * (1 + math.sqrt(1 + 9)))
    assert float(one.gate.intercept) == pytest.approx(math.log(4))
    assert float(one.gate.slope) == pytest.approx(2.5)
    assert float(one.experts.intercept) == pytest.approx(1.75)
    assert float(one.experts.slope) == pytest.approx(0.75 + 0.375)
    assert float(one.experts.scale) == pytest.approx(math.sqrt(3.25 + 0.1875))
    assert tree.linkage.tolist() == [[0, 1, tree.heights[0], 2]]


def gap(size, *, without_moments=False):
    """Largest difference of density between an atom split along its mean and the merged pair."""
    shift = torch.tensor([-2.0, 1.0], dtype=torch.float64) * size  # mean 0 with weights 1/3, 2/3
    split = GaussianMoE(
        SoftmaxGate([math.log(1 / 3), math.log(2 / 3), 0.5], [[1.0], [1.0], [-1.0]]),
        LinearExperts([[2.0], [2.0], [0.0]], [*(1 + shift).tolist(), -4.0], [0.8, 0.8, 1.0]),
    )
    merged = dendrogram(split, X).model(2)
    if without_moments:
        merged = GaussianMoE(merged.gate, LinearExperts([[0.0], [2.0]], [-4.0, 1.0], [1.0, 0.8]))
    grid = torch.linspace(-6, 6, 200, dtype=torch.float64)
    at = torch.full((200, 1), 0.3, dtype=torch.float64)
    return float((split.log_prob(grid, at).exp() - merged.log_prob(grid, at).exp()).abs().max())


def test_a_merged_pair_differs_by_third_order():
    """Halving the split divides the gap by 8, up to the next order; without the moment that the
    variance gains, by 4 only."""
    assert 7 < gap(0.04) / gap(0.02) < 9
    control = gap(0.04, without_moments=True) / gap(0.02, without_moments=True)
    assert 3.5 < control < 4.5


@pytest.mark.parametrize("over", [None, Uniform(-1, 1, n_features=2).sample(100, 2)])
def test_the_tree_does_not_see_a_translation_of_the_gate(over):
    tree = dendrogram(WIDE, over)
    shift = torch.tensor([0.7, -2.0], dtype=torch.float64)
    assert same_heights(tree, dendrogram(moved(WIDE, 5.0, shift), over))
    one = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert not same_heights(tree, dendrogram(moved(WIDE, one), over))


def test_over_data_the_tree_has_no_units_and_no_origin():
    features = Uniform(-1, 1, n_features=2).sample(100, random_state=2)
    x_unit = torch.tensor([10.0, 0.2], dtype=torch.float64)
    x_shift = torch.tensor([3.0, -7.0], dtype=torch.float64)
    other = in_units(WIDE, x_unit, x_shift, 25.0, 4.0)
    rescaled = features * x_unit + x_shift
    response = WIDE.sample(features, random_state=3)
    assert torch.allclose(  # it is the same law
        other.log_prob(25 * response + 4, rescaled) + math.log(25),
        WIDE.log_prob(response, features),
    )
    tree, again = dendrogram(WIDE, features), dendrogram(other, rescaled)
    assert same_heights(tree, again)
    assert same_density(
        in_units(tree.model(2), x_unit, x_shift, 25.0, 4.0),
        again.model(2),
        rescaled,
        25 * response + 4,
    )
    assert not same_heights(dendrogram(WIDE), dendrogram(other))  # the published choice does


def test_an_expert_that_never_speaks_merges_first():
    silent = moved(WIDE, torch.tensor([-2000.0, 0.0, 0.0], dtype=torch.float64))
    tree = dendrogram(silent, Uniform(-1, 1, n_features=2).sample(100, 2))
    assert np.isfinite(tree.heights).all()
    assert 0 in tree.linkage[0, :2]
    assert tree.heights[0] < 1e-100


def test_the_selection_criterion_is_its_formula():
    tree = dendrogram(doubled(TRUTH, 0.4), X)
    table = tree.table(X, y)
    assert table["n_experts"].tolist() == [4, 3, 2]
    for row in table.itertuples():
        value = float(tree.model(row.n_experts).log_prob(y, X).sum())
        height = tree.heights[4 - row.n_experts]
        assert row.dsc == pytest.approx(-(height + math.log(400) * value / 400))
    assert table["n_experts"][table["dsc"].idxmin()] == 2


def test_what_a_dendrogram_refuses():
    gated = GaussianMoE(TopKGate([0.0, 0.0], [[1.0], [0.0]], top_k=1), TRUTH.experts)
    with pytest.raises(ValueError, match=r"'model' parameter must have a SoftmaxGate.*TopKGate"):
        dendrogram(gated)
    batch = fit_mle(X[None], y[None], n_experts=1, random_states=[0]).model
    with pytest.raises(ValueError, match=r"must be one model; got a batch of shape \(1,\)"):
        dendrogram(batch)
    with pytest.raises(ValueError, match=r"'n_experts' parameter must be an int in \[1, 2\]"):
        dendrogram(TRUTH).model(3)
    assert dendrogram(batch[0]).linkage.shape == (0, 4)  # one expert is a tree without merges


def test_choices_on_one_data_set():
    """Two experts are found in data of two and not in data of one (the control); seeds fixed."""
    chosen = select_n_experts(X, y, 3, method="bic", random_state=0, **BOUNDS)
    assert chosen.n_experts == 2
    assert chosen.model is chosen.fits[2].model_
    table = chosen.table.set_index("n_experts")
    assert table["bic"].idxmin() == 2
    assert table["log_likelihood"].is_monotonic_increasing
    assert table["n_parameters"].tolist() == [3, 8, 13]
    assert table["bic"][2] == pytest.approx(chosen.fits[2].bic(X, y), rel=ROUNDING)

    one = GaussianMoE(SoftmaxGate([0.0], [[0.0]]), LinearExperts([[1.0]], [0.0], [0.5]))
    control = select_n_experts(X, one.sample(X, 2), 2, method="bic", random_state=0, **BOUNDS)
    assert control.n_experts == 1


def test_the_dendrogram_needs_one_fit():
    chosen = select_n_experts(X, y, 4, method="dendrogram", random_state=0, **BOUNDS)
    assert list(chosen.fits) == [4]
    assert chosen.n_experts == chosen.model.n_experts == 2
    assert chosen.table["log_likelihood"][0] == pytest.approx(chosen.fits[4].log_likelihood_)
    # merged from four, not maximised: within the chi-square of the 8 parameters (1e-5 quantile)
    fitted = GaussianMoERegressor(2, random_state=0).fit(X, y).log_likelihood_
    merged = float(chosen.model.log_prob(y, X).sum())
    assert fitted - 36 / 2 < merged < fitted


def test_a_batch_chooses_as_its_data_sets_alone():
    both_X, both_y = X[:240].view(2, 120, 1), y[:240].view(2, 120)
    options = {**BOUNDS, "n_init": 2}
    batch = select_n_experts_batch(both_X, both_y, 3, random_states=[5, 6], **options)
    for r, seed in enumerate([5, 6]):
        for method in ("bic", "dendrogram"):
            alone = select_n_experts(
                both_X[r], both_y[r], 3, method=method, random_state=seed, **options
            )
            score = alone.table.set_index("n_experts")["dsc" if method == "dendrogram" else method]
            assert int(batch.n_experts[method][r]) == alone.n_experts
            for number, value in score.items():
                # heights follow parameters, which a scaled gradient of 1e-6 leaves free by some
                # 1e-4 standard errors where the likelihood is flat
                assert float(batch.scores[method][r, number - 1]) == pytest.approx(value, abs=1e-4)
    assert torch.isinf(batch.scores["dendrogram"][:, 0]).all()
    only = select_n_experts_batch(
        both_X, both_y, 3, methods=["dendrogram"], random_states=[5, 6], **options
    )
    assert list(only.fits) == [3]
    assert torch.equal(only.n_experts["dendrogram"], batch.n_experts["dendrogram"])


def test_tables_and_gates_that_select():
    table = pd.DataFrame({"length": X[:, 0].numpy()})
    gate = TopKGate.template(top_k=2, rank="slope")
    chosen = select_n_experts(
        table, pd.Series(y.numpy()), 2, gate=gate, random_state=0, n_init=2, n_rounds=0
    )
    assert list(chosen.fits) == [2]
    assert list(chosen.fits[2].feature_names_in_) == ["length"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"method": "waic"},
            "'method' parameter must be one of {'bic', 'aic', 'icl', 'dendrogram'",
        ),
        ({"max_experts": 0}, r"'max_experts' parameter must be an int in \[1, 1000000\]; got 0"),
        (
            {"max_experts": 1, "method": "dendrogram"},
            r"'max_experts' parameter must be an int in \[2, 1000000\] for the dendrogram; got 1",
        ),
        (
            {"max_experts": 1, "gate": TopKGate.template(top_k=2)},
            r"'max_experts' parameter must be an int in \[2, 1000000\] for a gate with top_k=2",
        ),
        ({"method": "dendrogram", "gate": TopKGate.template(top_k=2)}, "SoftmaxGate"),
    ],
)
def test_errors_of_a_choice(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        select_n_experts(X, y, **{"max_experts": 2, "n_init": 1, "n_rounds": 0, **options})
    if "method" in options and options["method"] == "waic":
        with pytest.raises(ValueError, match="'methods' parameter"):
            select_n_experts_batch(X[None], y[None], 2, methods=["waic"])
