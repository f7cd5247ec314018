"""Everything that a study of kind `rates` shows: one rate figure an arm, arms compared, and what a
temperature costs where the truth has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from experiments.kinds import get_kind
from experiments.simulation import truth
from theory.assessment import Attainment, assess, attainment, comparable, summary
from theory.exponents import HYPOTHETICAL

from . import Rendered, Stored
from .estimators import comparison, estimators_figure
from .levels import closest_gates, levels, levels_figure
from .moving import moving_figure, moving_rates, moving_table
from .rates import rates_figure
from .style import save, stamp_of
from .temperature import laws, temperature_figure


def render(
    study: Any,
    profile: str,
    table: pd.DataFrame,
    prepared: dict[str, Any],
    folder: Path,
    beside: Stored | None = None,
) -> Rendered:
    """Draw a rate study; see `paper_figures.render`.

    Arms of which one does not attain the truth near its atoms are compared by where their distances
    go; others as ways of fitting, or of finding a temperature.
    """
    stamp = stamp_of(study, profile)
    files: list[Path] = []
    parts = []
    good = table[table["status"] == "ok"]
    attained = {arm: _attained(prepared, arm) for arm in study.setting.arms}
    interacting = "gate_slope" in truth(study.setting).gate.translates
    stated = "hypothesis" if study.setting.fitted_gate.name in HYPOTHETICAL else "published"
    for arm, where in attained.items():
        rows = comparable(good[good["arm"] == arm])
        assessed = assess(rows, random_state=study.seed, attained=where, interacting=interacting)
        tail = assess(
            rows,
            random_state=study.seed,
            statistic="quantile90",
            attained=where,
            interacting=interacting,
        )
        part = pd.concat([summary(assessed), summary(tail)], ignore_index=True)
        part.insert(0, "arm", arm)
        parts.append(part)
        if where == "near":
            figure = rates_figure(assessed, rows, f"{study.title} ({arm})", stated)
            files += save(figure, part, folder, f"{profile}-rates-{arm}", stamp)
        moving = study.setting.moving
        if moving is not None:
            found = moving_rates(rows, study.seed)
            figure = moving_figure(found, moving.exponent, f"{study.title} ({arm})")
            files += save(figure, moving_table(found), folder, f"{profile}-moving-{arm}", stamp)
    if set(attained.values()) != {"near"}:
        attainable = prepared.get("arms", {})
        distances, probabilities = levels(good), closest_gates(study.setting, attainable)
        figure = levels_figure(distances, probabilities, attainable, study.title)
        files += save(figure, distances, folder, f"{profile}-levels", stamp)
        if len(probabilities) > 0:
            path = folder / f"{profile}-levels-gates.csv"
            probabilities.to_csv(path, index=False, float_format="%.8g")
            files.append(path)
    elif "profile" in prepared:
        shown = [Stored(study, table, prepared), *([] if beside is None else [beside])]
        figure = temperature_figure(shown, "What a temperature costs")
        files += save(figure, laws(shown), folder, f"{profile}-temperature", stamp)
    elif len(study.setting.arms) > 1:
        weight = max(arm.min_weight for arm in study.setting.arms.values())
        figure = estimators_figure(good, weight, f"{study.title}: ways of fitting")
        files += save(figure, comparison(good, weight), folder, f"{profile}-estimators", stamp)
    verdicts = pd.concat(parts, ignore_index=True)
    return Rendered(files, _shown(verdicts), _headline(study, verdicts, table, prepared))


def _attained(prepared: dict[str, Any], arm: str) -> Attainment:
    found = prepared.get("arms", {}).get(arm)
    return "near" if found is None else attainment(found)


def _shown(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The table for the terminal: one row a quantity, medians only, a column a question."""
    rows = []
    medians = verdicts[verdicts["statistic"] == "median"]
    for (arm, quantity), part in medians.groupby(["arm", "quantity"], sort=False):
        first = part.iloc[0]
        answers = {
            (role, question): f"{status} ({_named(predicted)})"
            for role, question, status, predicted in zip(
                part["role"], part["question"], part["verdict"], part["predicted"], strict=True
            )
        }
        rows.append(
            {
                "arm": arm,
                "quantity": quantity,
                "slope": f"{first['slope']:z.3f}",
                "95% interval": f"{first['low']:z.3f}, {first['high']:z.3f}",
                "bound holds": answers.get(("published", "bound"), ""),
                "bound is sharp": answers.get(("published", "sharp"), ""),
                "derived is sharp": answers.get(("derived", "sharp"), ""),
                "wrong on purpose": answers[("control", "sharp")],
            }
        )
    shown = pd.DataFrame(rows)
    silent = [column for column in shown if (shown[column] == "").all()]
    if shown["arm"].nunique() == 1:
        silent.append("arm")
    return shown.drop(columns=silent)


def _named(predicted: float) -> str:
    return f"{-predicted:.3g}" if predicted else "levels off"


def _headline(
    study: Any, verdicts: pd.DataFrame, table: pd.DataFrame, prepared: dict[str, Any]
) -> str:
    medians = verdicts[verdicts["statistic"] == "median"]
    described = get_kind(study.kind).describe(prepared)
    lines = [described] if described else []
    for arm, rows in medians.groupby("arm", sort=False):
        claims = rows[rows["role"] != "control"]["verdict"].value_counts()
        control = rows[rows["role"] == "control"]["verdict"]
        lines.append(
            f"{study.name} ({arm}): {claims.get('consistent', 0)} predictions consistent, "
            f"{claims.get('inconsistent', 0)} inconsistent, "
            f"{claims.get('inconclusive', 0)} inconclusive; "
            f"{(control == 'inconsistent').sum()} of {len(control)} wrong predictions rejected."
        )
    good = table[table["status"] == "ok"]
    failed = len(table) - len(good)
    unsettled = good[~good["converged"].astype(bool)]["arm"].value_counts()
    named = ", ".join(f"{count} of arm {arm}" for arm, count in unsettled.items()) or "none"
    lines.append(f"{failed} of {len(table)} cells failed; fits that did not converge: {named}.")
    return "\n".join(lines)
