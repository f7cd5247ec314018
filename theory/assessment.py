"""Assessment of a rate study: every measured quantity against what was predicted of it.

Takes the tidy table of a study (one row a fit: columns ``n``, ``hellinger``, ``voronoi_loss``,
deviations of selection boundaries and those of `VoronoiLoss.columns`), gives one row for each
quantity, prediction and question. Wrong predictions are put in on purpose as controls: a study that
cannot reject them says nothing by accepting the right ones.

What is judged depends on where the fitted family has the truth's density (`attainment`): near the
truth's atoms, where the theorems on parameters apply; elsewhere only, where the density alone can
converge; nowhere, where its distance has to level off.

A distance that levels off still comes down to its level, by ever less: its slope is not 0 but tends
to it, and the data tell so. That it levels off is therefore an equivalence: consistent if the 95%
interval of the slope over the larger half of the sizes lies within .03 of 0, inconsistent if that
interval and the one of all sizes lie beyond .03 on one side, else inconclusive. The same is asked
of parameters that the density does not determine, such as the temperature of a dense-to-sparse
gate: their errors go nowhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .attainable import ATTAINED
from .exponents import BOUNDARY, IN_CELLS, OPEN, exponent
from .rates import Rate, fit_rate
from .verdict import Question, Statistic, Status, Verdict, verdict

if TYPE_CHECKING:
    import pandas as pd

Attainment = Literal["near", "everywhere", "nowhere"]

LEVEL = 0.03
"""Slopes this near 0 count as level."""

_FEWEST = 5
"""Replicates that a rate needs at every size."""


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
        Fitted atoms in the cells it is measured in; 1 where cells play no part.
    """

    column: str
    label: str
    group: str
    cell_size: int


DENSITY = Quantity("hellinger", "Hellinger distance", "density", 1)
LOSS = Quantity("voronoi_loss", "Voronoi loss", "loss", 1)
OVERALL = (
    Quantity("mass_deviation", "mass", "mass", 1),
    Quantity("selection_distance", "selection", "selection", 1),
    Quantity("direction_deviation", "direction of boundaries", "direction", 1),
    Quantity("length_deviation", "length across boundaries", "length", 1),
)
"""Quantities measured over all cells, where a study has them."""
TEMPERATURE = Quantity("temperature_deviation", "temperature", "temperature", 1)
RAW_SLOPE = Quantity("raw_gate_slope_deviation", "gate slope, raw", OPEN, 1)


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


def attainment(attainable: Mapping[str, Any]) -> Attainment:
    """Where a family attains the truth, by its smallest distances.

    Parameters
    ----------
    attainable : mapping
        With "near" and "everywhere", each a distance or None; a missing one counts as None.

    Examples
    --------
    >>> attainment({"near": 0.06, "everywhere": 1e-8}), attainment({"near": 0.0})
    ('everywhere', 'near')
    """
    near, everywhere = attainable.get("near"), attainable.get("everywhere")
    if near is not None and near < ATTAINED:
        return "near"
    return "everywhere" if everywhere is not None and everywhere < ATTAINED else "nowhere"


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """The table without deviations that no rate is predicted of, NaN in their place.

    * Gate slopes, and the loss they enter, where every cell is over-fitted: multiplying all cells'
      gates by the same sum_i q_i exp(d_i'x) leaves the density as it is, so they are not
      identified.
    * Deviations in cells of several atoms where the fullest cell has not the commonest size.
    """
    flat = (table["n_single"] == 0) & (table["n_empty"] == 0)
    fullest = _fullest(table)
    other = fullest != _commonest(fullest)
    names = [str(column) for column in table]
    hidden = {name: other for name in names if "_multi_" in name}
    for name in names:
        if name == LOSS.column or name.startswith("gate_slope_"):
            hidden[name] = flat | hidden.get(name, False)
    return table.assign(**{name: table[name].mask(rows) for name, rows in hidden.items()})


def quantities(table: pd.DataFrame) -> list[Quantity]:
    """What the table measures: density, loss, masses, selection boundaries, temperature, and the
    largest deviation of each group of parameters in cells with one and with several atoms.

    Left out is what fewer than half of the fits have, or fewer than 5 at some size, and a deviation
    that is exactly 0 in some fit: the translation of the gate was chosen to make it so, and it says
    nothing.
    """
    found = [DENSITY, *(q for q in (LOSS, *OVERALL) if _is_measured(table, q.column))]
    multi = _commonest(_fullest(table))
    if _is_measured(table, TEMPERATURE.column):
        if "temperature_single_largest" in table:  # an atom's part: the density determines it
            found.append(dataclasses.replace(TEMPERATURE, cell_size=multi))
        else:
            raw = dataclasses.replace(TEMPERATURE, label="temperature, raw", group=OPEN)
            found += [q for q in (raw, RAW_SLOPE) if _is_measured(table, q.column)]
    for kind, size in (("single", 1), ("multi", multi)):
        for group in IN_CELLS:
            column = f"{group}_{kind}_largest"
            if _is_measured(table, column):
                where = "" if multi == 1 else f", {size} atom{'s' * (size > 1)} in the cell"
                label = f"{group.replace('_', ' ')}{where}"
                found.append(Quantity(column, label, group, size))
    return found


def assess(
    table: pd.DataFrame,
    *,
    random_state: int,
    statistic: Statistic = "median",
    attained: Attainment = "near",
    interacting: bool = True,
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
    attained : {"near", "everywhere", "nowhere"}
        Where the arm's family attains the truth; if not near, only the density is judged.
    interacting : bool
        As `exponent` takes it.

    Returns
    -------
    list of Assessment
        In the order of `quantities`.

    Raises
    ------
    ValueError
        If the table has fewer than 3 sizes or 5 replicates at a size.
    """
    table = comparable(table)
    free_cell = bool((table["n_single"] > 0).all())
    assessments = []
    for quantity in quantities(table) if attained == "near" else [DENSITY]:
        rate = fit_rate(table["n"], table[quantity.column], random_state=random_state)
        judged = tuple(
            (role, _judge(rate, a, question, statistic))
            for role, a, question in _questions(quantity, free_cell, attained, interacting)
        )
        assessments.append(Assessment(quantity, rate, judged))
    return assessments


def levels_off(rate: Rate, *, statistic: Statistic = "median") -> Verdict:
    """Judge that an error tends to a level; the module's docstring states the rule.

    Parameters
    ----------
    rate : Rate
        From `theory.fit_rate`.
    statistic : {"median", "quantile90"}
        The quantile of the error that is judged.

    Returns
    -------
    Verdict
        With predicted exponent 0.
    """
    curve = getattr(rate, statistic)
    full, last = curve.stability[0], curve.last_half
    (low, high), both = last.interval, (full.interval, last.interval)
    status: Status = "inconclusive"
    if low >= -LEVEL and high <= LEVEL:
        status = "consistent"
    elif all(interval[1] < -LEVEL for interval in both) or all(i[0] > LEVEL for i in both):
        status = "inconsistent"
    link = "about" if status == "inconclusive" else "with"
    sentence = (
        f"{status.capitalize()} {link} an error that levels off: over the largest {last.n_sizes} "
        f"sizes the slope is {last.slope:z.3f} [{low:z.3f}, {high:z.3f}], to lie within {LEVEL} "
        f"of 0."
    )
    return Verdict(
        status,
        "sharp",
        statistic,
        0.0,
        full.slope,
        full.interval,
        full.half_width,
        last.interval,
        sentence,
    )


def summary(assessments: list[Assessment]) -> pd.DataFrame:
    """One row a verdict: quantity, role, question, predicted and fitted exponent, interval."""
    import pandas as pd

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


def _questions(
    quantity: Quantity, free_cell: bool, attained: Attainment, interacting: bool
) -> Iterator[tuple[str, float, Question]]:
    """(role, exponent, question) for a quantity.

    Whether a published bound is sharp is asked too, where it differs from the derived rate; the
    control swaps the parametric rate for a slower one and the other way round.
    """
    group, size = quantity.group, quantity.cell_size
    if attained == "nowhere":
        yield "derived", exponent(group, size, attained=False), "sharp"
        yield "control", exponent(group, size), "sharp"
        return
    if group == OPEN:
        yield "derived", exponent(group, size), "sharp"
        yield "control", 0.5, "sharp"
        return
    published = exponent(group, size, interacting=interacting)
    yield "published", published, "bound"
    yield "published", published, "sharp"
    slopes = interacting and group in ("gate_slope", "slope")
    if group in BOUNDARY or (size > 1 and (free_cell or not slopes)):
        derived = exponent(
            group, size, source="derived", free_cell=free_cell, interacting=interacting
        )
        if derived != published:
            yield "derived", derived, "sharp"
    yield "control", 0.25 if published == 0.5 else 0.5, "sharp"


def _judge(rate: Rate, a: float, question: Question, statistic: Statistic) -> Verdict:
    if a == 0:
        return levels_off(rate, statistic=statistic)
    return verdict(rate, a, question=question, statistic=statistic)


def _is_measured(table: pd.DataFrame, column: str) -> bool:
    if column not in table:
        return False
    counts = table.groupby("n")[column].count()
    return bool(
        counts.sum() >= 0.5 * len(table)
        and (counts >= _FEWEST).all()
        and not (table[column] == 0).any()
    )


def _fullest(table: pd.DataFrame) -> pd.Series:
    """The number of atoms in the fullest cell of each fit."""
    return table["cell_sizes"].str.split(",").map(lambda sizes: max(map(int, sizes)))


def _commonest(sizes: pd.Series) -> int:
    values, counts = np.unique(sizes, return_counts=True)
    return int(values[counts.argmax()])
