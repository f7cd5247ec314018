"""Forecasters on hidden parts of records: scores with verdicts, and what forecasts look like.

The first arm of a study is judged: its coverage on each task, and its CRPS and interval score
against each other arm's (`forecast_verdicts` has the rules). Where a profile bounds its scores on a
table, each bound is met or missed, by the mean over replicates. In an ablation the other arms lack
a part of the first, and the difference is what that part is worth. A study that hides at several
rates is drawn by rate alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from . import Rendered
from .forecast_maps import map_figure, places_of, series_figure, series_of
from .forecast_scores import (
    grouped,
    groups_figure,
    rates_figure,
    reliability_figure,
    reliability_table,
    scores_figure,
    worth_figure,
)
from .forecast_verdicts import (
    BOUNDS,
    CITY,
    block_sums,
    differences,
    scores,
    verdict_of_coverage,
)
from .style import save, stamp_of


def render(
    study: Any, profile: str, table: pd.DataFrame, prepared: dict[str, Any], folder: Path
) -> Rendered:
    """Draw a study of forecasts; see `paper_figures.render`."""
    good = table[table["status"] == "ok"]
    good = in_order(good, list(study.setting.tasks), list(study.setting.arms))
    data = " and ".join(good["data"].unique())
    stamp = f"{stamp_of(study, profile)}, record {data}"
    unit = study.setting.unit_of(good["data"].iloc[0])
    models = list(good["model"].unique())
    title = study.title if study.setting.table is None else f"{study.title} (record: {data})"
    sums = block_sums(good)
    found = scores(sums)
    wanted = study.profile(profile)
    found["coverage95_verdict"] = [
        verdict_of_coverage(
            row["coverage95_low"],
            row["coverage95_high"],
            row["blocks"],
            wanted.coverage.get(row["task"], BOUNDS),
        )
        for row in found.to_dict("records")
    ]
    at_most = {} if CITY in set(good["data"]) else wanted.at_most
    found["at_most"] = told_bounds(found, at_most)
    seconds = good.assign(seconds=good["fit_seconds"] + good["predict_seconds"])
    found = found.merge(seconds.groupby(["task", "model"])["seconds"].mean().reset_index())
    files: list[Path] = []

    def keep(figure: Any, shown: pd.DataFrame, name: str) -> None:
        files.extend(save(figure, shown, folder, f"{profile}-{name}", stamp))

    worth = differences(sums, models[0])
    rates = with_rates(found, study.setting.tasks)
    if len(rates):
        keep(rates_figure(rates, title, unit), rates, "rates")
        return Rendered(files, summary(found, worth), headline(study, good, found, worth))
    keep(scores_figure(found, title, unit), found, "scores")
    if len(worth):
        keep(worth_figure(worth, models[0], title), worth, "worth")
    levels = reliability_table(good)
    keep(reliability_figure(levels, title), levels, "reliability")
    for by in ("horizon", "gap"):
        groups = grouped(good, by, study.setting.tasks)
        if len(groups):
            keep(groups_figure(groups, by, title, unit), groups, by)
    own = good[(good["model"] == models[0]) & (good["replicate"] == 0)]
    for name, table_of, draw in (
        ("series", series_of, series_figure),
        ("places", places_of, map_figure),
    ):
        if name in own and own[name].notna().any():
            shown = table_of(own)
            keep(draw(shown, title, unit), shown, name)
    return Rendered(files, summary(found, worth), headline(study, good, found, worth))


def in_order(table: pd.DataFrame, tasks: list[str], arms: list[str]) -> pd.DataFrame:
    """Rows in the order of the study's tasks and arms, then of replicates."""
    keys = pd.DataFrame(
        {
            "task": table["task"].map(tasks.index),
            "model": table["model"].map(arms.index),
            "replicate": table["replicate"],
        }
    )
    return table.loc[keys.sort_values(["task", "model", "replicate"]).index].reset_index(drop=True)


def with_rates(found: pd.DataFrame, tasks: dict[str, Any]) -> pd.DataFrame:
    """Scores with pattern and rate of their task; none unless a pattern has several rates."""
    own = found[[tasks[task].rate is not None for task in found["task"]]]
    own = own.assign(
        pattern=[tasks[task].pattern for task in own["task"]],
        rate=[tasks[task].rate for task in own["task"]],
    )
    return own if own.groupby("pattern")["rate"].nunique().gt(1).any() else own.iloc[:0]


def told_bounds(found: pd.DataFrame, at_most: dict[str, dict[str, float]]) -> list[str]:
    """For each row, whether the first model's scores are at most their bounds."""
    first = found["model"].iloc[0]
    return [
        ", ".join(
            f"{name.upper()} {bound:g} {'met' if row[name] <= bound else 'missed'}"
            for name, bound in at_most.get(row["task"], {}).items()
            if row["model"] == first
        )
        for row in found.to_dict("records")
    ]


def summary(found: pd.DataFrame, worth: pd.DataFrame) -> pd.DataFrame:
    """The table for the terminal, a row a task and model; after ± stand standard errors."""
    gaps = {(row["task"], row["model"]): row for row in worth.to_dict("records")}
    rows = []
    for row in found.to_dict("records"):
        gap = gaps.get((row["task"], row["model"]))
        rows.append(
            {
                "task": row["task"],
                "model": row["model"],
                "MAE": row["mae"],
                "CRPS": row["crps"],
                "above 1st": "" if gap is None else _told(gap, "crps", "+.3g"),
                "1st better": "" if gap is None else gap["crps_verdict"],
                "interval": row["interval_score95"],
                "95% cover": _told(row, "coverage95", ".3f"),
                "in bounds": row["coverage95_verdict"],
                "at most": row["at_most"],
                "CPU s": f"{row['seconds']:.1f}",
            }
        )
    table = pd.DataFrame(rows)
    return table if table["at most"].any() else table.drop(columns="at most")


def headline(study: Any, good: pd.DataFrame, found: pd.DataFrame, worth: pd.DataFrame) -> str:
    """The outcome in some sentences."""
    first = found["model"].iloc[0]
    own = found[found["model"] == first]
    lines = [
        f"{study.name} on {', '.join(good['data'].unique())}: 95% intervals of {first} within "
        f"their bounds: {_counts(own['coverage95_verdict'])}."
    ]
    told = ", ".join(own["at_most"][own["at_most"] != ""])
    if told:
        lines.append(
            f"Its bounds on scores: {told.count('met')} met, {told.count('missed')} missed."
        )
    for name, words in (("crps", "CRPS"), ("interval_score95", "interval score")):
        if len(worth):
            counts = _counts(worth[f"{name}_verdict"])
            lines.append(f"Its {words} below another arm's: {counts}.")
    lines.append(
        f"{len(good)} cells, {own['blocks'].min()} to {own['blocks'].max()} blocks of days a "
        "task; intervals are 95% ones, each of its own, not of all together."
    )
    return "\n".join(lines)


def _counts(verdicts: pd.Series) -> str:
    return ", ".join(f"{count} {word}" for word, count in verdicts.value_counts().items())


def _told(row: dict[Any, Any], name: str, form: str) -> str:
    return f"{row[name]:{form}} ± {row[f'{name}_se']:.2g}"
