"""Gates beyond softmax and top-K: temperatures, activations, sigmoid ratings, Laplace distances."""

import math
import pickle

import pytest
import torch
from gate_contract import GateContract
from temperature_cases import EXACT, EXPERTS, INTERCEPT, SLOPE, activated, bent, close

from kernels import gating
from kernels.gating import Layout, naive
from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, Uniform
from moe_stats.gates import (
    ACTIVATIONS,
    Activation,
    ActivationDenseToSparseGate,
    DenseToSparseGate,
    LaplaceGate,
    SigmoidGate,
)
from moe_stats.gates.activations import activation_of
from moe_stats.inference import identifiability_report
from moe_stats.selection import information_criteria

AUTOGRAD = 1e-10
"""Derivatives against automatic ones, float64, relative to the largest."""

DIFFERENCES = 1e-7
"""Against central differences of step 1e-5: their error is 1e-10 of a third derivative and
1e-11 of rounding, float64, relative to the largest."""

TAU = 0.25  # a power of two: its logarithm comes back exactly
X = Uniform(-3, 3).sample(301, random_state=0)


def leaky(z):
    return torch.where(z > 0, z, 0.1 * z)


def cube(z):
    return z**3


class Unhashable:
    __hash__ = None

    def __call__(self, z):
        return torch.tanh(z)


class TestDenseToSparseGate(GateContract):
    def gate(self, intercept, slope):
        return DenseToSparseGate(intercept, slope, TAU)


class TestActivationDenseToSparseGate(GateContract):
    def gate(self, intercept, slope):
        return ActivationDenseToSparseGate(intercept, slope, TAU, activation="tanh")


class TestCustomActivationGate(GateContract):
    def gate(self, intercept, slope):
        return ActivationDenseToSparseGate(intercept, slope, TAU, activation=bent)


class TestSigmoidGate(GateContract):
    def gate(self, intercept, slope):
        return SigmoidGate(intercept, slope)


class TestLaplaceGate(GateContract):
    def gate(self, intercept, slope):
        return LaplaceGate(intercept, slope)


class TestSoftenedLaplaceGate(GateContract):
    n_features = 1

    def gate(self, intercept, slope):
        return LaplaceGate(intercept, slope, softening=0.4)


def every_gate():
    named = {name: activated(name) for name in ACTIVATIONS}
    return {
        "dense-to-sparse": DenseToSparseGate(INTERCEPT, SLOPE, 0.1),
        **named,
        "custom": activated(bent),
        "rating": SigmoidGate(INTERCEPT, SLOPE),
        "bent both ways": activated("relu", slope=[[5.0], [-0.5]]),
        "laplace": LaplaceGate([-0.25, 0.0], [[1.0], [-1.0]]),
        "softened": LaplaceGate([-0.25, 0.0], [[1.0], [-1.0]], softening=0.4),
    }


@pytest.mark.parametrize(("name", "gate"), every_gate().items())
def test_likelihood_derivatives_are_those_of_the_density(name, gate):
    """Gradient and Hessian of the kernels against autograd of `log_prob`, the former against
    differences as well; and the density integrates to 1."""
    model = GaussianMoE(gate, EXPERTS)
    y, template = model.sample(X, 1), type(gate).template(**gate.options)
    theta = model.to_params()

    def log_likelihood(p):
        return GaussianMoE.from_params(p, template, 2).log_prob(y, X).sum()

    found = gating.evaluate(theta[None], gate.form, X.mT[None], y[None], order="hessian")
    by_hand = torch.autograd.functional.hessian(log_likelihood, theta)
    gradient = torch.autograd.functional.jacobian(log_likelihood, theta)
    close(found.gradient[0], gradient, AUTOGRAD)
    close(found.hessian[0], by_hand, AUTOGRAD)
    step = 1e-5 * torch.eye(len(theta), dtype=torch.float64)
    central = [(log_likelihood(theta + h) - log_likelihood(theta - h)) / 2e-5 for h in step]
    close(found.gradient[0], torch.stack(central), DIFFERENCES)

    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)  # 12 scales beyond any mean
    density = torch.exp(model.log_prob(grid.expand(5, -1), X[:5, None].expand(5, 4001, 1)))
    assert torch.allclose(torch.trapezoid(density, grid), torch.ones(5).double(), atol=EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("gate", [activated("gelu"), activated(bent)])
@pytest.mark.parametrize("order", ["gradient", "hessian"])
def test_compiled_is_naive(gate, order):
    rng = torch.Generator().manual_seed(0)
    params = torch.randn(3, 11, generator=rng, dtype=torch.float64)
    x, y = torch.randn(2, 1, 301, generator=rng, dtype=torch.float64)
    arguments = (params, gate.form, x[None], y)
    fast = gating.evaluate(*arguments, order=order, backend="compiled")
    plain = gating.evaluate(*arguments, order=order, backend="naive")
    for name, expected in vars(plain).items():
        if expected is not None:
            close(getattr(fast, name), expected, EXACT)


class TestActivations:
    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_derivatives(self, name):
        psi = ACTIVATIONS[name]
        z = torch.linspace(-8.3, 7.9, 400, dtype=torch.float64)
        first = torch.func.vmap(torch.func.grad(psi.value))(z)
        second = torch.func.vmap(torch.func.grad(psi.first))(z)
        assert torch.allclose(psi.first(z), first, rtol=0, atol=EXACT)
        assert torch.allclose(psi.second(z), second, rtol=0, atol=EXACT)

    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_derivatives_found_are_those_known(self, name):
        """The same function without its name, and with its degree."""
        psi, found = ACTIVATIONS[name], activation_of(ACTIVATIONS[name].value)
        z = torch.linspace(-8.3, 7.9, 400, dtype=torch.float64)
        assert torch.allclose(found.first(z), psi.first(z), rtol=0, atol=EXACT)
        assert torch.allclose(found.second(z), psi.second(z), rtol=0, atol=EXACT)
        assert found.degree == pytest.approx(psi.degree)

    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_named_ones_keep_the_rules_for_others(self, name):
        assert activation_of(Activation(*vars(ACTIVATIONS[name]).values())) == ACTIVATIONS[name]

    def test_values(self):
        """By formulas of other packages' kinds: erf for GELU, log1p for softplus."""
        z = [-2.3, 0.4, 1.7]
        expected = {
            "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
            "tanh": math.tanh,
            "gelu": lambda v: v * math.erfc(-v / math.sqrt(2)) / 2,
            "silu": lambda v: v / (1 + math.exp(-v)),
            "softplus": lambda v: math.log1p(math.exp(v)),
            "sin": math.sin,
            "relu": lambda v: max(v, 0.0),
            "identity": lambda v: v,
        }
        assert set(expected) == set(ACTIVATIONS)
        for name, function in expected.items():
            found = ACTIVATIONS[name].value(torch.tensor(z, dtype=torch.float64)).tolist()
            assert found == pytest.approx([function(v) for v in z], rel=1e-14)

    @pytest.mark.parametrize(
        ("function", "degree"), [(leaky, 1.0), (torch.abs, 1.0), (torch.square, 2.0), (bent, None)]
    )
    def test_degrees(self, function, degree):
        assert activation_of(function).degree == pytest.approx(degree)

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ("swish", r"one of \{'sigmoid', .* or a function; got 'swish'"),
            (3, "or a function; got 3"),
            (Unhashable(), "be hashable; got a function that is not"),
            (torch.log, r"be finite on \[-10, 10\].*got nan at -10 from"),
            (lambda z: z / z, "be finite.*got nan at 0 from"),
            (torch.sum, r"return torch.float64 of shape \(20001,\).*got .* of shape \(\)"),
            (lambda z: z.float(), "return torch.float64 of .*got torch.float32"),
            (lambda z: 1.0, "return torch.float64 of .*got 1.0"),
            (lambda z: torch.softmax(z, -1), "be elementwise; got values that depend on others"),
            (torch.rand_like, "be elementwise; got values that depend on others or on chance"),
            (torch.ones_like, r"vary; got the constant 1\.0"),
            (torch.floor, "be differentiable; got values that differ from the integral .* by"),
            (lambda z: z + 0.5 * torch.sign(z), "be differentiable; got values that differ"),
            (torch.detach, "be differentiable; got values that differ from the integral .* by 20"),
            (lambda z: torch.from_numpy(z.numpy().copy()), "be twice differentiable by torch; got"),
            (lambda z: math.tanh(z), "take and return a tensor; got"),
            (lambda z: z.clamp(min=0).sqrt(), "be finite on .*, and its two derivatives"),
            (Activation(torch.tanh, torch.cos, torch.sin), "be differentiable; got values that"),
        ],
    )  # fmt: skip
    def test_bad_ones_are_refused(self, bad, message):
        with pytest.raises(ValueError, match=f"'activation' parameter must .*{message}"):
            ActivationDenseToSparseGate.template(activation=bad)
        with pytest.raises(ValueError, match="'activation' parameter must"):
            activated(bad)

    @pytest.mark.parametrize("good", [leaky, torch.nn.functional.elu, torch.nn.Mish(), bent])
    def test_good_ones_are_not(self, good):
        assert activation_of(good).value is good

    def test_forms_of_equal_activations_share_a_program(self):
        for activation in ("gelu", bent):
            form, again = activated(activation).form, activated(activation, temperature=2.0).form
            assert form == again
            assert hash(form) == hash(again)
            assert pickle.loads(pickle.dumps(form)).n_shared == 1  # as fitted estimators are
        assert activated("gelu").form != activated("silu").form


class TestInvariances:
    """Translations, the ray and homogeneity, and their absence."""

    def scaled(self, gate, c, power=1.0):
        own, shared = gate.pack()
        factors = torch.full_like(own, c)
        factors[:, 0] = c**power
        return type(gate).from_parameters(
            factors * own, shared + power * math.log(c), **gate.options
        )

    def distance(self, gate, other):
        return float((gate.probs(X) - other.probs(X)).abs().max())

    @pytest.mark.parametrize("c", [0.3, 7.0])
    def test_the_ray(self, c):
        flat = [DenseToSparseGate(INTERCEPT, SLOPE, 0.1), *map(activated, ["identity", "relu"])]
        for gate in (*flat, activated(leaky)):
            assert self.distance(gate, self.scaled(gate, c)) < EXACT
        assert (
            self.distance(activated(torch.square), self.scaled(activated(torch.square), c, 2.0))
            < EXACT
        )
        assert (
            self.distance(activated(torch.square), self.scaled(activated(torch.square), c)) > 1e-3
        )

    @pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"identity", "relu"}))
    def test_no_ray_behind_other_activations(self, name):
        gate = activated(name)
        assert self.distance(gate, self.scaled(gate, 1.5)) > 1e-3
        assert gate.flat_directions() == {}

    def test_the_identity_is_dense_to_sparse(self):
        plain = DenseToSparseGate(INTERCEPT, SLOPE, 0.1)
        assert self.distance(activated("identity"), plain) < EXACT
        shifted = activated("identity", slope=[[5.7], [1.2]])
        assert self.distance(activated("identity"), shifted) < EXACT

    def test_relu_of_slopes_of_one_sign_is_linear(self):
        assert self.distance(activated("relu"), activated("relu", slope=[[5.7], [1.2]])) < EXACT
        square = [activated(torch.square, slope=[[b**0.5], [c**0.5]]) for b, c in ((5, 1), (6, 2))]
        assert self.distance(*square) < EXACT
        bent = [activated("relu", slope=s) for s in ([[5.0], [-0.5]], [[5.7], [0.2]])]
        assert self.distance(*bent) > 1e-3

    @pytest.mark.parametrize(("name", "gate"), every_gate().items())
    def test_named_directions_are_flat(self, name, gate):
        """Scores change by the same amount for all experts, along what the gate names; and it
        names all: the Fisher information has no other null direction but translations."""
        layout = Layout.of(gate.form, 2, 1)
        flat = GaussianMoE(gate, EXPERTS).to_params()
        jacobian = naive.score_jacobian(flat[None], gate.form, X.mT[None], layout)[0]  # (E, Q, N)
        for words, (own_part, shared_part) in gate.flat_directions().items():
            move = torch.cat([own_part, shared_part.expand(2, -1)], -1)
            change = torch.einsum("eq,eqn->en", move, jacobian)
            assert float((change[0] - change[1]).abs().max()) < EXACT * float(jacobian.abs().max())
            assert "may be" in words
        report = identifiability_report(GaussianMoE(gate, EXPERTS), X)
        named = len(gate.flat_directions())
        assert len(report.null_directions) == named + len(gate.translates)
        assert report.is_identified == (named == 0)

    def test_sigmoid_gates_have_none(self):
        gate = SigmoidGate(INTERCEPT, SLOPE)
        assert gate.translates == ()
        assert gate.flat_directions() == {}
        assert int(gate.n_open()) == 0

    def test_sigmoid_gates_become_softmax_far_below_zero(self):
        rated = SigmoidGate([-40.25, -40.0], SLOPE)
        assert self.distance(rated, SoftmaxGate(INTERCEPT, SLOPE)) < EXACT
        assert self.distance(SigmoidGate(INTERCEPT, SLOPE), SoftmaxGate(INTERCEPT, SLOPE)) > 0.1

    def test_parameters_that_no_data_can_tell_are_counted(self):
        slope = [[5.0, 1.0], [0.5, 2.0]]
        gates = DenseToSparseGate(INTERCEPT, slope, 0.1), SoftmaxGate(INTERCEPT, slope)
        assert [int(g.n_open()) for g in gates] == [4, 3]
        y = torch.zeros(301, dtype=torch.float64)
        warm, plain = (
            information_criteria(GaussianMoE(g, EXPERTS), X, y)
            for g in (DenseToSparseGate(INTERCEPT, SLOPE, 1.0), SoftmaxGate(INTERCEPT, SLOPE))
        )
        assert warm.n_parameters == plain.n_parameters

    @pytest.mark.parametrize(
        ("activation", "slope", "count"),
        [
            ("sigmoid", [[5.0], [0.5]], 1),
            ("identity", [[5.0], [0.5]], 3),
            ("relu", [[5.0], [0.5]], 3),  # slopes of one sign may shift together
            ("relu", [[5.0], [-0.5]], 2),
            (leaky, [[5.0], [-0.5]], 2),
            (torch.abs, [[5.0], [-0.5]], 3),  # even
            (torch.square, [[2.0], [-0.5]], 3),
            (cube, [[1.0], [-0.5]], 3),  # odd
            (torch.square, [[5.0], [0.5]], 3),
            ("identity", [[5.0, 1.0], [0.5, 2.0]], 4),
            ("relu", [[5.0, 1.0], [0.5, 2.0]], 2),
        ],
    )
    def test_the_count_is_the_nullity_of_the_fisher_information(self, activation, slope, count):
        gate = activated(activation, slope=slope)
        assert int(gate.n_open()) == count
        n_features = len(slope[0])
        model = GaussianMoE(
            gate, LinearExperts(n_features * torch.tensor(slope).double(), [4, -4], [0.3, 0.4])
        )
        report = identifiability_report(model, Uniform(-3, 3, n_features).sample(301, 0))
        assert len(report.null_directions) == count

    def test_counts_of_a_batch_are_those_of_its_models(self):
        slopes = torch.tensor([[[5.0], [0.5]], [[5.0], [-0.5]]]).double()
        gate = activated("relu", torch.zeros(2, 2), slopes, torch.tensor([0.1, 0.2]))
        assert gate.n_open().tolist() == [3, 2]
        assert GaussianMoE(
            gate, LinearExperts(slopes, torch.zeros(2, 2), torch.ones(2, 2))
        ).n_identified().tolist() == [8, 9]

    def test_of_a_lone_expert_all_are_open(self):
        for gate in (SoftmaxGate, SigmoidGate, LaplaceGate):
            assert int(gate([0.3], [[1.0]]).n_open()) == 2


class TestAtoms:
    @pytest.mark.parametrize("c", [0.3, 7.0])
    def test_identified_functions_stay_along_the_ray_and_raw_ones_move(self, c):
        gates = [DenseToSparseGate, lambda *p: ActivationDenseToSparseGate(*p, "relu")]
        for make in gates:
            here = make(torch.tensor([-0.25, 0.5]), torch.tensor([[5.0], [0.5]]), 0.1)
            there = make(c * here.intercept, c * here.slope, 0.1 * c)
            for mine, theirs in zip(
                flat_atoms(here.atoms()), flat_atoms(there.atoms()), strict=True
            ):
                assert torch.allclose(mine, theirs, rtol=1e-6)  # float32
            raw = there.raw_atoms()[1]
            assert torch.allclose(raw["gate_slope"], c * here.slope)
            assert torch.allclose(raw["temperature"], torch.full((2, 1), 0.1 * c))

    def test_of_a_batch(self):
        gate = DenseToSparseGate(torch.zeros(3, 2), torch.ones(3, 2, 4), torch.tensor([1.0, 2, 4]))
        assert gate.atoms()[1]["gate_slope"][:, 0, 0].tolist() == [1.0, 0.5, 0.25]
        assert gate.raw_atoms()[1]["temperature"].shape == (3, 2, 1)
        assert activated("tanh").atoms()[1].keys() == {"gate_slope", "temperature"}
        assert SoftmaxGate(INTERCEPT, SLOPE).raw_atoms()[1].keys() == {"gate_slope"}

    def test_degrees_other_than_1(self):
        gate = activated(torch.square)
        moved = activated(torch.square, [9 * b for b in INTERCEPT], [[15.0], [1.5]], 0.9)
        here, there = gate.atoms()[1]["gate_slope"], moved.atoms()[1]["gate_slope"]
        assert torch.allclose(here, there, rtol=EXACT)


def flat_atoms(atoms):
    return [atoms[0], *atoms[1].values()]


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "gelu", "silu", "softplus"])
def test_mirrored_slopes_are_singular_and_named(name):
    model = GaussianMoE(activated(name, slope=[[2.0], [-2.0]]), EXPERTS)
    report = identifiability_report(model, X)
    (found,) = [d.words for d in report.null_directions if not d.declared]
    assert "experts 0 and 1 have mirrored gate slopes" in found
    together = "(b0, b1, tau) may be scaled together"
    assert (together in found) == (name in ("gelu", "silu", "softplus"))
    apart = GaussianMoE(activated(name, slope=[[2.0], [-2.4]]), EXPERTS)
    assert identifiability_report(apart, X).is_identified  # control


def test_the_mirror_image_is_reported_for_two_experts_and_odd_activations_alone():
    for name, count in {"tanh": 1, "sigmoid": 1, "gelu": 0}.items():
        report = identifiability_report(GaussianMoE(activated(name), EXPERTS), X)
        assert len(report.equivalents) == count
        assert ("The same density elsewhere" in str(report)) == bool(count)
    three = activated("tanh", [0.0, 0.1, 0.2], [[5.0], [0.5], [-2.0]])
    assert three.equivalents() == ()


def test_a_third_expert_ends_the_singularity():
    experts = LinearExperts([[-1.0], [1.0], [0.0]], [4.0, -4.0, 0.0], [0.3, 0.4, 0.5])
    gate = activated("tanh", [-0.25, 0.0, 0.1], [[2.0], [-2.0], [0.7]], 0.5)
    assert identifiability_report(GaussianMoE(gate, experts), X).is_identified


@pytest.mark.parametrize("gate", [DenseToSparseGate(INTERCEPT, SLOPE, 0.1), activated("relu")])
def test_the_ray_is_named(gate):
    report = identifiability_report(GaussianMoE(gate, EXPERTS), X)
    assert "(b0, b1, tau) may be scaled together" in str(report)
    (ray,) = [d for d in report.null_directions if "tau" in d.words]
    assert set(ray.coefficients) >= {"gate slope[0, 0]", "gate slope[1, 0]", "log temperature"}


class TestLaplacePoint:
    def test_derivatives_at_the_centre_are_finite(self):
        form = LaplaceGate([0.0], [[0.5, 0.2]]).form
        own = [torch.tensor(v, dtype=torch.float64) for v in (0.3, 0.5, 0.2)]
        x = list(torch.tensor([[0.5, 0.9], [0.2, 0.2]], dtype=torch.float64))
        gradient = form.score_gradient(own, [], x)
        assert gradient[1].tolist() == pytest.approx([0.0, 1.0])
        assert gradient[2].tolist() == pytest.approx([0.0, 0.0])
        bend = form.score_curvature(own, [], x)
        assert all(bool(torch.isfinite(v).all()) for v in bend.values())
        assert bend[2, 2].tolist() == pytest.approx([0.0, -2.5])

    def test_softening_rounds_the_kink(self):
        gate = LaplaceGate([0.0, 0.0], [[0.0], [9.0]], softening=0.3)
        near = LaplaceGate([0.0, 0.0], [[0.0], [9.0]])
        assert float((gate.probs(X) - near.probs(X)).abs().max()) > 1e-5
        far = torch.tensor([[-300.0]], dtype=torch.float64)
        assert torch.allclose(gate.log_probs(far), near.log_probs(far), rtol=0, atol=1e-3)


def test_temperatures_far_out_stay_finite():
    """A fit on its way to a flat gate ends with a model, not with an error."""
    own = torch.zeros(2, 2, dtype=torch.float64)
    for log_tau in (-1e4, 1e4):
        gate = DenseToSparseGate.from_parameters(own, torch.tensor([log_tau]).double())
        assert 0 < float(gate.temperature) < math.inf


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenseToSparseGate(INTERCEPT, SLOPE, 0.0), r"'temperature' .* positive; got 0\.0"),
        (lambda: activated("tanh", temperature=-2.0), r"'temperature' .* positive; got -2\.0"),
        (lambda: DenseToSparseGate(INTERCEPT, SLOPE, math.nan), "'temperature' .* finite; got NaN"),
        (
            lambda: DenseToSparseGate(INTERCEPT, SLOPE, [1.0, 2.0]),
            r"'temperature' .* shape \(\), one number a model, or be a number; got shape \(2,\)",
        ),
        (lambda: DenseToSparseGate.template(temperature=1.0), r"no options; got \['temperature'\]"),
        (lambda: SigmoidGate.template(temperature=1.0), r"no options; got \['temperature'\]"),
        (lambda: ActivationDenseToSparseGate.template(psi="tanh"), r"options got \['psi'\]"),
        (lambda: LaplaceGate(INTERCEPT, SLOPE, softening=-0.1), r"'softening' .* real .*got -0\.1"),
        (lambda: LaplaceGate.template(softening=math.inf), "'softening' parameter must be a real"),
    ],
)  # fmt: skip
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
