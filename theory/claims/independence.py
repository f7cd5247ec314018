"""Which activations identify the gate: independence of its derivatives in x."""

from __future__ import annotations

from typing import Any

from ..independence import IndependenceReport, independence_report
from .base import Check, Claim, Outcome, whether

_SUPPORT = (-3.0, 3.0)
_IDENTIFY = ("sigmoid", "tanh", "gelu", "silu")
_FAIL = ("identity", "relu", "square", "cube")


def _first() -> Outcome:
    return _reports(1)


def _second() -> Outcome:
    return _reports(2)


def _reports(order: int) -> Outcome:
    slopes = [[5.0], [0.5]]
    good = {p: independence_report(p, slopes, _SUPPORT, order) for p in _IDENTIFY}
    # with slopes of one sign ReLU is the identity on each half
    bad = {
        p: independence_report(p, [[5.0], [-1.0]] if p == "relu" else slopes, _SUPPORT, order)
        for p in _FAIL
    }
    mirrored = {
        p: independence_report(p, [[1.0], [-1.0]], _SUPPORT, order) for p in ("sigmoid", "gelu")
    }
    holds = all(r.independent for r in good.values())
    holds &= not any(r.independent for r in bad.values())
    least = min(r.singular_values.min() for r in good.values())
    related = ", ".join(p for p, r in bad.items() if not r.independent)
    return Outcome(
        whether(holds),
        f"{', '.join(p for p, r in good.items() if r.independent)} are independent (least singular "
        f"value {least:.1e}); related are {related} (for instance "
        f"{bad['relu'].relation.split(';')[-1].strip()}).",
        {"reports": [_row(p, r) for p, r in (good | bad).items()]},
        {f"independence of {p} at mirrored slopes": not r.independent for p, r in mirrored.items()},
    )


def _row(name: str, report: IndependenceReport) -> dict[str, Any]:
    return {
        "family": f"{name}, order {report.order}",
        "independent": report.independent,
        "relation": report.relation,
        "singular_values": report.singular_values.tolist(),
    }


CLAIM = Claim(
    name="independence",
    statement="Sigmoid, tanh, GELU and SiLU identify slopes and temperature of their gate at first "
    "and at second order; the identity, ReLU and powers, being homogeneous, do not; mirrored "
    "slopes never do.",
    source="arXiv 2401.13875 asks for conditions of first and second order; these derived here",
    assumptions="Two experts of slopes 5 and .5 (ReLU: 5 and -1), one feature in [-3, 3].",
    standing="derived",
    checks=(
        Check("calculus", "is it so at first order?", _first),
        Check("calculus", "is it so at second order?", _second, seconds=3),
    ),
)
