"""Posteriors of networks under several priors: scores by split with paired tests, or bands.

Scores (`posterior` studies of data with test rows): each arm's score on each split, and its paired
difference to the baseline "fg", N(0, 1) weights, with the 90% t interval of the mean difference.
Where a profile has published scores, the difference to those, split by split, is judged:

============ ======================================================================================
verdict      rule
============ ======================================================================================
met          the mean difference is at most 0, or its interval holds 0 and it is within `WITHIN`
missed       anything else
============ ======================================================================================

Bands (the toy function): the middle and 90% of the functions under each arm's posterior, over those
of the exact posterior of the Gaussian process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from moe_stats.plots import COLOURS, MARKERS

from . import Rendered
from .style import save, stamp_of, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE = "fg"
EXACT = "gp"
SCORES = {
    "rmse": "root mean squared error",
    "accuracy": "accuracy",
    "nll": "negative log density",
    "mixture_nll": "the same, of the mixture",
    "ece": "calibration error",
}
"""Columns that are scores, in the order of their panels."""

WITHIN = {"rmse": 0.05, "nll": 0.02}
"""How far above published scores a mean may be whose interval holds them."""

LEVEL = 0.9


def render(
    study: Any, profile: str, table: pd.DataFrame, prepared: dict[str, Any], folder: Path
) -> Rendered:
    """Draw a posterior study; see `paper_figures.render`."""
    stamp = stamp_of(study, profile)
    good = table[table["status"] == "ok"]
    counts = table["status"].value_counts()
    failed = (
        f"{counts.get('failed', 0)} of {len(table)} cells failed; {counts.get('hot', 0)} ran too "
        f"hot to be samples of their posterior and are left out."
    )
    if "position" in good:
        shown = gaps(good)
        figure = bands_figure(good[good["replicate"] == good["replicate"].min()], study.title)
        files = save(figure, shown, folder, f"{profile}-bands", stamp)
        return Rendered(files, shown, f"{_bands_headline(study, shown)} {failed}")
    published = {k: v.model_dump() for k, v in study.profile(profile).published.items()}
    summary = paired(good, published)
    figure = scores_figure(good, summary, study.title)
    files = save(figure, summary, folder, f"{profile}-scores", stamp)
    return Rendered(files, summary, f"{_scores_headline(study, summary, good)}\n{failed}")


def paired(table: pd.DataFrame, published: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Scores of each arm, and paired differences to the baseline and to published scores.

    Parameters
    ----------
    table : DataFrame
        Cells that did not fail.
    published : dict
        By arm, by score, a number a split.

    Returns
    -------
    DataFrame
        Columns arm, score, splits, mean, sd, against ("fg" or "published"), difference (mean of
        the arm's less the other's), low, high (90% t interval), p (of no difference) and verdict,
        the latter for published scores alone.
    """
    rows = []
    for score in [s for s in SCORES if s in table]:
        wide = table.pivot(index="replicate", columns="arm", values=score)
        for arm in _arms(table):
            own = wide[arm].dropna()
            others = {}
            base = _baseline(arm)
            if base != arm and base in wide:
                others[BASELINE] = wide[base]
            if score in published.get(arm, {}):
                others["published"] = pd.Series(published[arm][score])
            for against, other in (others or {"": own}).items():
                common = own.index.intersection(other.index)
                found = _t_interval((own[common] - other[common]).to_numpy())
                verdict = ""
                if against == "published":
                    inside = found["low"] <= 0 and found["difference"] <= WITHIN[score]
                    verdict = "met" if found["difference"] <= 0 or inside else "missed"
                rows.append(
                    {
                        "arm": arm,
                        "score": score,
                        "splits": len(common),
                        "mean": own.mean(),
                        "sd": own.std(),
                        "against": against,
                        **(found if against else {}),
                        "verdict": verdict,
                    }
                )
    return pd.DataFrame(rows)


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """How far each arm's posterior on the grid is from that of the Gaussian process.

    Returns
    -------
    DataFrame
        Columns arm, replicates, mean_gap (root mean square difference of the means), spread_ratio
        (mean standard deviation over the exact one's), inside (share of the true function in the
        band), rhat (the largest).
    """
    rows = []
    exact = {r.replicate: r for r in _rows(table[table["prior"] == EXACT])}
    for arm in _arms(table):
        part = table[table["arm"] == arm]
        found = []
        for row in _rows(part):
            ours, theirs = _arrays(row), _arrays(exact[row.replicate])
            found.append(
                {
                    "mean_gap": np.sqrt(np.mean((ours["mean"] - theirs["mean"]) ** 2)),
                    "spread_ratio": ours["spread"].mean() / theirs["spread"].mean(),
                    "inside": np.mean(
                        (ours["low"] <= ours["truth"]) & (ours["truth"] <= ours["high"])
                    ),
                }
            )
        means = pd.DataFrame(found).mean()
        rhat = part["rhat"].max() if "rhat" in part else np.nan
        rows.append({"arm": arm, "replicates": len(part), **means, "rhat": rhat})
    return pd.DataFrame(rows)


def scores_figure(table: pd.DataFrame, summary: pd.DataFrame, title: str) -> Figure:
    """Scores of each split above, paired differences to the baseline below, a column a score.

    Parameters
    ----------
    table : DataFrame
        Cells that did not fail.
    summary : DataFrame
        As `paired` returns it.
    """
    from matplotlib.figure import Figure

    scores, arms = [s for s in SCORES if s in table], _arms(table)
    with style():
        figure = Figure(figsize=(3.0 * len(scores) + 0.6, 4.8))
        axes = figure.subplots(2, len(scores), squeeze=False, sharex=True)
        for (above, below), score in zip(axes.T, scores, strict=True):
            for i, arm in enumerate(arms):
                colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
                values = table.loc[table["arm"] == arm, score]
                shift = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [0.0]
                above.plot(i + np.asarray(shift), values, marker, color=colour, ms=3, alpha=0.7)
                above.plot([i - 0.28, i + 0.28], [values.mean()] * 2, color=colour, lw=2)
                rows = summary[(summary["arm"] == arm) & (summary["score"] == score)]
                for row in _rows(rows[rows["against"] != ""]):
                    other = row.against == "published"
                    below.errorbar(
                        i + 0.15 * other,
                        row.difference,
                        np.nan_to_num([[row.difference - row.low], [row.high - row.difference]]),
                        fmt=marker,
                        color="0.45" if other else colour,
                        mfc="white" if other else colour,
                        elinewidth=1,
                        capsize=2,
                    )
            below.axhline(0, color="0.25", ls="--", lw=1)
            above.set_title(SCORES[score])
            below.set_xticks(range(len(arms)), arms, rotation=35, ha="right")
        axes[0, 0].set_ylabel("score, a point a split")
        axes[1, 0].set_ylabel("mean paired difference,\n90% interval")
        handles = [
            axes[1, 0].errorbar([], [], [], fmt="o", color=COLOURS[0], label="to fg"),
            axes[1, 0].errorbar(
                [], [], [], fmt="o", color="0.45", mfc="white", label="to published scores"
            ),
        ]
        shown = handles if (summary["against"] == "published").any() else handles[:1]
        figure.legend(handles=shown, loc="outside lower center", ncols=2)
        figure.suptitle(title, fontsize=11)
    return figure


def bands_figure(table: pd.DataFrame, title: str) -> Figure:
    """The band of each arm over that of the Gaussian process, a panel an arm.

    Parameters
    ----------
    table : DataFrame
        Cells of one replicate, that of the arm "gp" among them.
    """
    from matplotlib.figure import Figure

    exact = _arrays(next(_rows(table[table["prior"] == EXACT])))
    arms = [arm for arm in _arms(table) if arm != EXACT]
    columns = min(3, len(arms))
    n_rows = -(-len(arms) // columns)
    with style():
        figure = Figure(figsize=(3.3 * columns + 0.4, 2.4 * n_rows + 0.9))
        axes = figure.subplots(n_rows, columns, squeeze=False, sharex=True, sharey=True)
        for ax, arm in zip(axes.ravel(), arms, strict=False):
            own = _arrays(next(_rows(table[table["arm"] == arm])))
            x = own["position"]
            ax.fill_between(
                x, exact["low"], exact["high"], color="0.82", lw=0, label="Gaussian process, 90%"
            )
            ax.plot(x, exact["middle"], color="0.4", lw=1, label="its median")
            ax.fill_between(
                x, own["low"], own["high"], color=COLOURS[0], alpha=0.3, lw=0, label="network, 90%"
            )
            ax.plot(x, own["middle"], color=COLOURS[0], lw=1.2, label="its median")
            ax.plot(x, own["truth"], color=COLOURS[1], ls=":", lw=1.1, label="true function")
            ax.plot(own["X"], own["y"], ".", color="0.1", ms=3.5, label="observations")
            ax.set_title(arm)
        for ax in axes.ravel()[len(arms) :]:
            ax.set_visible(False)
        span = max(3.0, 1.15 * float(np.abs([exact["low"], exact["high"]]).max()))
        axes[0, 0].set_ylim(-span, span)
        for ax in axes[-1]:
            ax.set_xlabel("x")
        for ax in axes[:, 0]:
            ax.set_ylabel("f(x)")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3)
        figure.suptitle(title, fontsize=11)
    return figure


def _rows(table: pd.DataFrame) -> Iterator[Any]:
    return table.itertuples()


def _arms(table: pd.DataFrame) -> list[str]:
    """Arms in the order of the table, the Gaussian process and the baseline first."""
    arms = dict.fromkeys(table["arm"])
    return sorted(arms, key=lambda arm: (arm != EXACT, arm != BASELINE))


def _baseline(arm: str) -> str:
    """The baseline on the arm's data set: "yacht-gpi-g" is compared with "yacht-fg"."""
    for prior in ("gpi-g", "gpi-h", "gpi-nf", "ensemble", "fh", "fg"):
        if arm.endswith(prior):
            return arm.removesuffix(prior) + BASELINE
    return BASELINE


def _t_interval(differences: np.ndarray) -> dict[str, float]:
    from scipy.stats import t, ttest_1samp

    n, mean = len(differences), float(differences.mean())
    if n < 2:
        return {"difference": mean, "low": np.nan, "high": np.nan, "p": np.nan}
    half = float(t.ppf((1 + LEVEL) / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    p = float(ttest_1samp(differences, 0).pvalue)
    return {"difference": mean, "low": mean - half, "high": mean + half, "p": p}


def _arrays(row: Any) -> dict[str, np.ndarray]:
    names = ("position", "truth", "low", "middle", "high", "mean", "spread", "X", "y")
    return {name: np.array(json.loads(getattr(row, name))) for name in names}


def _scores_headline(study: Any, summary: pd.DataFrame, table: pd.DataFrame) -> str:
    lines = []
    for row in _rows(summary[summary["against"] != ""]):
        if row.score not in ("rmse", "accuracy", "nll"):
            continue
        interval = f"[{row.low:+.3f}, {row.high:+.3f}]" if row.splits > 1 else "one split"
        verdict = f", {row.verdict}" if row.verdict else ""
        lines.append(
            f"{row.arm}: {SCORES[row.score]} {row.mean:.3f}, {row.difference:+.3f} to "
            f"{row.against} ({interval}){verdict}."
        )
    if "rhat" in table:
        lines.append(f"Split R-hat of predictions is at most {table['rhat'].max():.3f}.")
    return "\n".join([f"{study.name}:", *lines])


def _bands_headline(study: Any, shown: pd.DataFrame) -> str:
    told = ", ".join(
        f"{row.arm} {row.mean_gap:.2f} (spread x {row.spread_ratio:.2f})"
        for row in _rows(shown[shown["arm"] != EXACT])
    )
    return f"{study.name}: distance of posterior means from the Gaussian process's: {told}."
