"""Independence of activations: named relations, a Fisher information and an expansion of the
density as second routes, extended precision, bad inputs."""

import math

import mpmath
import numpy as np
import pytest
from mpmath import mp
from scipy.special import erf

from theory.independence import ACTIVATIONS, DIGITS, NEAR, NULL, independence_report

TRUTH = [[5.0], [0.5]]  # slopes of the studies
MIRRORED = [[2.0], [-2.0]]
PLANE = [[1.3, -0.4], [-0.7, 0.9]]
SUPPORT = {1: (-3, 3), 2: [(-2, 1), (-1, 3)]}

ROUTES = 1e-9
"""Agreement of singular values above .01 by extended and by float64 arithmetic: the latter's
rounding is 1e-16 times 1,000 summands and the inverse of the smallest value."""

RANK = 1e-8
"""Singular value of a float64 Jacobian with columns of length 1 below which it is null: rounding
leaves 2e-13 or less, what is not null 2e-2 or more."""

SPANNED, NOT_SPANNED = 1e-10, 1e-6
"""Relative misfit of a derivative of the density: rounding of 1e-13 times the condition number
(1e2) of the family, and well below the smallest part of any function that is left out (7e-5)."""

STEP = 1e-30j
"""Derivatives are imaginary parts at complex steps, free of cancellation."""

NUMPY = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "gelu": lambda z: z * (1 + erf(z / math.sqrt(2))) / 2,
    "silu": lambda z: z / (1 + np.exp(-z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "sin": np.sin,
    "relu": lambda z: np.where(z.real > 0, z, 0),
    "identity": lambda z: z,
    "square": np.square,
}


def report(activation, slopes, order=1, **options):
    return independence_report(activation, slopes, SUPPORT[len(slopes[0])], order, **options)


def n_relations(found):
    return int((found.singular_values <= NULL).sum())


@pytest.mark.parametrize("slopes", [TRUTH, PLANE, [[5.0], [0.5], [-1.2]]])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "gelu", "silu"])
def test_smooth_activations_pass_at_first_order_in_general_position(activation, slopes):
    found = report(activation, slopes)
    assert found.independent
    assert found.relation == ""
    assert found.singular_values[-1] > NEAR
    assert "independent" in str(found)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "gelu", "silu"])
def test_smooth_activations_pass_at_second_order_in_general_position(activation):
    assert report(activation, TRUTH, 2).independent


@pytest.mark.parametrize("slopes", [TRUTH, MIRRORED, PLANE])
@pytest.mark.parametrize(
    ("activation", "right"),
    [
        ("identity", "psi(z)"),
        ("relu", "psi(z)"),
        ("leaky_relu", "psi(z)"),
        ("abs", "psi(z)"),
        ("square", "2 psi(z)"),
        ("cube", "3 psi(z)"),
    ],
)
def test_homogeneous_activations_fail_by_eulers_identity(activation, right, slopes):
    found = report(activation, slopes)
    assert not found.independent
    assert found.relation.startswith(f"z psi'(z) = {right}: all slopes can be scaled")


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        ("sigmoid", "psi' is even"),
        ("tanh", "psi' is even"),
        ("sin", "psi' is even"),
        ("gelu", "psi(z) - psi(-z) = z"),
        ("silu", "psi(z) - psi(-z) = z"),
        ("softplus", "psi(z) - psi(-z) = z"),
    ],
)
@pytest.mark.parametrize("order", [1, 2])
def test_mirrored_slopes_fail_with_the_symmetry_named(activation, words, order):
    found = report(activation, MIRRORED, order)
    assert not found.independent
    assert found.relation.startswith(f"{words}: mirrored slopes")
    assert ";" not in found.relation  # the symmetry is all there is
    assert found.relation in str(found)


def test_a_mirrored_pair_in_the_plane_loses_a_shift_for_each_feature():
    slopes = [[1.3, -0.4], [-1.3, 0.4]]
    assert n_relations(report("sigmoid", slopes)) == 2
    assert n_relations(report("gelu", slopes)) == 1


@pytest.mark.parametrize("activation", ["sigmoid", "gelu"])
def test_a_mirrored_pair_among_three_experts_is_harmless(activation):
    assert report(activation, [*MIRRORED, [0.7]]).independent
    assert not report(activation, [*MIRRORED, [2.0]]).independent  # all of one length


def test_equal_slopes_are_named():
    found = report("tanh", [[1.5], [1.5]])
    assert found.relation == "all slopes are equal"
    assert n_relations(found) == 2  # shift and temperature
    assert n_relations(report("tanh", [[0.0], [0.0]])) == 2


def test_eulers_identity_covers_the_second_derivative():
    # z psi'' = 2 psi', once for each expert and feature
    found = report(lambda z: max(z, 0) ** 3, PLANE, 2)
    assert found.relation == "z psi'(z) = 3 psi(z): all slopes can be scaled together"
    assert n_relations(found) == 1 + 4


def test_a_slope_of_zero_makes_gate_and_expert_interact_at_second_order_only():
    slopes = [[2.0], [0.0]]
    assert report("sigmoid", slopes).independent
    found = report("sigmoid", slopes, 2)
    assert "psi'(z_2) is constant: gate slope and expert slope interact" in found.relation
    assert "z_1" not in found.relation


def test_what_has_no_name_is_written_out():
    found = report("square", [[3.0], [1.0]])
    assert n_relations(found) == 2
    named, written = found.relation.split("; ")
    assert named.startswith("z psi'(z) = 2 psi(z)")
    assert written.endswith("moves all scores alike")


def density_jacobian(activation, slopes):
    """Derivatives of a density in all its parameters, (N, P), at points (x, y)."""
    psi, b1 = NUMPY[activation], np.array(slopes)
    n_experts, n_features = b1.shape
    rng = np.random.default_rng(3)
    low, high = np.reshape(SUPPORT[n_features], (-1, 2)).T
    x = rng.uniform(low, high, (120, n_features))
    y = np.linspace(-5, 5, 25)[:, None, None]
    sizes = np.array([n_experts, b1.size, 1, n_experts, b1.size, n_experts])
    parts = [np.linspace(-0.4, 0.3, n_experts), b1.ravel(), [0.7]]
    parts += [np.linspace(-1, 1.5, n_experts), rng.normal(size=b1.size)]
    start = np.concatenate([*parts, np.linspace(0.8, 1.1, n_experts)])

    def density(flat):
        b0, slope, tau, b, a, scale = np.split(flat, sizes.cumsum()[:-1])
        weight = np.exp((psi(x @ slope.reshape(b1.shape).T) + b0) / tau)
        residual = (y - x @ a.reshape(b1.shape).T - b) / scale
        joint = weight * np.exp(-0.5 * residual**2) / scale
        return (joint.sum(-1) / weight.sum(-1)).ravel()

    steps = STEP * np.eye(len(start))
    return np.stack([density(start + step).imag / STEP.imag for step in steps], -1)


@pytest.mark.parametrize(
    ("activation", "slopes"),
    [
        ("sigmoid", TRUTH),
        ("sigmoid", MIRRORED),
        ("sigmoid", [*MIRRORED, [0.7]]),
        ("sigmoid", [[1.3, -0.4], [-1.3, 0.4]]),
        ("tanh", [*MIRRORED, [2.0]]),
        ("gelu", PLANE),
        ("gelu", [[1.3, -0.4], [-1.3, 0.4]]),
        ("silu", MIRRORED),
        ("softplus", [*MIRRORED, [0.7]]),
        ("sin", TRUTH),
        ("relu", TRUTH),
        ("relu", [*MIRRORED, [0.7]]),
        ("identity", PLANE),
        ("square", [*TRUTH, [-1.2]]),
    ],
)
def test_relations_are_the_null_directions_of_the_density(activation, slopes):
    """One more direction is null in the density: the common shift of the intercepts."""
    jacobian = density_jacobian(activation, slopes)
    lengths = np.linalg.norm(jacobian, axis=0)
    singular = np.linalg.svd(jacobian / np.where(lengths > 0, lengths, 1.0), compute_uv=False)
    null = int((singular < RANK).sum())
    found = report(activation, slopes)
    assert null == n_relations(found) + 1
    assert found.independent == (found.relation == "")


MEAN = [(-0.6, 1.0), (0.9, -0.5)]  # slope and intercept of each expert
VARIANCE = [0.8, 1.1]
GRID = np.linspace(-3, 3, 60), np.linspace(-5, 5, 40)[:, None]


def second_derivative(psi, slopes, tau):
    """Of the density of two atoms split in two, in the size t of the split at 0, on a grid.

    Masses, temperature and first moments of the deviations move by t^2. By Cauchy's formula on 32
    points of a circle of radius .02, well inside the domain: rounding leaves 1e-16 / .02^2.
    """
    x, y = GRID
    rng = np.random.default_rng(8)
    split, drift = rng.normal(size=(2, 2, 4))

    def density(t):
        top = bottom = 0.0
        for e, ((slope,), (a, b)) in enumerate(zip(slopes, MEAN, strict=True)):
            for side in (1.0, -1.0):
                d = side * t * split[e] + t**2 * drift[e]
                score = psi((slope + d[0]) * x) / (tau * (1 + 0.4 * t**2)) + (0.3 - e) * t**2
                mean, variance = (a + d[1]) * x + b + d[2], VARIANCE[e] + d[3] * t
                normal = np.exp(-0.5 * (y - mean) ** 2 / variance) / np.sqrt(variance)
                top = top + np.exp(score) * normal
                bottom = bottom + np.exp(score)
        return top / bottom

    circle = 0.02 * np.exp(2j * np.pi * np.arange(32) / 32)
    return 2 * np.mean([density(t) / t**2 for t in circle], axis=0).real


def second_order_family(slopes, tau):
    """The functions of (x, y) behind the report's names, for GELU."""
    x, y = GRID
    z = np.array(slopes) * x
    phi, cdf = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi), (1 + erf(z / math.sqrt(2))) / 2
    psi, first, curved = z * cdf, cdf + z * phi, (2 - z**2) * phi
    weight = np.exp(psi / tau) / np.exp(psi / tau).sum(0)
    scaled = [(y - a * x - b) / v for (a, b), v in zip(MEAN, VARIANCE, strict=True)]
    f = [
        w * np.exp(-0.5 * r**2 * v) / v**0.5
        for w, r, v in zip(weight, scaled, VARIANCE, strict=True)
    ]
    gate = [g - w * (f[0] + f[1]) for w, g in zip(weight, f, strict=True)]
    family = [("1_1", gate[0]), ("psi(z)", gate[0] * psi[0] + gate[1] * psi[1])]
    for e, (g, r, v) in enumerate(zip(f, scaled, VARIANCE, strict=True)):
        at = f"(z_{e + 1})"
        curvature = curved[e] + first[e] ** 2 / tau
        derivative = {1: g * r, 2: g * (r**2 - 1 / v)}
        family.append((f"x_1 psi'{at}", x * first[e] * gate[e]))
        family.append((f"x_1 x_1 (psi'' + psi'^2/tau){at}", x**2 * curvature * gate[e]))
        for name, function in [(f"1_{e + 1}", 1.0), ("x_1", x), (f"x_1 psi'{at}", x * first[e])]:
            family += [(name, function * derivative[k]) for k in (1, 2)]
        family.append((f"x_1 x_1 psi'{at}", x**2 * first[e] * derivative[1]))
        family.append(("x_1 x_1", x**2 * derivative[2]))
    return family


def misfit(target, columns):
    matrix = np.stack([c.ravel() for c in columns], -1)
    matrix = matrix / np.linalg.norm(matrix, axis=0)
    solution = np.linalg.lstsq(matrix, target.ravel(), rcond=None)[0]
    return np.linalg.norm(target.ravel() - matrix @ solution) / np.linalg.norm(target)


def test_the_second_order_family_spans_the_density_of_split_atoms():
    slopes, tau = [[1.5], [0.5]], 0.7
    target = second_derivative(NUMPY["gelu"], slopes, tau)
    family = second_order_family(slopes, tau)
    found = report("gelu", slopes, 2, temperature=tau)
    assert found.independent
    assert sorted(name for name, _ in family) == sorted(found.functions)
    assert misfit(target, [c for _, c in family]) < SPANNED
    for left_out in ("(psi'' + psi'^2/tau)(z_1)", "x_1 x_1 psi'(z_2)", "psi(z)"):
        kept = [c for name, c in family if not name.endswith(left_out)]
        assert misfit(target, kept) > NOT_SPANNED
    wrong_tau = [c for _, c in second_order_family(slopes, 0.9)]
    assert misfit(target, wrong_tau) > NOT_SPANNED


@pytest.mark.parametrize("activation", ["sigmoid", "gelu", "sin"])
def test_singular_values_match_float64_on_another_grid(activation):
    found = report(activation, [[1.5], [0.5]])
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = 3 * nodes
    psi = NUMPY[activation](np.array([[1.5], [0.5]]) * x + STEP)
    # two components modulo equal ones are their difference
    columns = [np.ones_like(x), x * psi[0].imag, x * psi[1].imag, psi[0].real - psi[1].real]
    columns = np.array(columns) * np.sqrt(weights)
    lengths = np.linalg.norm(columns, axis=1, keepdims=True)
    singular = np.linalg.svd(columns / lengths, compute_uv=False)
    np.testing.assert_allclose(found.singular_values, singular, atol=ROUTES)


def test_nearly_mirrored_slopes_are_independent_beyond_float64():
    off = [[2.0], [np.nextafter(-2.0, -3.0)]]
    found = report("sigmoid", off)
    assert found.independent
    assert 1e-20 < found.singular_values[-1] < 1e-15
    assert "too small for data to tell" in str(found)
    assert found.gap > 1e20
    exact = report("sigmoid", MIRRORED)
    assert not exact.independent
    assert exact.singular_values[-1] < 10 ** (2 - DIGITS / 2)


def elu(z):
    return z if z > 0 else mp.expm1(z)


@pytest.mark.parametrize("activation", ["tanh", "relu", "cube"])
@pytest.mark.parametrize("order", [1, 2])
def test_callables_are_differentiated(activation, order):
    slopes = [[1.5], [-0.5]]
    known = report(activation, slopes, order)
    psi = ACTIVATIONS[activation][0]
    found = report(lambda z: psi(z), slopes, order)
    np.testing.assert_allclose(found.singular_values, known.singular_values, atol=1e-14)
    assert found.relation == known.relation
    assert known.independent == (activation == "tanh")


def test_callables_of_any_degree_are_named():
    assert report(elu, [[1.5], [-0.5]]).activation == "elu"
    assert report(elu, [[1.5], [-0.5]]).independent
    power = report(lambda z: abs(z) ** mp.mpf(1.5), [[1.5], [-0.5]])
    assert power.relation.startswith("z psi'(z) = 1.5 psi(z)")
    affine = report(lambda z: max(z, 0) + mp.mpf(2), [[1.5], [-0.5]])
    assert affine.relation.startswith("z psi'(z) = psi(z) + -2")
    logarithm = independence_report(mpmath.log, [[1.5], [0.5]], (1, 2))
    assert logarithm.relation.startswith("z psi'(z) = 1: all slopes")


def test_a_temperature_can_tell_what_all_temperatures_cannot():
    slopes = [[1.0], [2.0]]
    found = report(mpmath.exp, slopes, 2)  # psi'(z_1)^2 = psi''(z_2)
    written = "x_1 x_1 psi''(z_2) + x_1 x_1 psi'^2(z_1) moves all scores alike"
    assert found.relation == written
    assert report(mpmath.exp, slopes, 2, temperature=0.7).independent
    assert report(mpmath.exp, slopes, 1).independent


def test_a_temperature_can_lose_what_others_keep():
    def logarithm(z):  # exp(psi / tau) is linear in z at tau = .5
        return mp.log(8 + z) / 2

    vanishing = "x_1 x_1 (psi'' + psi'^2/tau)(z_2) is 0 on the support"
    slopes = [[1.5], [-0.5]]
    assert vanishing in report(logarithm, slopes, 2, temperature=0.5).relation
    assert vanishing not in report(logarithm, slopes, 2, temperature=0.6).relation


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives_are_those_of_the_activation(activation):
    psi, *derivatives = ACTIVATIONS[activation]
    with mp.workdps(40):
        for z in (mp.mpf("-1.7"), mp.mpf("0.3"), mp.mpf("2.9")):
            for k, derivative in enumerate(derivatives, start=1):
                assert abs(mp.diff(psi, z, k) - derivative(z)) < mp.mpf("1e-30")


def test_the_working_precision_of_mpmath_is_restored():
    before = mp.dps
    report("sigmoid", TRUTH)
    assert mp.dps == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swish", TRUTH, (-3, 3)), "'activation' parameter must be callable or one of.*'swish'"),
        (([], TRUTH, (-3, 3)), r"'activation' parameter must be callable or one of.*got \[\]"),
        ((math.tanh, TRUTH, (-3, 3)), "'activation' parameter must compute with mpmath"),
        ((np.tanh, TRUTH, (-3, 3)), "'activation' parameter must compute with mpmath"),
        ((lambda z: mp.nan, TRUTH, (-3, 3)), "'activation' parameter must be finite.*got nan"),
        (("tanh", [5.0, 0.5], (-3, 3)), r"'slopes' parameter must have shape \(E, D\).*\(2,\)"),
        (("tanh", [[5.0]], (-3, 3)), r"'slopes' parameter must have shape.*got shape \(1, 1\)"),
        (("tanh", [[5.0], [np.nan]], (-3, 3)), "'slopes' parameter must be finite"),
        (("tanh", [["a"], ["b"]], (-3, 3)), "'slopes' parameter must be numeric"),
        (("tanh", PLANE, (-3, 3)), r"'X_support' parameter must have shape \(2, 2\)"),
        (("tanh", TRUTH, (3, 3)), "'X_support' parameter must not be empty"),
        (("tanh", PLANE, [(0, 1), (2, 1)]), "'X_support' parameter must not be empty"),
        (("tanh", TRUTH, (-3, np.inf)), "'X_support' parameter must be finite"),
        (("tanh", TRUTH, (-3, 3), 3), "'order' parameter must be 1 or 2; got 3"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        independence_report(*arguments)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, "warm"])
def test_temperatures_are_positive(temperature):
    with pytest.raises(ValueError, match="'temperature' parameter must be None or positive"):
        report("tanh", TRUTH, 2, temperature=temperature)
