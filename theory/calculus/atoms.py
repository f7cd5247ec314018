r"""The function u of one atom, by which gate and expert enter a density, and its derivatives.

.. math:: u(x, y;\, \theta) = \exp(\text{score}(x; b_0, b_1, \tau))\, f(y \mid a'x + b, s),

with s the variance of a Gaussian expert. Where the score is a sum, b0 only multiplies u, is part of
the atom's weight and left out unless asked for; in the sigmoid gate it is inside. A top-K gate is a
softmax gate wherever the selection does not change.

Derivatives are divided by u: with L = log u they are L_i and L_ij + L_i L_j. Scores with a kink
(ReLU, the Laplace gate with one feature) come in branches, one on each side; what is said of them
holds almost everywhere, not as distributions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..activations import ACTIVATIONS

if TYPE_CHECKING:
    import sympy as sp

GATES = ("softmax", "topk", "dense-to-sparse", "activation", "sigmoid", "laplace")
EXPERTS = ("gaussian", "logistic")

Derivative = tuple[str, ...]
"""Names of the parameters differentiated by, in the order of the atom's; () is u itself."""

Activation = Callable[[Any], Any]

DEGREES = {"identity": 1, "relu": 1, "leaky_relu": 1, "abs": 1, "square": 2, "cube": 3}
"""Activations with psi(cz) = c^p psi(z) for c > 0, and p."""


@dataclass(frozen=True)
class Branch:
    """log u where a condition on x and the parameters holds."""

    log_u: sp.Expr
    where: Any  # a sympy relation, or true


@dataclass(frozen=True, eq=False)
class Atom:
    """u of one atom, symbolically.

    Attributes
    ----------
    name : str
        Gate, with its activation, and expert.
    parameters : dict of str to Symbol
        Those differentiated by, from the expert's to the gate's: the order in which a search
        prefers them.
    constants : dict of str to Symbol
        Those that are not.
    features, response : tuple of Symbol, Symbol
        x and y.
    branches : tuple of Branch
        One unless the score has a kink.
    """

    name: str
    parameters: Mapping[str, sp.Symbol]
    constants: Mapping[str, sp.Symbol]
    features: tuple[sp.Symbol, ...]
    response: sp.Symbol
    branches: tuple[Branch, ...]

    def derivatives(self, order: int = 2) -> Iterator[Derivative]:
        """All up to an order, u first."""
        names = tuple(self.parameters)
        yield ()
        for i, first in enumerate(names):
            yield (first,)
            if order == 2:
                yield from ((first, second) for second in names[i:])

    def ratio(self, branch: Branch, derivative: Derivative) -> sp.Expr:
        """A derivative of u over u on a branch."""
        import sympy as sp

        if not derivative:
            return sp.Integer(1)
        first, *others = (sp.diff(branch.log_u, self.parameters[p]) for p in derivative)
        if not others:
            return first
        return sp.diff(first, self.parameters[derivative[1]]) + first * others[0]


def atom(
    gate: str,
    *,
    activation: str | Activation | None = None,
    n_features: int = 1,
    intercept: bool = False,
    softened: bool = False,
    expert: str = "gaussian",
) -> Atom:
    """The atom of a gate and a linear expert.

    Parameters
    ----------
    gate : str
        A key of `moe_stats.gates.GATES`.
    activation : str, callable or None
        psi of the gate "activation", and of no other: a key of `theory.activations.ACTIVATIONS`, or
        a smooth function of a sympy expression; ``sympy.Function("psi")`` stands for any.
    n_features : int
        D, at least 1.
    intercept : bool
        Whether to differentiate by b0 too.
    softened : bool
        Whether the gate, a Laplace gate, has a softening delta > 0.
    expert : {"gaussian", "logistic"}
        f, of location a'x + b and variance (logistic: scale) s.

    Returns
    -------
    Atom

    Raises
    ------
    ValueError
        If a name is unknown, an option is missing or belongs to another gate, or ``n_features``
        is not an int of at least 1.
    """
    import sympy as sp

    _check(gate, activation, n_features, softened, expert)
    suffixes = [""] if n_features == 1 else [f"_{d + 1}" for d in range(n_features)]
    x = tuple(sp.Symbol(f"x{d}", real=True) for d in suffixes)
    slope = {f"a{d}": sp.Symbol(f"a{d}", real=True) for d in suffixes}
    gate_slope = {f"b1{d}": sp.Symbol(f"b1{d}", real=True) for d in suffixes}
    y, b, b0 = sp.symbols("y b b0", real=True)
    s, tau, delta = sp.symbols("s tau delta", positive=True)
    z = sum(c * v for c, v in zip(gate_slope.values(), x, strict=True))
    shift = b0 if intercept else sp.Integer(0)
    constants: dict[str, sp.Symbol] = {}
    shared: dict[str, sp.Symbol] = {}
    scores: list[tuple[Any, Any]]  # with where they hold
    if gate in ("softmax", "topk"):
        scores = [(z + shift, sp.true)]
    elif gate == "dense-to-sparse":
        scores, shared = [((z + shift) / tau, sp.true)], {"tau": tau}
    elif gate == "activation":
        pieces = _pieces(activation, z)
        scores, shared = [((psi + shift) / tau, where) for psi, where in pieces], {"tau": tau}
    elif gate == "sigmoid":
        scores = [(-sp.log(1 + sp.exp(-z - b0)), sp.true)]
        constants = {} if intercept else {"b0": b0}
    else:
        gaps = [c - v for c, v in zip(gate_slope.values(), x, strict=True)]
        if softened:
            constants = {"delta": delta}
        if n_features == 1 and not softened:
            scores = [(shift - gaps[0], gaps[0] > 0), (shift + gaps[0], gaps[0] < 0)]
        else:
            square = sum(g**2 for g in gaps) + (delta**2 if softened else 0)
            scores = [(shift - sp.sqrt(square), sp.true)]
    location = b + sum(c * v for c, v in zip(slope.values(), x, strict=True))
    log_f = _log_density(expert, y - location, s)
    own = {"b0": b0} if intercept else {}
    names = [gate, getattr(activation, "__name__", activation), "softened" if softened else ""]
    return Atom(
        name=", ".join([str(n) for n in names if n] + [f"{expert} expert"]),
        parameters={"s": s, "b": b, **slope, **gate_slope, **own, **shared},
        constants=constants,
        features=x,
        response=y,
        branches=tuple(Branch(score + log_f, where) for score, where in scores),
    )


def _check(
    gate: str, activation: str | Activation | None, n_features: int, softened: bool, expert: str
) -> None:
    for name, value, allowed in (("gate", gate, GATES), ("expert", expert, EXPERTS)):
        if value not in allowed:
            names = ", ".join(map(repr, allowed))
            raise ValueError(f"The {name!r} parameter must be one of {{{names}}}; got {value!r}.")
    if gate == "activation" and not callable(activation) and activation not in ACTIVATIONS:
        names = ", ".join(map(repr, ACTIVATIONS))
        raise ValueError(
            f"The 'activation' parameter must be one of {{{names}}} or a function; "
            f"got {activation!r}."
        )
    if gate != "activation" and activation is not None:
        raise ValueError(
            f"The 'activation' parameter must be None with gate={gate!r}; got {activation!r}."
        )
    if gate != "laplace" and softened:
        raise ValueError(f"The 'softened' parameter must be False with gate={gate!r}; got True.")
    if not isinstance(n_features, int) or isinstance(n_features, bool) or n_features < 1:
        raise ValueError(
            f"The 'n_features' parameter must be an int of at least 1; got {n_features!r}."
        )


def _pieces(activation: str | Activation | None, z: Any) -> list[tuple[Any, Any]]:
    """psi(z) with where it holds."""
    import sympy as sp

    if callable(activation):
        return [(activation(z), sp.true)]
    below = {"relu": sp.Integer(0), "leaky_relu": z / 100, "abs": -z}
    if activation in below:
        return [(z, z > 0), (below[str(activation)], z < 0)]
    smooth = {
        "sigmoid": 1 / (1 + sp.exp(-z)),
        "tanh": sp.tanh(z),
        "gelu": z * (1 + sp.erf(z / sp.sqrt(2))) / 2,
        "silu": z / (1 + sp.exp(-z)),
        "softplus": sp.log(1 + sp.exp(z)),
        "sin": sp.sin(z),
        "identity": z,
        "square": z**2,
        "cube": z**3,
    }
    return [(smooth[str(activation)], sp.true)]


def _log_density(expert: str, residual: Any, s: Any) -> Any:
    """log f up to a constant."""
    import sympy as sp

    if expert == "gaussian":
        return -(residual**2) / (2 * s) - sp.log(s) / 2
    t = residual / s
    return -t - 2 * sp.log(1 + sp.exp(-t)) - sp.log(s)
