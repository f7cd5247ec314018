"""Pictures of a fitted mixture of experts, for an analyst's eyes.

Each function draws one picture on an Axes and returns it; nothing else is touched. Experts are
numbered as in the fit's reports, from 0, and keep their colour, line style, marker and hatch in
every picture, so that none of them needs colour to be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kernels.checks import check_int, check_real

from .selection import Dendrogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .regressor import GaussianMoERegressor

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by the colour-blind; reused from the eighth expert on."""

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "ooo", "+++")

N_GRID = 500
"""Points of a curve; a side of a map has half as many."""

SILENT = 0.05
"""Gate probability below which an expert's band is left out."""


def plot_partition(
    fit: GaussianMoERegressor,
    X: Any,  # (N, D)
    *,
    features: Sequence[int] = (0, 1),
    feature_names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Who speaks where: the experts selected, or the one whose gate probability leads.

    A strip for one feature, a map of two for more. A gate that selects shows its sets of experts,
    any other gate its leader.

    Parameters
    ----------
    fit : GaussianMoERegressor
        Fitted.
    X : array-like of shape (N, D)
        Data that set the range; shown as marks. Features not on the axes are held at their median.
    features : sequence of two int
        The features of the map, counted from 0; with one feature not used.
    feature_names : sequence of str or None
        D names, with units; None takes the fit's, or x0, x1, ...
    ax : Axes or None
        None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If a feature does not exist, or names and features differ in number.
    """
    from matplotlib.patches import Patch

    X, names = _data(fit, X, feature_names)
    across = [0] if X.shape[1] == 1 else [_feature(X, f, "features") for f in features]
    if len(across) > 2 or len(set(across)) < min(2, X.shape[1]):
        raise ValueError(
            f"The 'features' parameter must be two different features; got {features!r}."
        )
    ax = _axes(ax, height=3.6 if len(across) == 2 else 1.7)
    ranges = [_range(X[:, f], margin=0.03) for f in across]
    sides = [np.linspace(*r, N_GRID // len(across)) for r in ranges]
    mesh = np.meshgrid(*sides)
    rows = np.tile(np.median(X, axis=0), (mesh[0].size, 1))
    rows[:, across] = np.stack([m.ravel() for m in mesh], axis=1)
    probs = fit.model_.gate_probs(torch.from_numpy(rows)).numpy()
    top_k = fit.model_.gate.form.top_k
    selects = top_k is not None and top_k < fit.model_.n_experts
    sets = probs > 0 if selects else probs == probs.max(1, keepdims=True)
    found, label = np.unique(sets, axis=0, return_inverse=True)
    found, label = found[::-1], len(found) - 1 - label.reshape(mesh[0].shape)
    if len(across) == 1:
        label = np.tile(label, (2, 1))
        sides.append(np.array([0.0, 1.0]))
    patches = []
    for i, members in enumerate(found):
        style = np.flatnonzero(members)[0] if members.sum() == 1 else i
        colour, hatch = COLOURS[style % len(COLOURS)], HATCHES[style % len(HATCHES)]
        inside = (label == i).astype(float)
        levels = [0.5, 1.5]
        area = ax.contourf(*sides, inside, levels, colors=[colour], alpha=0.3, hatches=[hatch])
        area.set_edgecolor(colour)
        area.set_linewidth(0)
        if 0 < inside.mean() < 1:
            ax.contour(*sides, inside, levels[:1], colors="0.2", linewidths=0.8)
        text = "expert " if members.sum() == 1 else "experts "
        text += ", ".join(map(str, np.flatnonzero(members)))
        patches.append(Patch(facecolor=colour, alpha=0.3, hatch=hatch, ec=colour, label=text))
    ax.set_xlabel(names[across[0]])
    if len(across) == 1:
        ax.plot(X[:, 0], np.full(len(X), 0.1), "|", color="0.1", ms=6, mew=0.5, alpha=0.6)
        ax.set(yticks=[], ylim=(0, 1))
        ax.locator_params(axis="x", nbins=6)
        ax.spines["left"].set_visible(False)
    else:
        ax.plot(X[:, across[0]], X[:, across[1]], ".", color="0.1", ms=3, alpha=0.6)
        ax.set_ylabel(names[across[1]])
    _legend(ax, patches, "selected" if selects else "leading")
    return ax


def plot_gate(
    fit: GaussianMoERegressor,
    X: Any,  # (N, D)
    *,
    feature: int = 0,
    feature_names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Gate probabilities over one feature, the others held at their median.

    Parameters
    ----------
    fit : GaussianMoERegressor
        Fitted.
    X : array-like of shape (N, D)
        Data that set the range and the medians; shown as marks.
    feature : int
        The feature on the axis, counted from 0.
    feature_names : sequence of str or None
        D names, with units; None takes the fit's, or x0, x1, ...
    ax : Axes or None
        None makes a figure.

    Returns
    -------
    Axes
    """
    X, names = _data(fit, X, feature_names)
    ax = _axes(ax)
    x, rows = _line(X, _feature(X, feature, "feature"))
    probs = fit.model_.gate_probs(torch.from_numpy(rows)).numpy()
    jumps = np.flatnonzero(((probs[1:] > 0) != (probs[:-1] > 0)).any(1)) + 1
    x, probs = np.insert(x, jumps, np.nan), np.insert(probs, jumps, np.nan, axis=0)
    for e, p in enumerate(probs.T):
        ax.plot(x, p, ls=_of(LINES, e), color=_of(COLOURS, e), lw=1.6, label=f"expert {e}")
    ax.plot(X[:, feature], np.full(len(X), -0.04), "|", color="0.3", ms=5, mew=0.5, alpha=0.6)
    ax.set(ylim=(-0.08, 1.04), xlabel=names[feature], ylabel="gate probability")
    _legend(ax, title=_held(X, names))
    return ax


def plot_experts(
    fit: GaussianMoERegressor,
    X: Any,  # (N, D)
    y: Any,  # (N,)
    *,
    feature: int = 0,
    feature_names: Sequence[str] | None = None,
    y_name: str = "y",
    ax: Axes | None = None,
) -> Axes:
    """Each expert's mean over one feature, the others at their median, and the data.

    Bands are two scales to either side, drawn where the expert has a gate probability of at
    least `SILENT`; thin lines go on where it has less.

    Parameters
    ----------
    fit : GaussianMoERegressor
        Fitted.
    X, y : array-like of shape (N, D) and (N,)
        Data, shown as points at their own values of every feature.
    feature : int
        The feature on the axis, counted from 0.
    feature_names : sequence of str or None
        D names, with units; None takes the fit's, or x0, x1, ...
    y_name : str
        The response's, with units.
    ax : Axes or None
        None makes a figure.

    Returns
    -------
    Axes
    """
    X, names = _data(fit, X, feature_names)
    ax = _axes(ax)
    y = _array("y", y)
    x, rows = _line(X, _feature(X, feature, "feature"))
    model, at = fit.model_, torch.from_numpy(rows)
    means, probs = model.experts.mean(at).numpy(), model.gate_probs(at).numpy()
    ax.plot(X[:, feature], y, "o", color="0.35", ms=3, alpha=0.5, mew=0, label="data")
    for e in range(model.n_experts):
        speaks, colour, mean = probs[:, e] >= SILENT, _of(COLOURS, e), means[:, e]
        reach = 2 * float(model.experts.scale[e])
        ax.fill_between(x, mean - reach, mean + reach, where=speaks, color=colour, alpha=0.18, lw=0)
        ax.plot(x, mean, ls=_of(LINES, e), color=colour, lw=0.6)
        loud = np.where(speaks, mean, np.nan)
        ax.plot(x, loud, ls=_of(LINES, e), color=colour, lw=2, label=f"expert {e}")
    ax.set(xlabel=names[feature], ylabel=y_name, ylim=_range(y, margin=0.15))
    _legend(ax, title=_held(X, names))
    return ax


def plot_responsibilities(
    fit: GaussianMoERegressor,
    X: Any,  # (N, D)
    y: Any,  # (N,)
    *,
    feature: int = 0,
    feature_names: Sequence[str] | None = None,
    y_name: str = "y",
    ax: Axes | None = None,
) -> Axes:
    """The data, each observation in the mixed colours of the experts responsible for it.

    The marker is that of the most responsible expert; an open marker says that its
    responsibility is below 0.9.

    Parameters
    ----------
    fit : GaussianMoERegressor
        Fitted.
    X, y : array-like of shape (N, D) and (N,)
        Data.
    feature : int
        The feature on the axis, counted from 0.
    feature_names : sequence of str or None
        D names, with units; None takes the fit's, or x0, x1, ...
    y_name : str
        The response's, with units.
    ax : Axes or None
        None makes a figure.

    Returns
    -------
    Axes
    """
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D

    X, names = _data(fit, X, feature_names)
    ax = _axes(ax)
    _feature(X, feature, "feature")
    y = _array("y", y)
    r = fit.model_.responsibilities(torch.from_numpy(X), torch.from_numpy(y)).numpy()
    palette = np.array([to_rgb(_of(COLOURS, e)) for e in range(r.shape[1])])
    colours, first, sure = np.clip(r @ palette, 0, 1), r.argmax(1), r.max(1) >= 0.9
    handles: list[Any] = []
    for e in range(r.shape[1]):
        for part, filled in ((sure, True), (~sure, False)):
            rows = (first == e) & part
            ax.scatter(
                X[rows, feature],
                y[rows],
                s=18,
                marker=_of(MARKERS, e),
                facecolors=colours[rows] if filled else "none",
                edgecolors=colours[rows],
                linewidths=1.0,
                alpha=0.85,
            )
        marker, colour = _of(MARKERS, e), _of(COLOURS, e)
        handles.append(
            Line2D([], [], marker=marker, color=colour, ls="", ms=5, label=f"expert {e}")
        )
    handles.append(
        Line2D([], [], marker="o", mfc="none", color="0.4", ls="", ms=5, label="any, below 0.9")
    )
    ax.set(xlabel=names[feature], ylabel=y_name)
    _legend(ax, handles, "most responsible")
    return ax


def plot_dendrogram(
    tree: Dendrogram,
    *,
    n_experts: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The tree of merges, experts below, heights on a logarithmic axis.

    The number at a merge says how many experts it leaves. Atoms that coincide merge at height 0,
    which is drawn at the foot of the tree.

    Parameters
    ----------
    tree : Dendrogram
        With at least two experts.
    n_experts : int or None
        A number chosen: merges down to it are drawn dashed, those beyond it solid.
    ax : Axes or None
        None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the tree has one expert, or ``n_experts`` is not one of its numbers.
    """
    size = tree.n_experts
    if size < 2:
        raise ValueError(f"The 'tree' parameter must have at least 2 experts; got {size}.")
    kept = size if n_experts is None else check_int("n_experts", n_experts, 1, size)
    ax = _axes(ax)
    order = _leaves(tree.linkage, 2 * size - 2)
    positive = tree.heights[tree.heights > 0]
    floor = float(positive.min()) / 4 if len(positive) else 1.0
    place = {leaf: float(i) for i, leaf in enumerate(order)}
    top = dict.fromkeys(range(size), floor)
    for step, (left, right, exact, _) in enumerate(tree.linkage):
        i, j, height = int(left), int(right), max(float(exact), floor)
        x, levels = [place[i], place[i], place[j], place[j]], [top[i], height, height, top[j]]
        done = step < size - kept
        ax.plot(x, levels, color="0.45" if done else "0.1", ls="--" if done else "-", lw=1.4)
        place[size + step], top[size + step] = (place[i] + place[j]) / 2, height
        ax.annotate(
            f"{size - step - 1}",
            (place[size + step], height),
            xytext=(4, 2),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize="small",
            color="0.3",
        )
    for leaf in range(size):
        ax.plot(place[leaf], floor, marker=_of(MARKERS, leaf), color=_of(COLOURS, leaf), ms=7)
    ax.set_yscale("log")
    ax.set(
        xticks=range(size),
        xticklabels=[f"expert {leaf}" for leaf in order],
        ylabel="dissimilarity at the merge",
        ylim=(floor / 1.5, max(float(tree.heights.max()), floor) * 1.6),
    )
    return ax


def plot_profile_likelihood(
    values: Any,  # (M,)
    log_likelihood: Any,  # (M,)
    *,
    name: str = "parameter",
    level: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Profile log-likelihood below its maximum, with the chi-square cut-off if asked for.

    Parameters
    ----------
    values : array-like of shape (M,)
        Values of one parameter.
    log_likelihood : array-like of shape (M,)
        Maximum of the log-likelihood over all others at each value, in nats.
    name : str
        The parameter's, with units.
    level : float or None
        Draw the line that a likelihood-ratio interval of this level is cut at, half the
        chi-square quantile with one degree of freedom below the maximum. It holds for regular,
        identified parameters; not where the model has more experts than the truth.
    ax : Axes or None
        None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the two differ in length, no log-likelihood is finite, or ``level`` is not in (0, 1).
    """
    values, drop = _array("values", values), _array("log_likelihood", log_likelihood)
    if values.ndim != 1 or values.shape != drop.shape:
        raise ValueError(
            "The 'values' and 'log_likelihood' parameters must have one shape (M,); got "
            f"{values.shape} and {drop.shape}."
        )
    if not np.isfinite(drop).any():
        raise ValueError("The 'log_likelihood' parameter must have a finite value; got none.")
    order = np.argsort(values)
    values, drop = values[order], drop[order] - np.nanmax(drop)
    ax = _axes(ax)
    ax.plot(values, drop, "-o", color=COLOURS[0], ms=3.5, lw=1.4)
    best = int(np.nanargmax(drop))
    ax.plot(values[best], 0, "D", color=COLOURS[1], ms=6, label=f"maximum at {values[best]:.4g}")
    if level is not None:
        from scipy.stats import chi2

        if not 0 < check_real("level", level) < 1:
            raise ValueError(f"The 'level' parameter must be in (0, 1); got {level!r}.")
        cut = -chi2.ppf(level, 1) / 2
        ax.axhline(cut, ls="--", color="0.3", lw=1, label=f"{level:.0%} cut-off, {cut:.2f} nats")
    ax.set(xlabel=name, ylabel="profile log-likelihood less its maximum (nats)")
    _legend(ax)
    return ax


def _axes(ax: Axes | None, height: float = 3.6) -> Axes:
    if ax is None:
        from matplotlib import pyplot as plt

        ax = plt.subplots(figsize=(5.2, height), layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _legend(ax: Axes, handles: list[Any] | None = None, title: str | None = None) -> None:
    ax.legend(
        handles=handles,
        title=title,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),  # beside the axes, where it hides no data
        frameon=False,
        fontsize="small",
        title_fontsize="small",
        handlelength=2.6,
    )


def _data(
    fit: GaussianMoERegressor, X: Any, feature_names: Sequence[str] | None
) -> tuple[np.ndarray, list[str]]:
    """X as an array with the fit's number of features, and a name for each."""
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(fit, "model_")
    X, size = _array("X", X), fit.n_features_in_
    if X.ndim != 2 or X.shape[1] != size:
        raise ValueError(f"The 'X' parameter must have shape (N, {size}); got shape {X.shape}.")
    default = getattr(fit, "feature_names_in_", [f"x{d}" for d in range(size)])
    names = list(default if feature_names is None else feature_names)
    if len(names) != size:
        raise ValueError(
            f"The 'feature_names' parameter must have {size} names, one a feature; got "
            f"{len(names)}."
        )
    return X, names


def _array(name: str, data: Any) -> np.ndarray:
    try:
        return np.asarray(data, dtype=np.float64).copy()  # a table's columns must not be written to
    except (TypeError, ValueError) as error:
        raise ValueError(f"The {name!r} parameter must be numeric; got {data!r}.") from error


def _feature(X: np.ndarray, feature: int, name: str) -> int:
    return check_int(name, feature, 0, X.shape[1] - 1)


def _range(values: np.ndarray, margin: float = 0.0) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return low - margin * (high - low), high + margin * (high - low)


def _line(X: np.ndarray, feature: int) -> tuple[np.ndarray, np.ndarray]:
    """Values (M,) of a feature over its range, and rows (M, D) with the others at their median."""
    x = np.linspace(*_range(X[:, feature], margin=0.03), N_GRID)
    rows = np.tile(np.median(X, axis=0), (N_GRID, 1))
    rows[:, feature] = x
    return x, rows


def _held(X: np.ndarray, names: Sequence[str]) -> str | None:
    return None if len(names) == 1 else "others at their median"


def _of(styles: Sequence[Any], expert: int) -> Any:
    return styles[expert % len(styles)]


def _leaves(linkage: np.ndarray, node: int) -> list[int]:
    """Leaves below a node, from left to right."""
    size = len(linkage) + 1
    if node < size:
        return [node]
    left, right = linkage[node - size, :2].astype(int)
    return _leaves(linkage, left) + _leaves(linkage, right)
