"""Dense-to-sparse gate: raw parameters have no rate at all."""

from __future__ import annotations

from ..calculus import atom, relation
from ..exponents import OPEN
from ..inverse import temperature_ray
from ._simulation import rates
from ._truths import activation, dense_to_sparse
from .base import Check, Claim, Outcome, whether

_FACTORS = (1.5, 2.0, 10.0)


def _is_flat() -> Outcome:
    truth, law = dense_to_sparse()
    along = {c: temperature_ray(truth, law, factor=c) for c in _FACTORS}
    repaired = temperature_ray(*activation("sigmoid"), factor=2.0)
    return Outcome(
        whether(all(f.flat for f in along.values())),
        f"{along[2.0]} Behind a sigmoid h = {repaired.discrepancy.value:.2g}.",
        {"families": [{"factor": c, "h": f.discrepancy.value} for c, f in along.items()]},
        {"a flat ray behind a sigmoid": not repaired.flat},
    )


def _interacts() -> Outcome:
    of = atom("dense-to-sparse")
    right = relation(of, ("tau",), {("b1",): "-b1/tau"})
    wrong = relation(of, ("tau",), {("b1",): "-1/tau"})
    return Outcome(
        whether(right.proved),
        f"{right} is {'proved' if right.proved else 'not proved'}: to first order the temperature "
        "moves the density as the gate slopes do, the intercepts taking up the rest.",
        {"relation": str(right)},
        {"du/dtau = -(1/tau) du/db1": not wrong.proved},
    )


CLAIM = Claim(
    name="dense-to-sparse-raw",
    statement="The raw parameters b0, b1, tau of a dense-to-sparse gate are not identified, and "
    "have no rate at all: (b0, b1, tau) and c (b0, b1, tau) have one density. Published: slower "
    "than any polynomial, possibly 1 / log n.",
    source="derived here (docs/inverse_bounds.md); published in arXiv 2401.13875",
    assumptions="No scale of the gate is fixed beforehand. Whether the paper fixes one: check "
    "against the theorem's text.",
    standing="derived",
    checks=(
        Check("calculus", "does tau interact with b1?", _interacts),
        Check("quadrature", "is the density the same along the ray?", _is_flat, seconds=3),
        rates(
            "do raw errors level off?",
            "dense-to-sparse-exact",
            "mle",
            role="derived",
            asked="sharp",
            groups=[OPEN],
        ),
    ),
)
