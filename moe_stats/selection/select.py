"""Choosing the number of experts, for one data set or for many of equal size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from kernels.checks import MAX_COUNT, check_choice, check_int

from ..fit.mle import MLE, as_template, fit_mle
from ..gates import GateTemplate
from ..model import GaussianMoE
from .criteria import information_criteria
from .dendrograms import Dendrogram, check_mergeable, dendrogram

if TYPE_CHECKING:
    import pandas as pd

    from ..regressor import GaussianMoERegressor

Method = Literal["bic", "aic", "icl", "dendrogram"]
METHODS: tuple[str, ...] = get_args(Method)


@dataclass(frozen=True, eq=False)
class SelectionResult:
    """The number of experts chosen, and what it was chosen from.

    Attributes
    ----------
    n_experts : int
        The number chosen.
    method : str
    table : DataFrame
        One row a number of experts. For a criterion: log_likelihood, n_parameters, aic, bic, icl
        and whether the fit converged; for the dendrogram what `Dendrogram.table` says.
    model : GaussianMoE
        The model with the number chosen: fitted, or merged from the largest.
    fits : dict of int to GaussianMoERegressor
        Every fit that was made, by its number of experts.
    dendrogram : Dendrogram or None
        Of the largest fit, for that method.
    """

    n_experts: int
    method: str
    table: pd.DataFrame
    model: GaussianMoE
    fits: dict[int, GaussianMoERegressor]
    dendrogram: Dendrogram | None = None


@dataclass(frozen=True, eq=False)
class BatchSelection:
    """Numbers of experts chosen for R data sets by several methods.

    Attributes
    ----------
    n_experts : dict of str to Tensor
        By method: (R,) int, the numbers chosen.
    scores : dict of str to Tensor
        By method: (R, M), what was minimised, for 1, ..., M experts; inf where a number is not
        among the method's choices.
    fits : dict of int to MLE
        By number of experts.
    dendrograms : tuple of Dendrogram
        One a data set; empty without that method.
    """

    n_experts: dict[str, Tensor]
    scores: dict[str, Tensor]
    fits: dict[int, MLE]
    dendrograms: tuple[Dendrogram, ...] = ()


def select_n_experts(
    X: Any,  # (N, D)
    y: Any,  # (N,)
    max_experts: int,
    *,
    method: Method = "bic",
    gate: str | GateTemplate = "softmax",
    random_state: Any = None,
    **fit_options: Any,
) -> SelectionResult:
    """Choose the number of experts of one data set.

    Parameters
    ----------
    X : array-like of shape (N, D)
        Features.
    y : array-like of shape (N,)
        Responses.
    max_experts : int
        The largest number considered.
    method : {"bic", "aic", "icl", "dendrogram"}
        The criteria fit every number of experts and choose the least value; see
        `information_criteria`. The dendrogram fits ``max_experts`` only and merges, see
        `dendrogram`; it chooses among 2 and more.
    gate : str or GateTemplate
        A name in `moe_stats.gates.GATES`, such as "softmax" or "topk".
        A gate that selects ``top_k`` experts is fitted from ``top_k`` on; the dendrogram needs
        the softmax gate.
    random_state : int, numpy.random.Generator or None
        Seed of all fits.
    **fit_options
        Further parameters of `GaussianMoERegressor`.

    Returns
    -------
    SelectionResult

    Raises
    ------
    ValueError
        If a parameter breaks its rule.

    Notes
    -----
    Theorems suppose a compact set of parameters: ``min_weight`` and ``gate_bound`` describe it.
    Without them a fit with too many experts spends the others on a few observations, and heights
    are those of accidents. Below n of a few hundred the dendrogram chooses too many.

    A log-likelihood that falls as experts are added shows a search that failed: raise ``n_init``.

    Examples
    --------
    >>> from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, Uniform
    >>> truth = GaussianMoE(
    ...     SoftmaxGate([0.0, 0.0], [[6.0], [0.0]]),
    ...     LinearExperts([[2.0], [-1.0]], [1.0, 0.0], [0.3, 0.3]),
    ... )
    >>> X = Uniform(-1, 1).sample(400, random_state=0)
    >>> chosen = select_n_experts(X, truth.sample(X, 1), 3, random_state=0, n_init=4)
    >>> chosen.n_experts, list(chosen.fits)
    (2, [1, 2, 3])
    """
    from ..regressor import GaussianMoERegressor

    check_choice("method", method, METHODS)
    numbers = _numbers(max_experts, (method,), gate)
    fits = {
        number: GaussianMoERegressor(number, gate, random_state=random_state, **fit_options).fit(
            X, y
        )
        for number in numbers
    }
    X, y = (torch.tensor(np.asarray(data, dtype=np.float64)) for data in (X, y))
    if method == "dendrogram":
        tree = dendrogram(fits[max_experts].model_, X)
        table = tree.table(X, y)
        chosen = int(table["n_experts"].iloc[int(table["dsc"].argmin())])
        return SelectionResult(chosen, method, table, tree.model(chosen), fits, tree)
    table = _criteria_table(fits, X, y)
    chosen = int(table["n_experts"].iloc[int(table[method].argmin())])
    return SelectionResult(chosen, method, table, fits[chosen].model_, fits)


def select_n_experts_batch(
    X: Tensor,  # (R, N, D)
    y: Tensor,  # (R, N)
    max_experts: int,
    *,
    methods: Sequence[str] = METHODS,
    gate: str | GateTemplate = "softmax",
    random_states: Sequence[Any] | None = None,
    **fit_options: Any,
) -> BatchSelection:
    """Choose the number of experts of R data sets by several methods, from the same fits.

    Parameters
    ----------
    X, y : Tensor
        (R, N, D) features and (R, N) responses.
    max_experts : int
        The largest number considered.
    methods : sequence of str
        Of those of `select_n_experts`.
    gate : str or GateTemplate
        A name in `moe_stats.gates.GATES`, such as "softmax" or "topk".
        As in `select_n_experts`.
    random_states : sequence of int or None
        One seed a data set, for each of its fits.
    **fit_options
        Further parameters of `fit_mle`.

    Returns
    -------
    BatchSelection

    Raises
    ------
    ValueError
        If a parameter breaks its rule.
    """
    for method in methods:
        check_choice("methods", method, METHODS)
    fits = {
        number: fit_mle(
            X, y, n_experts=number, gate=gate, random_states=random_states, **fit_options
        )
        for number in _numbers(max_experts, methods, gate)
    }
    scores = {m: torch.full((len(X), max_experts), torch.inf, dtype=torch.float64) for m in methods}
    criteria = [m for m in methods if m != "dendrogram"]
    for number, fit in fits.items() if criteria else ():
        found = information_criteria(fit, X, y)
        for method in criteria:
            scores[method][:, number - 1] = getattr(found, method).nan_to_num(nan=torch.inf)
    trees: tuple[Dendrogram, ...] = ()
    if "dendrogram" in methods:
        largest = fits[max_experts].model
        trees = tuple(dendrogram(largest[r], X[r]) for r in range(len(X)))
        for r, tree in enumerate(trees):
            dsc = tree.table(X[r], y[r])["dsc"].to_numpy()
            scores["dendrogram"][r, 1:] = torch.from_numpy(dsc[::-1].copy())
    chosen = {method: score.argmin(1) + 1 for method, score in scores.items()}
    return BatchSelection(chosen, scores, fits, trees)


def _numbers(max_experts: int, methods: Sequence[str], gate: str | GateTemplate) -> Sequence[int]:
    """The numbers of experts to fit."""
    template = as_template(gate)
    top_k = template.form().top_k
    least = 1 if top_k is None else top_k
    if "dendrogram" in methods:
        check_mergeable("gate", template.gate)
        check_int("max_experts", max_experts, 2, MAX_COUNT, why=" for the dendrogram")
    why = "" if top_k is None else f" for a gate with top_k={top_k}"
    check_int("max_experts", max_experts, least, MAX_COUNT, why=why)
    if set(methods) == {"dendrogram"}:
        return [max_experts]
    return range(least, max_experts + 1)


def _criteria_table(
    fits: Mapping[int, GaussianMoERegressor],
    X: Tensor,  # (N, D)
    y: Tensor,  # (N,)
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for number, fit in fits.items():
        found = information_criteria(fit, X, y)
        rows.append(
            {
                "n_experts": number,
                "log_likelihood": float(found.log_likelihood),
                "n_parameters": int(found.n_parameters),
                "aic": float(found.aic),
                "bic": float(found.bic),
                "icl": float(found.icl),
                "converged": fit.status_.startswith("converged"),
            }
        )
    return pd.DataFrame(rows)
