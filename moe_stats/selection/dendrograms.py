r"""Dendrogram of a mixing measure: the closest two atoms merge, step by step, to one.

Behind a softmax gate the contribution of an atom is u = exp(b_0 + b_1'x) N(y; a'x + b, s), s the
variance. Two atoms i, j are compared and merged at a point x_0, where they have weights
w = exp(b_0 + b_1'x_0) and means m = a'x_0 + b; g is an atom's mean gate probability:

.. math::
    d_{ij} = \frac{1}{1/g_i + 1/g_j}
             \left(|m_i - m_j|^2 + \sqrt{|a_i - a_j|^2 + |s_i - s_j|^2}\right),

.. math::
    w_* = \sum w, \quad b_{1*} = \langle b_1 \rangle, \quad m_* = \langle m \rangle, \quad
    a_* = \langle a + (b_1 - b_{1*})(m - m_*) \rangle, \quad
    s_* = \langle s + (m - m_*)^2 \rangle,

where the brackets average over the pair with weights w. The exponents 2 and 1 are the rates' own:
in a cell with several atoms a mean is found as slowly as the square root of a slope or a variance.
The products are what d2u/db1 dm = du/da and d2u/dm2 = 2 du/ds add to a and s: counting a
difference of b_1 or m once and one of a or s twice, a merged pair differs from the sum of the two
by third order and, where their b_1 differ, by the square of that difference.

Adding the same (t_0, t_1) to every (b_0, b_1) leaves the density alone and multiplies all w by one
factor. Nothing here sees it: averages need only the ratios of w, and probabilities are normalised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kernels.checks import check_int

from .._validation import as_tensor, check_features
from ..experts import LinearExperts
from ..gates import Gate, SoftmaxGate
from ..model import GaussianMoE

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Dendrogram:
    """The tree of merges of a model with E experts.

    Attributes
    ----------
    models : tuple of GaussianMoE
        The model and what it became after each merge: E, E - 1, ..., 1 experts. A merged expert
        comes last.
    linkage : ndarray
        (E - 1, 4) in SciPy's format: the two nodes merged (below E the experts of the model, then
        merges in their order), the height, the number of experts below.
    """

    models: tuple[GaussianMoE, ...]
    linkage: np.ndarray

    @property
    def n_experts(self) -> int:
        """E, the number of leaves."""
        return len(self.models)

    @property
    def heights(self) -> np.ndarray:
        """(E - 1,) dissimilarity of the two atoms of each merge; need not increase."""
        return self.linkage[:, 2]

    def model(self, n_experts: int) -> GaussianMoE:
        """The model merged down to so many experts."""
        n_experts = check_int("n_experts", n_experts, 1, self.n_experts)
        return self.models[self.n_experts - n_experts]

    def table(self, X: Any, y: Any) -> pd.DataFrame:
        r"""Dendrogram selection criterion of each number of experts from E down to 2.

        .. math:: \mathrm{DSC}(k) = -(h_k + \log(N)\, \bar\ell_k),

        with h_k the height at which k atoms become k - 1, and the mean log-likelihood of the
        merged model with k experts. Lower is better: above the true number a height tends to
        0, below it the likelihood falls behind.

        Parameters
        ----------
        X, y : array-like
            (N, D) features and (N,) responses.

        Returns
        -------
        DataFrame
            Columns n_experts, height, log_likelihood (in nats) and dsc.
        """
        import pandas as pd

        X = check_features(X, self.models[0].n_features)
        n = X.shape[-2]
        likelihood = [float(m.log_prob(as_tensor("y", y), X).sum()) for m in self.models[:-1]]
        table = pd.DataFrame(
            {
                "n_experts": range(self.n_experts, 1, -1),
                "height": self.heights,
                "log_likelihood": likelihood,
            }
        )
        table["dsc"] = -(table["height"] + math.log(n) * table["log_likelihood"] / n)
        return table


def dendrogram(model: GaussianMoE, X: Any = None) -> Dendrogram:
    """Merge the closest two atoms of a model until one is left.

    Parameters
    ----------
    model : GaussianMoE
        One model with a `SoftmaxGate`.
    X : array-like or None
        (N, D) features over which atoms are compared: a pair at the mean of the features where the
        two speak, with g averaged over X, each feature in units of its standard deviation and y in
        units of the one that the model predicts. None compares at the origin, with g proportional
        to exp(b0) and units as they are.

    Returns
    -------
    Dendrogram

    Raises
    ------
    ValueError
        If the model is a batch or has another gate or constant experts.

    Notes
    -----
    None is the published choice. It depends on the origin and the units of the data, and exp(b0)
    is no expert's share of them: with steep gates it takes an expert for negligible that speaks
    most of the time. In the limit both choices merge the atoms of a cell first.

    As in the authors' code, gate slopes do not enter the dissimilarity: an expert that barely
    speaks can have any, and its square would stand above all else. So true experts must differ
    in their regressions, not in their gates alone.

    The expansion holds where scores are affine and every expert speaks everywhere. A gate that
    selects drops it: whether the merged expert is selected, and whom it displaces, is not what
    its two atoms say.

    References
    ----------
    Do, Do, McKinley, Terhorst and Nguyen (2024), Dendrogram of mixing measures: hierarchical
    clustering and model selection for finite mixture models, arXiv 2403.01684.
    Hai, Mai, Nguyen, Ho, Nguyen and Drovandi (2025), Dendrograms of mixing measures for
    softmax-gated Gaussian mixture of experts, arXiv 2510.12744.

    Examples
    --------
    >>> from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate
    >>> split = GaussianMoE(  # experts 0 and 1 are one expert of scale 1 in two halves
    ...     SoftmaxGate([0.0, 0.0, 1.0], [[0.0], [0.0], [1.0]]),
    ...     LinearExperts([[1.0], [1.0], [0.0]], [-0.6, 0.6, 5.0], [0.8, 0.8, 1.0]),
    ... )
    >>> tree = dendrogram(split)
    >>> tree.linkage[:, :2].astype(int).tolist()
    [[0, 1], [2, 3]]
    >>> [round(float(scale), 6) for scale in tree.model(2).experts.scale]
    [1.0, 1.0]
    """
    check_mergeable("model", type(model.gate))
    if model.experts.kind != "linear":
        raise ValueError(
            "The 'model' parameter must have linear experts, since two constant ones merge into a "
            f"line; got {model.experts.kind} experts."
        )
    if model.batch_shape:
        raise ValueError(
            f"The 'model' parameter must be one model; got a batch of shape "
            f"{tuple(model.batch_shape)}."
        )
    slope = model.experts.slope
    x_unit, y_unit = slope.new_ones(model.n_features), slope.new_ones(())
    if X is None:
        X = slope.new_zeros(1, model.n_features)
    else:
        X = check_features(X, model.n_features).to(slope)
        x_unit = X.std(0, correction=0)
        y_unit = (model.variance(X).mean() + model.mean(X).var(correction=0)).sqrt()
    models, rows = [model], []
    nodes, leaves = list(range(model.n_experts)), [1] * model.n_experts
    while models[-1].n_experts > 1:
        pair, height, at = _closest(models[-1], X, x_unit, y_unit)
        models.append(_merged(models[-1], pair, at))
        j, i = (nodes.pop(p) for p in reversed(pair))
        size = sum(leaves.pop(p) for p in reversed(pair))
        rows.append((i, j, height, size))
        nodes.append(model.n_experts + len(rows) - 1)
        leaves.append(size)
    return Dendrogram(tuple(models), np.array(rows, dtype=np.float64).reshape(-1, 4))


def check_mergeable(name: str, gate: type[Gate]) -> None:
    """Refuse a gate behind which atoms do not merge; see the notes of `dendrogram`."""
    if gate is not SoftmaxGate:
        raise ValueError(
            f"The {name!r} parameter must have a SoftmaxGate, whose scores two experts can share; "
            f"got {gate.__name__}."
        )


def _closest(
    model: GaussianMoE,
    X: Tensor,  # (N, D)
    x_unit: Tensor,  # (D,)
    y_unit: Tensor,  # ()
) -> tuple[tuple[int, int], float, Tensor]:
    """The closest pair, its dissimilarity and the point (D,) where it is to be merged."""
    experts, g = model.experts, model.gate_probs(X)
    weight = g.mean(0).clamp(min=torch.finfo(g.dtype).tiny)
    total = weight[:, None] + weight
    spoken = g.mT @ X / len(X)
    at = (spoken[:, None] + spoken) / total[..., None]  # (E, E, D)
    slope = experts.slope[:, None] - experts.slope
    mean = experts.intercept[:, None] - experts.intercept + (slope * at).sum(-1)
    variance = experts.scale.square()[:, None] - experts.scale.square()
    fast = (slope * x_unit / y_unit).square().sum(-1) + (variance / y_unit**2).square()
    distance = weight[:, None] * weight / total * ((mean / y_unit).square() + fast.sqrt())
    pairs = torch.triu_indices(len(weight), len(weight), offset=1)
    best = int(distance[pairs[0], pairs[1]].argmin())
    i, j = pairs[:, best].tolist()
    return (i, j), float(distance[i, j]), at[i, j]


def _merged(model: GaussianMoE, pair: tuple[int, int], at: Tensor) -> GaussianMoE:
    """The model with one expert, at the end, for two."""
    gate, experts, both = model.gate, model.experts, list(pair)
    score = gate.intercept[both] + gate.slope[both] @ at
    mean = experts.intercept[both] + experts.slope[both] @ at
    share = torch.softmax(score, 0)
    push = gate.slope[both] - share @ gate.slope[both]
    shift = mean - share @ mean
    gate_slope = share @ gate.slope[both]
    slope = share @ (experts.slope[both] + push * shift[:, None])
    variance = share @ (experts.scale[both].square() + shift.square())
    new = (
        (gate.intercept, torch.logsumexp(score, 0) - gate_slope @ at),
        (gate.slope, gate_slope),
        (experts.slope, slope),
        (experts.intercept, share @ mean - slope @ at),
        (experts.scale, variance.sqrt()),
    )
    kept = [e for e in range(model.n_experts) if e not in pair]
    b0, b1, a, b, scale = (torch.cat([old[kept], one[None]]) for old, one in new)
    return GaussianMoE(SoftmaxGate(b0, b1), LinearExperts(a, b, scale))
