"""A gate's elementwise functions as one function of a GPU kernel.

A `GateForm` is plain PyTorch. Traced once on scalars it becomes a list of elementwise operations,
and each of these has a counterpart in Triton; so a gate is written down once, and softmax, top-K,
temperature, activations and distances all run fused. A gate that uses an operation missing from
`_OPERATIONS` has no kernel, and its passes are compiled ones.
"""

from __future__ import annotations

import functools
import hashlib
import linecache
import math
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from .form import GateForm


class Untranslatable(ValueError):  # noqa: N818
    """A gate uses an operation that has no counterpart in a kernel."""


@functools.lru_cache(maxsize=64)
def translate(form: GateForm, n_features: int) -> triton.JITFunction:
    """The function ``(own, shared, x) -> (score, rank, derivatives...)`` of tuples of columns.

    Derivatives are those of the score by its own parameters, then by the shared ones.

    Raises
    ------
    Untranslatable
        If the form is no composition of known elementwise operations.
    """
    counts = (n_features + form.extra_parameters, form.n_shared, n_features)
    rank = form.score if form.rank is None else form.rank

    def columns(*flat: torch.Tensor) -> tuple[Any, ...]:
        own, shared, x = _split(flat, counts)
        return (
            form.score(own, shared, x),
            rank(own, shared, x),
            *form.score_gradient(own, shared, x),
        )

    return _translated(columns, counts)


@functools.lru_cache(maxsize=64)
def translate_curvature(
    form: GateForm, n_features: int
) -> tuple[triton.JITFunction | None, dict[tuple[int, int], int]]:
    """The function ``(own, shared, x) -> (second derivative, ...)`` of a score, and the place of
    each entry of `GateForm.score_curvature` in what it returns; None and no entries without one.

    Raises
    ------
    Untranslatable
        If the form is no composition of known elementwise operations.
    """
    if form.score_curvature is None:
        return None, {}
    bend = form.score_curvature
    counts = (n_features + form.extra_parameters, form.n_shared, n_features)
    entries: list[tuple[int, int]] = []

    def columns(*flat: torch.Tensor) -> tuple[Any, ...]:
        found = bend(*_split(flat, counts))
        entries[:] = found
        return tuple(found.values())

    function = _translated(columns, counts)
    return function, {entry: place for place, entry in enumerate(entries)}


@functools.lru_cache(maxsize=64)
def untranslatable(form: GateForm, n_features: int, *, curvature: bool = False) -> str:
    """What keeps a form from being translated, or nothing."""
    try:
        translate(form, n_features)
        if curvature:
            translate_curvature(form, n_features)
    except Untranslatable as error:
        return f"the gate uses {error}, which has no counterpart in it"
    return ""


def _translated(
    columns: Callable[..., tuple[Any, ...]], counts: tuple[int, int, int]
) -> triton.JITFunction:
    """A function of as many scalars (own, shared, x) as ``counts`` says, in Triton's language."""
    scalars = [torch.tensor(0.5, dtype=torch.float64) for _ in range(sum(counts))]
    try:
        graph = make_fx(columns)(*scalars).graph
    except RuntimeError as error:  # of a tensor turned into a number while it is traced
        raise Untranslatable(f"decisions on values ({error})") from error
    named = zip(("own", "shared", "x"), counts, strict=True)
    names = iter(f"{kind}[{i}]" for kind, n in named for i in range(n))
    return _compiled("".join(f"    {line}\n" for line in _lines(graph, names)))


def _lines(graph: fx.Graph, inputs: Any) -> list[str]:
    """The statements of a traced function."""
    words: dict[fx.Node, str] = {}

    def word(value: Any) -> str:
        if isinstance(value, fx.Node):
            return words[value]
        if isinstance(value, bool | int | float) and math.isfinite(value):
            return repr(float(value))
        raise Untranslatable(f"the number {value!r}")

    lines = []
    for node in graph.nodes:
        if node.op == "placeholder":
            words[node] = next(inputs)
        elif node.op == "output":
            lines.append(f"return ({', '.join(word(v) for v in node.args[0])},)")
        elif node.op == "call_function" and str(node.target) in _OPERATIONS:
            if node.users:
                expression = _OPERATIONS[str(node.target)]
                words[node] = f"v{len(lines)}"
                lines.append(f"{words[node]} = {expression(node, word)}")
        else:
            raise Untranslatable(f"the operation {node.target}")
    return lines


def _of(template: str) -> Callable[[fx.Node, Callable[[Any], str]], str]:
    """An operation written with its arguments' places, such as "{} + {}"."""

    def expression(node: fx.Node, word: Callable[[Any], str]) -> str:
        if node.kwargs:
            raise Untranslatable(f"the operation {node.target} with {sorted(node.kwargs)}")
        return template.format(*(word(a) for a in node.args[: template.count("{")]))

    return expression


def _first(template: str) -> Callable[[fx.Node, Callable[[Any], str]], str]:
    """As `_of` for operations whose other arguments say where and how, not what."""
    return lambda node, word: template.format(word(node.args[0]))


def _power(node: fx.Node, word: Callable[[Any], str]) -> str:
    base, exponent = word(node.args[0]), node.args[1]
    if exponent in (1, 2, 3):
        return " * ".join([base] * int(exponent))  # type: ignore[arg-type]
    if exponent == 0.5:
        return f"tl.sqrt({base})"
    raise Untranslatable(f"the power {exponent}")


def _copied(node: fx.Node, word: Callable[[Any], str]) -> str:
    source = node.args[0]
    if isinstance(source, fx.Node) and source.meta["val"].dtype == torch.bool:
        return f"tl.where({word(source)}, 1.0, 0.0)"
    return word(source)


def _item(node: fx.Node, word: Callable[[Any], str]) -> str:
    if node.args[1] != 0:
        raise Untranslatable("the second result of an operation")
    return word(node.args[0])


_OPERATIONS: dict[str, Callable[[fx.Node, Callable[[Any], str]], str]] = {
    "aten.add.Tensor": _of("{} + {}"),
    "aten.add.Scalar": _of("{} + {}"),
    "aten.sub.Tensor": _of("{} - {}"),
    "aten.sub.Scalar": _of("{} - {}"),
    "aten.rsub.Scalar": _of("-({} - {})"),
    "aten.mul.Tensor": _of("{} * {}"),
    "aten.mul.Scalar": _of("{} * {}"),
    "aten.div.Tensor": _of("{} / {}"),
    "aten.div.Scalar": _of("{} / {}"),
    "aten.neg.default": _of("-{}"),
    "aten.reciprocal.default": _of("1.0 / {}"),
    "aten.pow.Tensor_Scalar": _power,
    "aten.abs.default": _of("tl.abs({})"),
    "aten.exp.default": _of("tl.exp({})"),
    "aten.log.default": _of("tl.log({})"),
    "aten.sqrt.default": _of("tl.sqrt({})"),
    "aten.sin.default": _of("tl.sin({})"),
    "aten.cos.default": _of("tl.cos({})"),
    "aten.erf.default": _of("tl.erf({})"),
    "aten.relu.default": _of("tl.where({0} < 0, 0.0, {0})"),
    "aten.sigmoid.default": _of("sigmoid({})"),
    "aten.silu.default": _of("silu({})"),
    "aten.tanh.default": _of("tanh({})"),
    "aten.gelu.default": _of("gelu({})"),
    "aten.log_sigmoid_forward.default": _of("log_sigmoid({})"),
    "aten.sigmoid_backward.default": _of("{0} * {1} * (1.0 - {1})"),
    "aten.tanh_backward.default": _of("{0} * (1.0 - {1} * {1})"),
    "aten.gt.Scalar": _of("{} > {}"),
    "aten.gt.Tensor": _of("{} > {}"),
    "aten.ge.Scalar": _of("{} >= {}"),
    "aten.ge.Tensor": _of("{} >= {}"),
    "aten.lt.Scalar": _of("{} < {}"),
    "aten.lt.Tensor": _of("{} < {}"),
    "aten.le.Scalar": _of("{} <= {}"),
    "aten.le.Tensor": _of("{} <= {}"),
    "aten.where.self": _of("tl.where({}, {}, {})"),
    "aten.ones_like.default": lambda node, word: "1.0",
    "aten.zeros_like.default": lambda node, word: "0.0",
    "aten.scalar_tensor.default": _first("{}"),
    "aten.expand.default": _first("{}"),
    "aten.sum.default": _first("{}"),  # of a scalar: automatic derivatives sum before they start
    "aten.detach.default": _first("{}"),
    "aten._to_copy.default": _copied,
    "<built-in function getitem>": _item,
}
"""Operations of a traced form and what they are called in a kernel."""


@triton.jit
def sigmoid(z):
    small = tl.exp(-tl.abs(z))
    return tl.where(z < 0, small, 1.0) / (1.0 + small)


@triton.jit
def silu(z):
    return z * sigmoid(z)


@triton.jit
def tanh(z):
    small = tl.exp(-2.0 * tl.abs(z))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(z < 0, -size, size)


@triton.jit
def gelu(z):
    return 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))


@triton.jit
def log_sigmoid(z):
    small = tl.exp(-tl.abs(z))
    above = 1.0 + small  # log(1 + small) without the loss of small's last digits
    log = tl.where(above == 1.0, small, tl.log(above) * (small / (above - 1.0)))
    return tl.minimum(z, 0.0) - tl.where(small == 0.0, 0.0, log)


def _split(
    flat: tuple[torch.Tensor, ...], counts: tuple[int, int, int]
) -> tuple[list[torch.Tensor], ...]:
    own, shared, _ = counts
    return list(flat[:own]), list(flat[own : own + shared]), list(flat[own + shared :])


def _compiled(body: str) -> triton.JITFunction:
    """A function of columns with a body, which Triton reads again through `linecache`.

    It is named after its text: Triton takes two functions of one name and the same types of
    arguments in one kernel to be the same.
    """
    name = f"columns_{hashlib.sha256(body.encode()).hexdigest()[:16]}"
    source = f"@triton.jit\ndef {name}(own, shared, x):\n{body}"
    file = f"<gate {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace = dict(globals())
    exec(compile(source, file, "exec"), namespace)
    return namespace[name]
