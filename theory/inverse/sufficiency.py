r"""Is the bound on K' for over-specified top-K gates sufficient?

The bound asks for K' at least the largest number of fitted atoms that K true experts can hold,

.. math:: K' \ge \max_{|T| = K} \sum_{l \in T} |A_l|.

It is necessary near the truth. It is sufficient only if the atoms of the experts selected at x are
exactly K' for almost every x; otherwise an atom of another expert is selected too, with a weight
that does not vanish. `theory.attainable` measures what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moe_stats import Design, GateTemplate, GaussianMoE

from ..attainable import ATTAINED, AttainableDistance, attainable_distance


@dataclass(frozen=True, eq=False)
class Sufficiency:
    """Whether the bound guarantees the true density near the truth.

    Attributes
    ----------
    allowed : dict of (tuple of int) to float
        E_X h of copies for every way to share fitted atoms, by the true atom of each, that the
        bound allows with this K'.
    near : float
        Smallest E_X h near the truth, over all ways.
    sufficient : bool
        Whether every allowed way attains the truth.
    attainable : AttainableDistance
    sentence : str
    """

    allowed: dict[tuple[int, ...], float]
    near: float
    sufficient: bool
    attainable: AttainableDistance
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def topk_sufficiency(
    truth: GaussianMoE,
    design: Design,
    *,
    n_experts: int,
    gate: GateTemplate,
    random_state: Any = 0,
) -> Sufficiency:
    """Distances of every sharing that the bound allows.

    Parameters
    ----------
    truth : GaussianMoE
        Behind a top-K gate.
    design : Design
    n_experts : int
        k, at least the number of true experts.
    gate : GateTemplate
        The fitted gate, with its K'.
    random_state : None, int, SeedSequence or Generator
        Of the search near the truth.

    Returns
    -------
    Sufficiency

    Raises
    ------
    ValueError
        If truth or fit have no top-K gate, or k is too small.
    """
    selected, fitted = truth.gate.form.top_k, gate.form().top_k
    if selected is None or fitted is None:
        raise ValueError(
            "The 'truth' and 'gate' parameters must be top-K gates; got "
            f"{type(truth.gate).__name__} and {gate!r}."
        )
    if n_experts < truth.n_experts:
        raise ValueError(
            f"The 'n_experts' parameter must be an int in [{truth.n_experts}, inf), the number of "
            f"true experts; got {n_experts!r}."
        )
    found = attainable_distance(
        truth, design, n_experts=n_experts, gate=gate, everywhere=False, random_state=random_state
    )
    allowed = {}
    for split in found.splits:
        sizes = sorted((split.cells.count(j) for j in range(truth.n_experts)), reverse=True)
        if sum(sizes[:selected]) <= fitted:
            allowed[split.cells] = split.copies
    failing = {c: h for c, h in allowed.items() if h > ATTAINED}
    sufficient = bool(allowed) and not failing
    shown = ", ".join(f"{c}: {h:.3g}" for c, h in allowed.items()) or "none"
    verdict = "sufficient here" if sufficient else "not sufficient"
    return Sufficiency(
        allowed=allowed,
        near=found.near,
        sufficient=sufficient,
        attainable=found,
        sentence=(
            f"K' = {fitted} for k = {n_experts}, K = {selected} is {verdict}: E_X h of copies by "
            f"allowed sharing is {shown}; the smallest found near the truth "
            f"is {found.near:.3g}."
        ),
    )
