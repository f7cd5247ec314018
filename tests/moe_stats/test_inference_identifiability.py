"""Identifiability reports: the Fisher information, null directions by name, flat families."""

import math

import pytest
import torch

from kernels.gating import Layout
from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, TopKGate, Uniform
from moe_stats.inference import identifiability_report
from moe_stats.inference.fisher import fisher_information
from moe_stats.inference.identifiability import _own_units
from theory import hellinger

SAME_DENSITY = 1e-12
"""Hellinger distance of densities equal to rounding: 1e-16 measured."""

X = Uniform(-1, 1).sample(1500, 0)
UNIT = Uniform(0, 1).sample(1000, 0)
SMOOTH = GaussianMoE(
    SoftmaxGate([0.3, 0.0], [[5.0], [0.0]]), LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4])
)
THREE = LinearExperts([[3.0], [-2.0], [1.0]], [4.0, 0.0, -4.0], [0.4, 0.5, 0.45])
TRUE_GATE = torch.tensor([[0.3, 1.0], [0.0, 0.0]], dtype=torch.float64)  # b0, b1 of two cells
TRUE_LINES = torch.tensor([[-1.0, 0.5, 0.3], [1.0, -0.5, 0.4]], dtype=torch.float64)


def over_fitted(*factors):
    """Two true experts, each split into atoms: factors hold (log q_i, d_i) of each cell."""
    gate, lines = [], []
    for cell, factor in enumerate(factors):
        gate += [TRUE_GATE[cell] + torch.tensor(atom, dtype=torch.float64) for atom in factor]
        lines += [TRUE_LINES[cell]] * len(factor)
    gates, atoms = torch.stack(gate), torch.stack(lines)
    return GaussianMoE(
        SoftmaxGate(gates[:, 0], gates[:, 1:]),
        LinearExperts(atoms[:, :1], atoms[:, 1], atoms[:, 2]),
    )


def words(report):
    return [direction.words for direction in report.null_directions]


def no_score_changes(model, report, features):
    """Every null vector leaves log densities unchanged to first order, by central differences."""
    y = model.sample(features, 5)
    gate, params = type(model.gate).template(**model.gate.options), model.to_params()

    def log_prob(p):
        return GaussianMoE.from_params(p, gate, model.n_experts).log_prob(y, features)

    for direction in report.null_directions:
        step = 1e-5 * direction.vector
        slope = (log_prob(params + step) - log_prob(params - step)) / 2e-5
        assert float(slope.abs().max()) < 1e-6, direction  # rounding 1e-15 / 1e-5, and step^2
    return True


class TestFisherInformation:
    def test_one_expert_is_closed_form(self):
        scale = 0.7
        model = GaussianMoE(SoftmaxGate([0.0], [[0.0]]), LinearExperts([[1.0]], [0.5], [scale]))
        design = torch.cat([X, torch.ones_like(X)], 1)
        expected = torch.zeros(5, 5, dtype=torch.float64)
        expected[2:4, 2:4] = design.mT @ design / len(X) / scale**2
        expected[4, 4] = 2.0
        found = fisher_information(model, X)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)

    def test_twice_the_nodes_change_little(self):
        """By less than the report states, and less than halving them."""
        report = identifiability_report(SMOOTH, X)
        coarse, usual, fine = (fisher_information(SMOOTH, X, n) for n in (16, 32, 64))
        assert (fine - usual).abs().max() < 0.1 * (usual - coarse).abs().max()
        units = _own_units(usual, Layout.of(SMOOTH.gate.form, 2, 1), X.mean(0))
        exact = torch.linalg.eigvalsh(units.mT @ fine @ units)
        assert float((exact - report.eigenvalues).abs().max()) < report.error < 1e-3

    def test_monte_carlo(self, false_alarm):
        """H0: entries are means of score products; z tests, Bonferroni over P (P + 1) / 2."""
        generator = torch.Generator().manual_seed(1)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        features = Uniform(-1, 1).sample(200, 3).repeat(200, 1)
        y = SMOOTH.sample(features, seed)
        gate, params = SoftmaxGate.template(), SMOOTH.to_params()

        def log_prob(p):
            return GaussianMoE.from_params(p, gate, 2).log_prob(y, features)

        ones = torch.eye(10, dtype=torch.float64)
        score = torch.stack(  # central differences, of order 4
            [
                (8 * (log_prob(params + 1e-3 * e) - log_prob(params - 1e-3 * e))
                 - (log_prob(params + 2e-3 * e) - log_prob(params - 2e-3 * e))) / 12e-3
                for e in ones
            ]
        )  # fmt: skip
        expected = fisher_information(SMOOTH, features[:200])
        i, j = torch.triu_indices(10, 10)
        product = (score[i] * score[j]).unflatten(-1, (200, 200)).mean(1)  # (55, 200) rows of X
        spread = (score[i] * score[j]).unflatten(-1, (200, 200)).var(1) / 200
        error = spread.mean(-1).div(200).sqrt() + 1e-6  # of the mean; 1e-6 of the differences
        z = (product.mean(-1) - expected[i, j]).abs() / error
        bound = torch.special.ndtri(torch.tensor(1 - false_alarm / 110, dtype=torch.float64))
        assert float(z.max()) < float(bound)
        doubled = (product.mean(-1) - 1.1 * expected[i, j]).abs() / error
        assert float(doubled.max()) > float(bound)  # control: ten per cent off is seen


def test_an_identified_model_has_only_translations():
    report = identifiability_report(SMOOTH, X)
    assert report.is_identified
    assert len(report.null_directions) == 2
    assert all("gate translation" in w for w in words(report))
    assert report.condition < 100
    assert str(report).startswith("Identified up to the gate's declared invariances: 2 of 10")
    intercepts = report.null_directions[0].coefficients
    assert set(intercepts) == {"gate intercept[0]", "gate intercept[1]"}
    assert all(v == pytest.approx(0.5**0.5) for v in intercepts.values())


@pytest.mark.parametrize("rank", ["slope", "logit"])
def test_a_top_2_gate_is_identified(rank):
    gate = TopKGate([0.2, 0.0, -0.3], [[2.0], [0.0], [-2.0]], top_k=2, rank=rank)
    report = identifiability_report(GaussianMoE(gate, THREE), X)
    assert report.is_identified
    assert len(report.null_directions) == 2


def test_an_unselected_expert_is_named():
    gate = TopKGate([0.2, 0.0, -0.3], [[2.0], [0.0], [-2.0]], top_k=2)
    model = GaussianMoE(gate, THREE)
    report = identifiability_report(model, X.abs())
    assert not report.is_identified
    assert words(report).count("expert 2 is never selected on X") == 5
    assert len(report.null_directions) == 7
    assert no_score_changes(model, report, X.abs())


def test_a_top_1_gate_is_named():
    gate = TopKGate([0.2, -0.4], [[2.0], [-1.0]], top_k=1, rank="logit")
    model = GaussianMoE(gate, SMOOTH.experts)
    report = identifiability_report(model, X)
    assert len(report.null_directions) == 4  # both gates whole
    assert any("gate scaling" in w for w in words(report))
    assert any("matter only for which expert is selected" in w for w in words(report))
    assert no_score_changes(model, report, X)


def test_gates_never_compared_are_named():
    """Slopes 2 and 1 speak right of 0, -2 and -1 left of it: two models side by side."""
    gate = TopKGate([0.2, 0.0, -0.3, 0.1], [[2.0], [1.0], [-2.0], [-1.0]], top_k=2)
    experts = LinearExperts(
        [[3.0], [-2.0], [1.0], [0.0]], [4.0, 0.0, -4.0, 2.0], [0.4, 0.5, 0.45, 0.3]
    )
    model = GaussianMoE(gate, experts)
    report = identifiability_report(model, X)
    assert sum("experts 0, 1 are never selected with any other" in w for w in words(report)) == 2
    assert len(report.null_directions) == 4
    assert no_score_changes(model, report, X)


def test_coincident_experts_are_named():
    model = GaussianMoE(
        SoftmaxGate([0.3, 0.0, 0.7], [[5.0], [0.0], [5.0]]),
        LinearExperts([[2.0], [-1.0], [2.0]], [1.0, 0.2, 1.0], [0.3, 0.4, 0.3]),
    )
    report = identifiability_report(model, X)
    assert sum("experts 0 and 2 are the same" in w for w in words(report)) == 5
    assert len(report.null_directions) == 7
    assert no_score_changes(model, report, X)
    apart = GaussianMoE(model.gate, LinearExperts(
        [[2.0], [-1.0], [2.1]], [1.0, 0.2, 1.0], [0.3, 0.4, 0.3]))  # fmt: skip
    assert identifiability_report(apart, X).is_identified  # control


def test_equal_experts_with_different_gates_are_identified():
    """One cell with a single expert pins the others' gates."""
    model = GaussianMoE(
        SoftmaxGate([0.3, 0.0, 0.7], [[5.0], [0.0], [2.0]]),
        LinearExperts([[2.0], [-1.0], [2.0]], [1.0, 0.2, 1.0], [0.3, 0.4, 0.3]),
    )
    assert identifiability_report(model, X).is_identified


def test_what_no_reason_explains_is_named_by_its_coefficients():
    """A feature seen at one value only: its slopes and intercepts cannot be told apart."""
    here = torch.full((200, 1), 0.5, dtype=torch.float64)
    report = identifiability_report(SMOOTH, here)
    left = [d for d in report.null_directions if d.words.startswith("unexplained")]
    assert len(left) >= 2
    lines = [d for d in left if any(n.startswith("slope") for n in d.coefficients)]
    for direction in lines:
        ratio = {n: direction.coefficients.get(n, 0.0) for n in ("slope[0, 0]", "intercept[0]")}
        assert ratio["intercept[0]"] == pytest.approx(-0.5 * ratio["slope[0, 0]"], abs=1e-6)
    assert no_score_changes(SMOOTH, report, here)


class TestFlatFamily:
    """Every cell over-fitted: a common factor of the cells' gates cancels."""

    def test_it_is_found_and_flat(self):
        factor = [(-0.4, 0.6), (-1.1, -0.5)]
        model = over_fitted(factor, factor)
        report = identifiability_report(model, UNIT)
        assert sum("every cell is over-fitted" in w for w in words(report)) == 2
        assert len(report.null_directions) == 4
        slopes = [
            d.coefficients
            for d in report.null_directions
            if "over-fitted" in d.words and "gate slope[0, 0]" in d.coefficients
        ]
        assert set(slopes[0]) == {"gate slope[0, 0]", "gate slope[2, 0]"}  # they move together
        (family,) = report.flat_families
        assert family.cells == ((0, 1), (2, 3))
        for distance in (1.0, -5.0):
            moved = family.move(distance)
            change = (moved.gate.slope - model.gate.slope).abs().max()
            assert float(change) == pytest.approx(abs(distance))
            h = hellinger(model, moved, Uniform(0, 1))
            assert float(h.value) < SAME_DENSITY

    def test_it_is_found_where_atoms_coincide(self):
        factor = [(-0.7, 0.0), (-0.7, 0.0)]
        model = over_fitted(factor, factor)
        (family,) = identifiability_report(model, UNIT).flat_families
        assert float(hellinger(model, family.move(1.0), Uniform(0, 1)).value) < SAME_DENSITY

    def test_one_cell_is_its_smallest_case(self):
        model = GaussianMoE(
            SoftmaxGate([0.0, 0.3], [[1.0], [-1.0]]),
            LinearExperts([[1.0], [1.0]], [0.0, 0.0], [0.5, 0.5]),
        )
        (family,) = identifiability_report(model, X).flat_families
        assert float(hellinger(model, family.move(1.0), Uniform(-1, 1)).value) < SAME_DENSITY

    def test_factors_that_differ_have_no_family(self):
        model = over_fitted([(-0.4, 0.6), (-1.1, -0.5)], [(-0.4, 0.6), (-0.3, 1.4)])
        report = identifiability_report(model, UNIT)
        assert report.flat_families == ()
        assert report.is_identified
        assert report.condition > 1e5  # near it, and said to be so
        assert "nearly singular" in str(report)

    @pytest.mark.parametrize(("distance", "least"), [(1.0, 0.01), (0.5, 3e-3), (0.25, 9e-4)])
    def test_one_single_atom_ends_it(self, distance, least):
        """Control: k = 3. The same move changes the density, like distance squared."""
        half = math.log(0.5)
        truth = over_fitted([(0.0, 0.0)], [(0.0, 0.0)])
        split = over_fitted([(half, distance), (half, -distance)], [(0.0, 0.0)])
        assert identifiability_report(split, UNIT).flat_families == ()
        assert float(hellinger(truth, split, Uniform(0, 1)).value) > least

    def test_arguments_are_checked(self):
        factor = [(-0.4, 0.6), (-1.1, -0.5)]
        (family,) = identifiability_report(over_fitted(factor, factor), UNIT).flat_families
        with pytest.raises(ValueError, match="'feature' parameter must be an int"):
            family.move(1.0, feature=1)
        with pytest.raises(ValueError, match="'distance' parameter must be a real number"):
            family.move(float("nan"))


@pytest.mark.parametrize(("unit", "origin"), [(1e4, 0.0), (1.0, 50.0)])
def test_units_and_origin_of_features_play_no_part(unit, origin):
    slope, line = SMOOTH.gate.slope / unit, SMOOTH.experts.slope / unit
    moved = GaussianMoE(
        SoftmaxGate(SMOOTH.gate.intercept - origin * slope[:, 0], slope),
        LinearExperts(line, SMOOTH.experts.intercept - origin * line[:, 0], SMOOTH.experts.scale),
    )
    here, there = (
        identifiability_report(SMOOTH, X),
        identifiability_report(moved, X * unit + origin),
    )
    assert there.is_identified
    torch.testing.assert_close(there.eigenvalues, here.eigenvalues, rtol=0, atol=1e-8)


def test_rows_are_thinned_evenly():
    many = Uniform(-1, 1).sample(30_000, 0)
    report = identifiability_report(SMOOTH, many)
    assert report.n_rows == 2_000
    usual = identifiability_report(SMOOTH, X)
    assert report.condition == pytest.approx(usual.condition, rel=0.2)  # 2,000 draws: a few %


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (X[:, [0, 0]], "'X' parameter must have shape"),
        (torch.full_like(X, torch.nan), "'X' parameter must be finite"),
    ],
)
def test_features_are_checked(bad, message):
    with pytest.raises(ValueError, match=message):
        identifiability_report(SMOOTH, bad)


def test_a_batch_is_refused():
    batch = GaussianMoE.from_params(SMOOTH.to_params()[None], SoftmaxGate.template(), 2)
    with pytest.raises(ValueError, match="'model' parameter must be a single model"):
        identifiability_report(batch, X)
