r"""The cells whose exponents are settled: truths, published powers and derived ones.

Each `Setting` is one over-fitted (or exactly fitted) cell of one truth behind one gate. `settle`
measures its exponents by quadrature and judges both sets of powers; nothing is simulated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kernels.checks import check_choice, check_count
from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, TopKGate, Uniform
from moe_stats.gates import ActivationDenseToSparseGate, DenseToSparseGate, LaplaceGate

from .inverse_bound import InverseBound, inverse_bound
from .local_exponent import LocalExponent, local_exponent
from .neighbourhood import Neighbourhood

Powers = Mapping[str, float]


@dataclass(frozen=True)
class Setting:
    """One cell to settle.

    Attributes
    ----------
    name : str
    build : callable
        Makes the `Neighbourhood`.
    published, derived : mapping of str to float
        Powers of the loss as published or conjectured, and the least ones as derived here.
    deltas : tuple of float or None
        Sizes, if not the default ones.
    """

    name: str
    build: Callable[[], Neighbourhood]
    published: Powers
    derived: Powers
    deltas: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class Settlement:
    """What was found for a setting.

    Attributes
    ----------
    setting : Setting
    exponents : dict of str to LocalExponent
    published, derived : InverseBound
        The verdicts on both sets of powers.
    seconds : float
        Of wall time.
    """

    setting: Setting
    exponents: Mapping[str, LocalExponent]
    published: InverseBound
    derived: InverseBound
    seconds: float

    def __str__(self) -> str:
        return "\n".join(
            [
                self.setting.name,
                f"As published: {self.published}",
                f"As derived: {self.derived}",
            ]
        )


def settle(name: str, *, n_starts: int = 2) -> Settlement:
    """Measure the exponents of a setting and judge its powers.

    Parameters
    ----------
    name : str
        A key of `SETTINGS`.
    n_starts : int
        As for `local_exponent`.

    Returns
    -------
    Settlement

    Raises
    ------
    ValueError
        If there is no such setting.
    """
    check_choice("name", name, tuple(SETTINGS))
    check_count("n_starts", n_starts)
    setting, begun = SETTINGS[name], time.monotonic()
    near = setting.build()
    found = {
        g: local_exponent(near, g, deltas=setting.deltas, n_starts=n_starts)
        for g in setting.derived
    }
    return Settlement(
        setting,
        found,
        inverse_bound(found, setting.published),
        inverse_bound(found, setting.derived),
        time.monotonic() - begun,
    )


def probe_truth() -> GaussianMoE:
    """Two softmax experts of one feature; variances .3 and .4."""
    gate = SoftmaxGate(_array([0.3, 0.0]), _array([[1.0], [0.0]]))
    return GaussianMoE(gate, _experts([[-1.0], [1.0]], [0.5, -0.5], [0.3**0.5, 0.4**0.5]))


def plane_truth() -> GaussianMoE:
    """The probe truth with a second feature."""
    gate = SoftmaxGate(_array([0.3, 0.0]), _array([[1.0, -0.5], [0.0, 0.0]]))
    slope = [[-1.0, 0.5], [1.0, 0.3]]
    return GaussianMoE(gate, _experts(slope, [0.5, -0.5], [0.3**0.5, 0.4**0.5]))


def tempered_truth(activation: str | None = None) -> GaussianMoE:
    """Two experts behind a sharp gate of temperature .1, for X on [-3, 3]: the truth of the studies
    of temperature. The gate is dense-to-sparse, or behind an activation."""
    experts = _experts([[-1.0], [1.0]], [4.0, -4.0], [0.3, 0.4])
    parameters = _array([-0.25, 0.0]), _array([[5.0], [0.5]]), _array(0.1)
    if activation is None:
        return GaussianMoE(DenseToSparseGate(*parameters), experts)
    return GaussianMoE(ActivationDenseToSparseGate(*parameters, activation), experts)


def laplace_truth(softening: float = 0.0) -> GaussianMoE:
    """Two experts with centres at 1 and -1, for X on [-3, 3]."""
    gate = LaplaceGate(_array([0.25, 0.0]), _array([[1.0], [-1.0]]), softening)
    return GaussianMoE(gate, _experts([[4.0], [-4.0]], [-1.0, 1.0], [0.3, 0.4]))


def topk_truth() -> GaussianMoE:
    """Three experts, two selected by slope; the second is selected everywhere on [-1, 1]."""
    gate = TopKGate(_array([0.2, 0.0, -0.3]), _array([[2.0], [0.0], [-2.0]]), 2, "slope")
    return GaussianMoE(gate, _experts([[3.0], [-2.0], [1.0]], [4.0, 0.0, -4.0], [0.4, 0.5, 0.45]))


def _array(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _experts(slope: Any, intercept: Any, scale: Any) -> LinearExperts:
    return LinearExperts(_array(slope), _array(intercept), _array(scale))


def _uniform(low: float, high: float, n_features: int = 1) -> Any:
    return Uniform(low, high, n_features)


_FEWER = tuple(np.geomspace(0.08, 0.002, 6).tolist())
_TEMPERED_SIZES = tuple(np.geomspace(0.04, 0.001, 6).tolist())  # a gate of temperature .1 is steep


def _laplace() -> Neighbourhood:
    # the kink at 1 moves by about delta, that at -1 by less: pieces end where it may lie
    moved = [1 + sign * size for size in _FEWER for sign in (1, -1)]
    return Neighbourhood(laplace_truth(), _uniform(-3, 3), cells=(2, 1), breaks=(1.0, -1.0, *moved))


def _powers(gate_slope: float, slope: float, intercept: float, variance: float) -> dict[str, float]:
    return {"gate_slope": gate_slope, "slope": slope, "intercept": intercept, "variance": variance}


_ONE = {**_powers(1, 1, 1, 1), "mass": 1.0}
_TEMPERED = {**_powers(2, 2, 4, 2), "temperature": 2.0}

SETTINGS: dict[str, Setting] = {
    s.name: s
    for s in (
        Setting(
            "softmax, two atoms",
            lambda: Neighbourhood(probe_truth(), _uniform(0, 1), cells=(2, 1)),
            _powers(4, 2, 4, 2),
            _powers(2, 2, 4, 2),
        ),
        Setting(
            "softmax, two atoms, two features",
            lambda: Neighbourhood(plane_truth(), _uniform(0, 1, 2), cells=(2, 1)),
            _powers(4, 2, 4, 2),
            _powers(2, 2, 4, 2),
            _FEWER,
        ),
        Setting(
            "softmax, three atoms",
            lambda: Neighbourhood(probe_truth(), _uniform(0, 1), cells=(3, 1), min_share=0.1),
            _powers(6, 3, 6, 3),
            _powers(2, 2, 6, 3),
        ),
        Setting(
            "softmax, one atom",
            lambda: Neighbourhood(probe_truth(), _uniform(0, 1), cells=(1, 1)),
            _ONE,
            _ONE,
        ),
        Setting(
            "top-K, always selected, two atoms",
            lambda: Neighbourhood(
                topk_truth(),
                _uniform(-1, 1),
                cells=(1, 2, 1),
                gate=TopKGate.template(top_k=3, rank="slope"),
            ),
            _powers(4, 2, 4, 2),
            _powers(2, 2, 4, 2),
            _FEWER,
        ),
        Setting(
            "dense-to-sparse, temperature fixed, two atoms",
            lambda: Neighbourhood(
                tempered_truth(), _uniform(-3, 3), cells=(2, 1), hold=("temperature",)
            ),
            _powers(4, 2, 4, 2),
            _powers(2, 2, 4, 2),
            _TEMPERED_SIZES,
        ),
        *(
            Setting(
                f"{activation} dense-to-sparse, two atoms",
                lambda activation=activation: Neighbourhood(  # type: ignore[misc]
                    tempered_truth(activation), _uniform(-3, 3), cells=(2, 1)
                ),
                _TEMPERED,
                {**_TEMPERED, "temperature": 1.0},
                _TEMPERED_SIZES,
            )
            for activation in ("sigmoid", "tanh", "gelu")
        ),
        Setting(
            "Laplace, two atoms",
            _laplace,
            _powers(2, 2, 4, 2),
            _powers(1.5, 2, 4, 2),
            _FEWER,
        ),
        Setting(
            "softened Laplace, two atoms",
            lambda: Neighbourhood(laplace_truth(0.2), _uniform(-3, 3), cells=(2, 1)),
            _powers(2, 2, 4, 2),
            _powers(2, 2, 4, 2),
            _FEWER,
        ),
    )
}
"""Settings by name, with published or conjectured powers and the derived ones."""
