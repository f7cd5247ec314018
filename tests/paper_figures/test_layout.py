"""No text of a figure stands on another: the check that all figures of these tests go through."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from paper_figures.coverage import coverage_figure
from paper_figures.estimators import estimators_figure
from paper_figures.style import save, style


def shares():
    """Coverage as `coverages` returns it, of two methods and a control, at two sizes."""
    rows = [
        (case, n, factor, method, f"slope[{k}]", 0.9 + 0.02 * k, "consistent")
        for case in ("exact", "over")
        for n in (1000, 10000)
        for factor, method in ((1.0, "sandwich"), (1.0, "information"), (0.5, "information"))
        for k in range(4)
    ]
    names = ["case", "n", "factor", "method", "parameter", "coverage", "verdict"]
    found = pd.DataFrame(rows, columns=names)
    return found.assign(low=found["coverage"] - 0.02, high=found["coverage"] + 0.02)


def fits():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"n": np.tile([100, 1000], 60), "n_empty": 0})
    table["arm"] = np.repeat(["constrained", "em", "mle"], 40)
    for name in ("gain", "least_weight", "intercept_multi_largest"):
        table[name] = rng.uniform(0.1, 1, len(table))
    return table


FIGURES = {
    "coverage": lambda: coverage_figure(shares(), 0.95, "Coverage"),
    "estimators": lambda: estimators_figure(fits(), 0.1, "Estimators"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_stamp_stands_below_the_legend(name, tmp_path, overlaps):
    """Control: the same stamp at the figure's lower edge."""
    figure = FIGURES[name]()
    save(figure, pd.DataFrame({"a": [1]}), tmp_path, name, "a study quick, configuration 1234")
    assert overlaps(figure) == []
    picture = imread(tmp_path / f"{name}.png")[..., :3]  # 200 pixels an inch, .1 inch of margin
    last = picture[-36:-20]
    assert last.min() < 0.7 < picture[-18:].min()  # the stamp is in it, last of all
    assert last[:, : last.shape[1] // 2].min() == 1  # and to its left there is no legend
    (stamp,) = (text for text in figure.texts if "configuration" in text.get_text())
    (legend,) = figure.legends
    assert stamp.get_window_extent().y1 < legend.get_window_extent().y0
    stamp.set_position((0.6, 0.03))
    assert any("legend of" in pair and "configuration" in pair for pair in overlaps(figure))


def test_titles_on_each_other_are_seen(overlaps):
    with style():
        figure = coverage_figure(shares(), 0.95, "Coverage")
    figure.axes[0].text(0.5, 1.02, "another title", transform=figure.axes[0].transAxes, ha="center")
    (pair,) = overlaps(figure)
    assert "another title" in pair
    assert figure.axes[0].get_title() in pair
