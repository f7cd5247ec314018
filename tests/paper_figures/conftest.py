"""Every figure that a test here saves is looked at: no text may stand on another or on a legend."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from paper_figures.style import style

ROUNDING = 1.0
"""Pixels at 120 an inch that boxes may share: boxes of text are wider than their ink."""


def text_over_text(figure):
    """Names of texts whose boxes overlap: legends, titles, axes' labels, notes and the stamp.

    An axis is one box of its label and the tick labels in view.
    """
    with style():
        FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    boxes = [(f"legend of {_first(legend)}", legend) for legend in legends]
    texts = [*figure.texts, *(text for ax in figure.axes for text in (ax.title, *ax.texts))]
    if figure.get_suptitle():
        texts.append(figure._suptitle)
    texts = list({id(text): text for text in texts}.values())
    boxes += [(text.get_text(), text) for text in texts if text.get_text() and text.get_visible()]
    boxes = [(name, artist.get_window_extent(renderer)) for name, artist in boxes]
    for ax in figure.axes:
        title = ax.get_title() or "untitled"
        for name, axis in (("x axis", ax.xaxis), ("y axis", ax.yaxis)):
            box = axis.get_tightbbox(renderer)
            if box is not None:
                boxes.append((f"{name} of {title}", box))
    axes = {name for name, _ in boxes if name.startswith(("x axis of", "y axis of"))}
    return [
        f"{one!r} and {other!r}"
        for (one, a), (other, b) in combinations(boxes, 2)
        if not {one, other} <= axes and _shared(a, b) > ROUNDING
    ]


def _first(legend):
    return next((text.get_text() for text in legend.get_texts()), "nothing")


def _shared(a, b):
    """The smaller side of what two boxes share, in pixels; 0 or less where they share nothing."""
    return min(min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0))


@pytest.fixture
def overlaps():
    """`text_over_text`, which the check of all saved figures calls."""
    return text_over_text


@pytest.fixture(autouse=True)
def no_saved_figure_has_text_over_text(monkeypatch):
    found, save = {}, Figure.savefig

    def savefig(self, path, **options):
        save(self, path, **options)
        if not str(path).endswith(".pdf"):  # saved as a picture too
            found[f"{self.get_suptitle()} {path}"] = text_over_text(self)

    monkeypatch.setattr(Figure, "savefig", savefig)
    yield
    assert not any(found.values()), found
