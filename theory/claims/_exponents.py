"""Checks on inverse bounds: local exponents by quadrature against the powers of a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

from ..inverse import InverseBound, LocalExponent, Settlement, inverse_bound, settle
from ..inverse.inverse_bound import Answer as YesNo
from .base import Answer, Check, Outcome

VERDICTS: dict[YesNo, Answer] = {
    "yes": "consistent",
    "no": "inconsistent",
    "undecided": "inconclusive",
}

settled = cache(settle)
"""`theory.inverse.settle`, once a process: several claims speak of one setting."""


def inverse(
    question: str,
    setting: str,
    *,
    role: Literal["published", "derived"],
    asked: Literal["bound", "sharp"],
    seconds: float,
    groups: Sequence[str] | None = None,
) -> Check:
    """A check that the powers of a loss bound the distance of a setting, or are sharp.

    Parameters
    ----------
    question : str
        Of the check.
    setting : str
        A key of `theory.inverse.SETTINGS`.
    role : {"published", "derived"}
        Which powers.
    asked : {"bound", "sharp"}
    seconds : float
        Expected.
    groups : sequence of str or None
        Only of these groups of parameters; of all by default.

    Returns
    -------
    Check
        Its control: half the powers as a bound, or twice the powers as sharp.
    """

    def ask() -> Outcome:
        found = settled(setting)
        every: InverseBound = getattr(found, role)
        powers = {g: p for g, p in every.powers.items() if groups is None or g in groups}
        judged = inverse_bound(found.exponents, powers)
        factor = 0.5 if asked == "bound" else 2.0
        wrong = inverse_bound(found.exponents, {g: factor * p for g, p in powers.items()})
        answer, control = (
            (judged.holds, wrong.holds) if asked == "bound" else (judged.is_sharp, wrong.is_sharp)
        )
        return Outcome(
            VERDICTS[answer],
            f"{setting}: {judged}",
            {"exponents": [curve(found, group) for group in found.exponents]},
            {f"{factor:g} times the powers": control == "no"},
        )

    return Check("quadrature", question, ask, seconds=seconds)


def curve(found: Settlement, group: str) -> dict[str, Any]:
    """Distances over deviations of a group, with the exponent and what was said of it."""
    e: LocalExponent = found.exponents[group]
    said: dict[str, Mapping[str, float]] = {
        "published": found.setting.published,
        "derived": found.setting.derived,
    }
    return {
        "name": f"{found.setting.name}: {group.replace('_', ' ')}",
        "deltas": e.deltas.tolist(),
        "values": e.values.tolist(),
        "exponent": e.exponent,
        "error": e.error,
        "status": e.status,
        "predicted": {role: powers[group] for role, powers in said.items() if group in powers},
    }
