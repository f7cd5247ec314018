"""Steps of all chains in a processor second, by the number of chains: a line a sampler.

Points are medians over timings, bars their least and largest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_stats.plots import COLOURS, LINES, MARKERS

from . import Rendered
from .style import save, stamp_of, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def render(
    study: Any, profile: str, table: pd.DataFrame, prepared: dict[str, Any], folder: Path
) -> Rendered:
    """Draw a sampler-speed study; see `paper_figures.render`."""
    stamp = stamp_of(study, profile)
    good = table[table["status"] == "ok"]
    rates = medians(good)
    files = save(speed_figure(rates, study.title), rates, folder, f"{profile}-speed", stamp)
    lines = []
    for arm, part in rates.groupby("arm", sort=False):
        first, last = part.iloc[0], part.iloc[-1]
        lines.append(
            f"{arm}: chains {first['chains']}, {first['rate']:,.0f} chain-steps a second; chains "
            f"{last['chains']}, {last['rate']:,.0f}, {last['gain']:.1f} times as many."
        )
    return Rendered(files, rates, "\n".join(lines))


def medians(table: pd.DataFrame) -> pd.DataFrame:
    """Rates by arm and number of chains.

    Returns
    -------
    DataFrame
        Columns arm, chains, timings, rate (median), low, high, and gain: over that of the fewest
        chains.
    """
    groups = table.rename(columns={"n": "chains"}).groupby(["arm", "chains"], sort=False)
    rates = groups["rate"].agg(timings="size", rate="median", low="min", high="max").reset_index()
    rates = rates.sort_values(["arm", "chains"], kind="stable").reset_index(drop=True)
    rates["gain"] = rates["rate"] / rates.groupby("arm")["rate"].transform("first")
    return rates


def speed_figure(rates: pd.DataFrame, title: str) -> Figure:
    """Rates against the number of chains, with a line of the slope at which chains cost nothing.

    Parameters
    ----------
    rates : DataFrame
        As `medians` returns it.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(7.6, 3.8))
        ax = figure.subplots()
        for i, (arm, part) in enumerate(rates.groupby("arm", sort=False)):
            ax.errorbar(
                part["chains"],
                part["rate"],
                [part["rate"] - part["low"], part["high"] - part["rate"]],
                fmt=MARKERS[i],
                ls=LINES[i],
                color=COLOURS[i],
                elinewidth=0.8,
                label=arm,
            )
        fewest = rates["chains"].min()
        base = 0.8 * rates.loc[rates["chains"] == fewest, "rate"].min()  # below all others
        free = rates["chains"].agg(["min", "max"])
        ax.plot(free, base * free / fewest, "--", color="0.6", lw=0.9, label="slope of no cost")
        ax.set(xscale="log", yscale="log", xlabel="chains", ylabel="chain-steps per second")
        ticks = sorted(rates["chains"].unique())
        ax.set_xticks(ticks, [str(n) for n in ticks])
        ax.xaxis.minorticks_off()
        figure.legend(*ax.get_legend_handles_labels(), loc="outside right center")
        figure.suptitle(title, fontsize=9)
    return figure
