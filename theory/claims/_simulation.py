"""Checks on simulated data: what `theory.assessment` says of a study, as one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ..assessment import Assessment, assess, attainment, comparable
from ..verdict import Question
from .base import Answer, Check, Data, Outcome, all_of

Role = Literal["published", "derived"]
Cells = Literal["single", "multi", "overall"]


def rates(
    question: str,
    study: str,
    arm: str,
    *,
    role: Role,
    asked: Question,
    groups: Sequence[str],
    cells: Cells = "overall",
    interacting: bool = True,
) -> Check:
    """A check that errors of some groups of parameters shrink as predicted.

    Parameters
    ----------
    question : str
        Of the check.
    study, arm : str
        Whose fits.
    role : {"published", "derived"}
        Which prediction of `theory.assessment`; where none was derived beside a published rate,
        the latter is both.
    asked : {"bound", "sharp"}
    groups : sequence of str
        As `theory.exponent` takes them.
    cells : {"single", "multi", "overall"}
        Whether deviations in cells of one atom, of several, or quantities over all cells.
    interacting : bool
        As `theory.exponent` takes it.

    Returns
    -------
    Check
        Its controls are the wrong exponents of `theory.assessment`: a quantity on which it is not
        rejected counts as inconclusive at best.
    """

    def ask(data: Data) -> Outcome:
        table = data.table
        rows = comparable(table[(table["status"] == "ok") & (table["arm"] == arm)])
        near = data.prepared.get("arms", {}).get(arm)
        assessed = assess(
            rows,
            random_state=data.seed,
            attained="near" if near is None else attainment(near),
            interacting=interacting,
        )
        wanted = [a for a in assessed if _speaks_of(a, groups, cells)]
        return _judged(wanted, role, asked, arm)

    return Check("simulation", question, ask, study)


def _judged(assessed: list[Assessment], role: Role, asked: Question, arm: str) -> Outcome:
    rows: list[dict[str, Any]] = []
    answers: list[Answer] = []
    for a in assessed:
        found = {name: v for name, v in a.verdicts if v.question == asked}
        source = role if role in found else "published"  # where no other rate was derived
        if source not in found:
            continue
        chosen = found[source]
        control = next(v for name, v in a.verdicts if name == "control")
        rejected = control.status == "inconsistent"
        powerless = chosen.status == "consistent" and not rejected
        answers.append("inconclusive" if powerless else chosen.status)
        rows.append(
            {
                "quantity": a.quantity.label,
                "role": source,
                "question": asked,
                "predicted": -chosen.predicted,
                "slope": chosen.slope,
                "low": chosen.interval[0],
                "high": chosen.interval[1],
                "verdict": answers[-1],
                "control": -control.predicted,
                "control_rejected": rejected,
            }
        )
    numbers = {"arm": arm, "rates": rows}
    if not rows:
        words = "The study measures nothing that this check speaks of."
        return Outcome("inconclusive", words, numbers, {})
    words = "; ".join(
        f"{r['quantity']} {r['slope']:z.3f} [{r['low']:z.3f}, {r['high']:z.3f}] "
        f"against {r['predicted']:z.4g}: {r['verdict']}"
        for r in rows
    )
    rejected_any = any(r["control_rejected"] for r in rows)
    return Outcome(
        all_of(answers),
        f"Slopes of the median error ({arm}): {words}.",
        numbers,
        {"a wrong exponent of any quantity": rejected_any},
    )


def _speaks_of(assessed: Assessment, groups: Sequence[str], cells: Cells) -> bool:
    q = assessed.quantity
    if q.group not in groups:
        return False
    where = next((kind for kind in ("single", "multi") if f"_{kind}_" in q.column), "overall")
    return where == cells
