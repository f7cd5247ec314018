"""Assessment of a rate study: every measured quantity against what was predicted of it.

Takes the tidy table of a study (one row a fit: columns ``n``, ``hellinger``, ``voronoi_loss``
and the deviations of `VoronoiLoss.columns`), gives one row for each quantity, prediction and
question. Wrong predictions are put in on purpose as controls: a study that cannot reject them
says nothing by accepting the right ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .exponents import exponent
from .rates import Rate, fit_rate
from .verdict import Question, Statistic, Verdict, verdict

GROUPS = ("gate_slope", "slope", "intercept", "variance")


@dataclass(frozen=True)
class Quantity:
    """Something measured that should shrink with n.

    Attributes
    ----------
    column : str
        Column of the study's table.
    label : str
        In words.
    group : str
        As `exponent` takes it.
    cell_size : int
        Fitted atoms in the cells it is measured in; 1 for density and loss.
    """

    column: str
    label: str
    group: str
    cell_size: int


@dataclass(frozen=True)
class Assessment:
    """A quantity's rate and the verdicts on it.

    Attributes
    ----------
    quantity : Quantity
    rate : Rate
    verdicts : tuple of (str, Verdict)
        Each with its role: "published", "derived" or "control".
    """

    quantity: Quantity
    rate: Rate
    verdicts: tuple[tuple[str, Verdict], ...]


def quantities(table: pd.DataFrame) -> list[Quantity]:
    """What the table measures: density, loss, masses, and the largest deviation of each group of
    parameters in cells with one and with several atoms.

    A deviation that is exactly 0 in some fit is left out: the translation of the gate was chosen
    to make it so, and it says nothing.
    """
    found = [
        Quantity("hellinger", "Hellinger distance", "density", 1),
        Quantity("voronoi_loss", "Voronoi loss", "loss", 1),
        Quantity("mass_deviation", "mass", "mass", 1),
    ]
    multi = _multi_size(table)
    for kind, size in (("single", 1), ("multi", multi)):
        for group in GROUPS:
            column = f"{group}_{kind}_largest"
            if column not in table or table[column].notna().mean() < 0.5:
                continue
            if not (table[column] == 0).any():
                where = "" if multi == 1 else f", {size} atom{'s' * (size > 1)} in the cell"
                label = f"{group.replace('_', ' ')}{where}"
                found.append(Quantity(column, label, group, size))
    return found


def assess(
    table: pd.DataFrame,
    *,
    random_state: int,
    statistic: Statistic = "median",
) -> list[Assessment]:
    """Fit a rate to every quantity of one arm and judge it.

    Parameters
    ----------
    table : DataFrame
        One arm's rows.
    random_state : int
        Seed of the bootstrap.
    statistic : {"median", "quantile90"}
        Which statistic over replicates the verdicts speak of.

    Returns
    -------
    list of Assessment
        In the order of `quantities`.

    Raises
    ------
    ValueError
        If the table has fewer than 3 sizes or 5 replicates at a size.
    """
    free_cell = bool((table["n_single"] > 0).all())
    assessments = []
    for quantity in quantities(table):
        rate = fit_rate(table["n"], table[quantity.column], random_state=random_state)
        judged = tuple(
            (role, verdict(rate, a, question=question, statistic=statistic))
            for role, a, question in _questions(quantity, free_cell)
        )
        assessments.append(Assessment(quantity, rate, judged))
    return assessments


def summary(assessments: list[Assessment]) -> pd.DataFrame:
    """One row a verdict: quantity, role, question, predicted and fitted exponent, interval."""
    rows = []
    for a in assessments:
        for role, v in a.verdicts:
            rows.append(
                {
                    "quantity": a.quantity.label,
                    "statistic": v.statistic,
                    "role": role,
                    "question": v.question,
                    "predicted": -v.predicted,
                    "slope": v.slope,
                    "low": v.interval[0],
                    "high": v.interval[1],
                    "verdict": v.status,
                }
            )
    return pd.DataFrame(rows)


def _questions(quantity: Quantity, free_cell: bool) -> Iterator[tuple[str, float, Question]]:
    """(role, exponent, question) for a quantity.

    Whether a published bound is sharp is asked too, where it differs from the derived rate; the
    control swaps the parametric rate for a slower one and the other way round.
    """
    group, size = quantity.group, quantity.cell_size
    published = exponent(group, size)
    yield "published", published, "bound"
    yield "published", published, "sharp"
    if size > 1 and (free_cell or group not in ("gate_slope", "slope")):
        derived = exponent(group, size, source="derived", free_cell=free_cell)
        if derived != published:
            yield "derived", derived, "sharp"
    yield "control", 0.25 if published == 0.5 else 0.5, "sharp"


def _multi_size(table: pd.DataFrame) -> int:
    """The commonest number of atoms in the fullest cell."""
    fullest = table["cell_sizes"].str.split(",").map(lambda sizes: max(map(int, sizes)))
    values, counts = np.unique(fullest, return_counts=True)
    return int(values[counts.argmax()])
