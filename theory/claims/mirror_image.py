"""Two experts behind sigmoid or tanh have a second gate with the same density."""

from __future__ import annotations

import dataclasses

from moe_stats import GaussianMoE

from ..distances import hellinger
from ._truths import activation
from .base import Check, Claim, Outcome, whether

_ROUNDING = 1e-7
"""E_X h below which two densities are the same: the root of float64's precision, and some."""


def _mirrored(psi: str, slope: tuple[float, ...] = (5.0, 0.5)) -> float:
    """E_X h between a truth and the gate with slopes negated, in reverse order."""
    # a temperature of 1, at which a wrong image is far off
    truth, law = activation(psi, slope, temperature=1.0)
    gate = dataclasses.replace(truth.gate, slope=-truth.gate.slope.flip(-2))  # type: ignore[type-var]
    return float(hellinger(GaussianMoE(gate, truth.experts), truth, law).value)


def _same_density() -> Outcome:
    same = {psi: _mirrored(psi) for psi in ("sigmoid", "tanh")}
    others = {psi: _mirrored(psi) for psi in ("gelu", "silu")}
    three = _mirrored("sigmoid", (5.0, 0.5, -2.0))
    listed = ", ".join(f"{h:.1e} for {psi}" for psi, h in same.items())
    far = ", ".join(f"{h:.2g} for {psi}" for psi, h in others.items())
    return Outcome(
        whether(max(same.values()) < _ROUNDING),
        f"E_X h between slopes (5, .5) and (-.5, -5) is {listed}: psi(z) - psi(w) = psi(-w) - "
        f"psi(-z). It is {far}, and {three:.2g} for three experts behind sigmoid. So slopes are "
        "identified up to the mirror image only, unless the parameter set of the theorem excludes "
        "it: check against the theorem's text.",
        {"same": same, "others": others, "three_experts": three},
        {
            "a mirror image behind GELU and SiLU": min(others.values()) > 100 * _ROUNDING,
            "a mirror image of three experts": three > 100 * _ROUNDING,
        },
    )


CLAIM = Claim(
    name="mirror-image",
    statement="With two experts behind psi odd up to a constant, as sigmoid and tanh are, gates "
    "with slopes (b1_1, b1_2) and (-b1_2, -b1_1) have the same density: a counterexample to the "
    "identification of slopes by such gates.",
    source="derived here (`Gate.equivalents`); against arXiv 2401.13875 as remembered",
    assumptions="Two experts, one shared temperature, activated slopes without intercept inside.",
    standing="derived",
    checks=(Check("quadrature", "is the density the same?", _same_density, seconds=2),),
)
