"""How close matched priors come to a law of functions: functions side by side, distances beside
their floor and their bounds, and distance against seconds of matching where a profile has several
numbers of steps. `functional_prior_distances` says what intervals and verdicts are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from . import Rendered
from .functional_prior_distances import label_of, named, summarised, verdicts
from .functional_prior_pictures import distances_figure, functions_figure, long, seconds_figure
from .style import save, stamp_of


def render(
    study: Any, profile: str, table: pd.DataFrame, prepared: dict[str, Any], folder: Path
) -> Rendered:
    """Draw a study of priors; see `paper_figures.render`."""
    stamp = stamp_of(study, profile)
    good = named(table[table["status"] == "ok"], list(study.setting.arms))
    distances = summarised(good, study.setting.evaluation.n_repeats)
    wanted = study.profile(profile)
    distances["verdict"] = verdicts(distances, wanted.at_most, wanted.at_most_half_of)
    distances["bound"] = [wanted.at_most.get(label) for label in distances["label"]]
    last = distances.loc[distances.groupby(["data", "label"], observed=True)["n"].idxmax()]
    files: list[Path] = []
    for column, stem in (("functions", "functions"), ("class_functions", "classes")):
        drawn = good[good[column].notna()] if column in good else good.iloc[:0]
        if len(drawn):
            kept = drawn.loc[drawn.groupby(["data", "label"], observed=True)["n"].idxmax()]
            figure = functions_figure(kept, study.title, column)
            files += save(figure, long(kept, column), folder, f"{profile}-{stem}", stamp)
    files += save(distances_figure(last, study.title), last, folder, f"{profile}-distances", stamp)
    if len(wanted.steps) > 1:
        figure = seconds_figure(distances, study.title)
        files += save(figure, distances, folder, f"{profile}-seconds", stamp)
    return Rendered(files, _shown(last), _headline(study, last, table))


def _shown(last: pd.DataFrame) -> pd.DataFrame:
    """The table for the terminal: energy distance and sliced W1 with the former's floor."""
    rows = [
        {
            "data": row["data"],
            "prior": label_of(row["label"]),
            "steps": row["n"],
            "CPU s": f"{row['seconds']:.1f}",
            "energy": f"{row['energy_distance']:z.4f}",
            "error": f"{row['energy_distance_error']:.4f}",
            "floor": f"{row['energy_distance_floor']:z.4f}",
            "W1": f"{row['sliced_w1']:.3f}",
            "variance": f"{row['marginal_variance']:.3g}",
            "kurtosis": f"{row['excess_kurtosis']:z.2f}",
        }
        for row in last.to_dict("records")
    ]
    shown = pd.DataFrame(rows)
    return shown.drop(columns="data") if shown["data"].nunique() == 1 else shown


def _headline(study: Any, last: pd.DataFrame, table: pd.DataFrame) -> str:
    lines = [
        f"{study.name} ({row['data']}, {label_of(row['label'])}): energy distance "
        f"{row['energy_distance']:z.3f}, 95% interval {row['energy_distance_low']:z.3f} to "
        f"{row['energy_distance_high']:z.3f}, after {row['seconds']:.1f} CPU s: {row['verdict']}."
        for row in last[last["verdict"] != ""].to_dict("records")
    ]
    failed = table[table["status"] != "ok"]
    lines.append(f"{len(failed)} of {len(table)} cells failed.")
    lines += sorted(set(failed["error"]))
    return "\n".join(lines)
