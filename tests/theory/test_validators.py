"""Every public function of `theory` that checks: works, or names the parameter."""

import numpy as np
import pytest
from hostile import Entry, check, each, refuses_huge, sizes

from moe_stats import (
    DenseToSparseGate,
    GaussianMoE,
    LinearExperts,
    SoftmaxGate,
    TopKGate,
    Uniform,
)
from theory import (
    attainable_distance,
    boundary_deviation,
    exponent,
    fit_rate,
    get_claim,
    hellinger,
    independence_report,
    rbar,
    selection_distance,
    total_variation,
    verdict,
    voronoi_loss,
)
from theory.algebra import (
    count_sign_changes,
    eliminate_two_atoms,
    equivalence,
    gmm_system,
    imitation,
    softmax_system,
)
from theory.inverse import (
    Neighbourhood,
    discrepancy,
    every_cell_over_fitted,
    inverse_bound,
    local_exponent,
    moving_pairs,
    settle,
    temperature_ray,
)
from theory.inverse.settings import probe_truth

EXPERTS = LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4])
TRUTH = GaussianMoE(SoftmaxGate([0.3, 0.0], [[5.0], [0.0]]), EXPERTS)
SELECTING = GaussianMoE(TopKGate([0.3, 0.0], [[5.0], [0.0]], top_k=1, rank="logit"), EXPERTS)
TURNING = GaussianMoE(
    TopKGate([0.3, 0.0], [[5.0, 1.0], [0.0, 0.5]], top_k=1),
    LinearExperts([[2.0, 0.0], [-1.0, 1.0]], [1.0, 0.2], [0.3, 0.4]),
)
TEMPERED = GaussianMoE(DenseToSparseGate([0.3, 0.0], [[5.0], [0.0]], 0.5), EXPERTS)
DESIGN = Uniform(-1, 1)
SIZES = np.repeat([100.0, 200.0, 400.0], 5)
ERRORS = np.random.default_rng(0).uniform(1, 2, 15) / np.sqrt(SIZES)
RATE = fit_rate(SIZES, ERRORS, random_state=0, n_bootstrap=200)
ONE = Neighbourhood(probe_truth(), Uniform(0, 1), cells=(1, 1))
TWO = Neighbourhood(probe_truth(), Uniform(0, 1), cells=(2, 1))
DELTAS = [0.1, 0.05, 0.02, 0.01]
FOUND = {"intercept": local_exponent(ONE, "intercept", deltas=DELTAS, n_starts=1)}


def neighbourhood(**options):
    return Neighbourhood(probe_truth(), Uniform(0, 1), **{"cells": (2, 1), **options}).size


def nearest(**options):
    """The distance, or None where the bounds exclude every neighbourhood of the truth."""
    found = attainable_distance(probe_truth(), Uniform(0, 1), **options)
    return None if found.near_cells is None else found.near


def bound(powers):
    return inverse_bound(FOUND, {"intercept": powers})


ENTRIES = {
    "exponent": Entry(exponent, {"group": "slope", "cell_size": 2, "source": "published"}),
    "rbar": Entry(rbar, {"m": 2}),
    "fit_rate": Entry(
        lambda **k: fit_rate(**k).median.slope,
        {"n": SIZES, "error": ERRORS, "random_state": 0, "n_bootstrap": 200},
    ),
    "verdict": Entry(
        verdict,
        {"rate": RATE, "predicted": 0.5, "question": "bound", "statistic": "median"},
    ),
    "voronoi_loss": Entry(
        lambda **k: voronoi_loss(TRUTH, TRUTH, **k).value,
        {"order": "D2", "top_k": None, "compare": None, "anchor": "single"},
    ),
    "hellinger": Entry(
        lambda **k: hellinger(TRUTH, TRUTH, DESIGN, **k).value,
        {"method": "auto", "n_nodes": 12, "random_state": 0},
    ),
    "total_variation by Monte Carlo": Entry(
        lambda **k: total_variation(TRUTH, TRUTH, DESIGN, method="monte_carlo", **k).value,
        {"n_nodes": 12, "random_state": 0},
    ),
    "selection_distance": Entry(
        lambda **k: selection_distance(SELECTING, SELECTING, DESIGN, **k).value,
        {"cells": None, "n_lines": 16, "random_state": 0},
    ),
    "boundary_deviation": Entry(
        lambda **k: boundary_deviation(TURNING, TURNING, **k).direction, {"cells": None}
    ),
    "independence_report": Entry(
        independence_report,
        {
            "activation": "tanh",
            "slopes": [[5.0], [0.5]],
            "X_support": (-3, 3),
            "order": 1,
            "temperature": None,
        },
    ),
    "gmm_system": Entry(gmm_system, {"n_atoms": 2, "order": 2}),
    "softmax_system": Entry(softmax_system, {"n_atoms": 2, "order": 2, "n_features": 1}),
    "equivalence": Entry(equivalence, {"n_atoms": 2, "order": 2, "n_features": 1}),
    "eliminate_two_atoms": Entry(eliminate_two_atoms, {"order": 2}),
    "imitation": Entry(imitation, {"m": 2, "variance": 2.0}),
    "count_sign_changes": Entry(
        count_sign_changes,
        {"coefficients": [1.0, -1.0], "means": [0.0, 1.0], "variances": [1.0, 2.0]},
    ),
    "Neighbourhood": Entry(
        neighbourhood,
        {
            "cells": (2, 1),
            "cell": 0,
            "gate": None,
            "min_share": 0.25,
            "radius": 1.0,
            "min_scale": 0.05,
            "hold": (),
            "breaks": (),
        },
    ),
    "discrepancy": Entry(
        lambda deviations: discrepancy(ONE, deviations).value, {"deviations": ONE.copies()}
    ),
    "inverse_bound": Entry(bound, {"powers": 1.0}),
    "local_exponent": Entry(
        lambda **k: local_exponent(ONE, **k).exponent,
        {"group": "intercept", "deltas": DELTAS, "n_starts": 1, "random_state": 0},
    ),
    "moving_pairs": Entry(
        lambda **k: moving_pairs(TWO, **k).exponent, {"n": [1e8, 1e9, 1e10, 1e11]}
    ),
    "every_cell_over_fitted": Entry(
        lambda **k: every_cell_over_fitted(probe_truth(), Uniform(0, 1), **k).discrepancy.value,
        {"shift": 1.0, "cells": (2, 2)},
    ),
    "temperature_ray": Entry(
        lambda **k: temperature_ray(TEMPERED, DESIGN, **k).discrepancy.value, {"factor": 2.0}
    ),
    "attainable_distance": Entry(
        nearest,
        {
            "n_experts": 3,
            "gate": SoftmaxGate.template(),
            "near": True,
            "everywhere": False,
            "radius": 0.1,
            "min_weight": 0.05,
            "gate_bound": 5.0,
            "min_scale": 0.05,
            "n_starts": 1,
            "random_state": 0,
        },
    ),
    "settle": Entry(settle, {"name": "none such", "n_starts": 1}, ("name",)),
    "get_claim": Entry(get_claim, {"name": "rbar"}),
}


CLOSED_FORMS = ("exponent", "rbar")  # at once whatever the size


@sizes({name: entry for name, entry in ENTRIES.items() if name not in CLOSED_FORMS})
def test_a_size_that_nobody_means_is_refused_at_once(function, parameter):
    refuses_huge(ENTRIES[function], parameter)


@pytest.mark.filterwarnings("ignore")
@each(ENTRIES)
def test_a_hostile_value_is_refused_by_name_or_does_no_harm(function, parameter):
    check(ENTRIES[function], parameter)
