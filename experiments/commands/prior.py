"""`moebius prior`: fit a prior over a network's weights to a Gaussian process, and report on it.

The file of a fitted prior says what it was fitted to and how the inputs were standardised, so that
`report` needs nothing but the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import UserError

if TYPE_CHECKING:
    import numpy as np

app = typer.Typer(
    help="Give a Bayesian neural network the prior of a Gaussian process.", no_args_is_help=True
)


class KernelOption(StrEnum):
    """The Gaussian process."""

    rbf_ard = "rbf-ard"
    rbf = "rbf"
    matern_12 = "matern-12"
    matern_32 = "matern-32"
    matern_52 = "matern-52"


class FamilyOption(StrEnum):
    """The family of priors over weights."""

    gaussian = "gaussian"
    hierarchical = "hierarchical"
    student_t = "student_t"
    flow = "flow"


class ActivationOption(StrEnum):
    """The network's activation."""

    tanh = "tanh"
    relu = "relu"
    erf = "erf"
    cos = "cos"
    sin = "sin"
    rbf = "rbf"
    softplus = "softplus"
    swish = "swish"
    linear = "linear"


class MethodOption(StrEnum):
    """How the two are matched."""

    auto = "auto"
    moments = "moments"
    energy = "energy"
    bures = "bures"
    sliced = "sliced"
    sinkhorn = "sinkhorn"
    wasserstein = "wasserstein"


_START: dict[str, Any] = {"hierarchical": {"shape": 4.0, "rate": 4.0}}  # weights have a kurtosis

_Data = Annotated[Path, typer.Option(help="CSV file of numbers, with a header.")]


@app.command()
def fit(
    net: Annotated[str, typer.Option(help="Dense layers by their widths, as mlp:13-100-1.")],
    data: _Data,
    target: Annotated[str, typer.Option(help="Column of the output; all others are inputs.")],
    out: Annotated[Path, typer.Option(help="File to write, ending in .safetensors.")],
    kernel: Annotated[
        KernelOption,
        typer.Option(help="rbf-ard draws lengthscales and variance anew for every function."),
    ] = KernelOption.rbf_ard,
    lengthscale: Annotated[
        float | None,
        typer.Option(help="Of the other kernels, in standard deviations; sqrt(2 D) by default."),
    ] = None,
    variance: Annotated[float, typer.Option(help="Of the other kernels.")] = 1.0,
    family: Annotated[FamilyOption, typer.Option(help="Of priors.")] = FamilyOption.hierarchical,
    activation: ActivationOption = ActivationOption.tanh,
    method: MethodOption = MethodOption.auto,
    seed: int = 0,
) -> None:
    """Fit a prior over the network's weights, inputs standardised."""
    from rich.console import Console

    from bayes.priors import FAMILIES, MLP, fit_functional_prior
    from bayes.priors.matching import Progress
    from bayes.priors.storage import save_prior

    widths = _widths(net)
    table = _read(data)
    if target not in table.columns:
        raise UserError(f"{data} has no column {target!r}; it has: {', '.join(table.columns)}")
    columns = [str(column) for column in table.columns if column != target]
    inputs = _inputs(table, columns, data)
    if widths[0] != len(columns):
        raise UserError(
            f"--net {net} takes {widths[0]} inputs; {data} has {len(columns)} columns beside "
            f"{target!r}: {', '.join(columns)}"
        )
    spread = inputs.std(0)
    about = {
        "net": widths,
        "activation": activation.value,
        "kernel": kernel.value,
        "lengthscale": lengthscale,
        "variance": variance,
        "columns": columns,
        "centre": inputs.mean(0).tolist(),
        "spread": [float(s) if s > 0 else 1.0 for s in spread],
    }
    console = Console()
    with _as_user_errors(), console.status("") as shown:

        def show(now: Progress) -> None:
            shown.update(
                f"{now.method}, step {now.step}: held-out energy distance {now.held_out:.4f}"
            )

        network = MLP(widths[0], widths[1:-1], widths[-1], activation=activation.value)
        prior = fit_functional_prior(
            network,
            FAMILIES[family.value](network, **_START.get(family.value, {})),
            _law(about),
            _standardised(inputs, about),
            method=method.value,
            random_state=seed,
            callback=show,
        )
        save_prior(prior, out, about)
    first, best = prior.fit_.checks[0], prior.fit_.best
    console.print(
        f"Held-out energy distance {first.held_out:.4f} before, {best.held_out:.4f} after "
        f"{prior.fit_.checks[-1].seconds:.1f} CPU seconds ({'; '.join(prior.fit_.status)})\n{out}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def report(
    prior: Annotated[Path, typer.Argument(help="File that `moebius prior fit` wrote.")],
    data: _Data,
    figure: Annotated[
        Path | None, typer.Option(help="PNG or PDF of functions of both, side by side.")
    ] = None,
    functions: Annotated[
        int, typer.Option(help="Drawn of each, in each of five repetitions.")
    ] = 2000,
    seed: int = 0,
) -> None:
    """Measure how well a prior's functions match: each distance beside its floor."""
    from bayes.priors import MLP, load_prior
    from bayes.priors.storage import read_about

    with _as_user_errors():
        about = read_about(prior)
        if not about:
            raise UserError(
                f"{prior} does not say what it was fitted to; use `prior.report(target, inputs)`"
            )
        widths = about["net"]
        network = MLP(widths[0], widths[1:-1], widths[-1], activation=about["activation"])
        fitted = load_prior(prior, network)
        inputs = _inputs(_read(data), about["columns"], data)
        found = fitted.report(
            _law(about), _standardised(inputs, about), n_functions=functions, random_state=seed
        )
        typer.echo(str(found))
        if figure is not None:
            found.plot().savefig(figure, dpi=200)
            typer.echo(str(figure))


def _widths(net: str) -> list[int]:
    kind, _, rest = net.partition(":")
    widths = rest.split("-")
    if kind != "mlp" or len(widths) < 2 or not all(w.isdecimal() and int(w) > 0 for w in widths):
        raise UserError(
            f"--net must be mlp: and the widths of inputs, hidden layers and outputs, as "
            f"mlp:13-100-1; got {net!r}"
        )
    return [int(width) for width in widths]


def _read(path: Path) -> Any:
    import pandas as pd

    try:
        return pd.read_csv(path).rename(columns=str)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from None


def _inputs(table: Any, columns: list[str], path: Path) -> np.ndarray:
    """Columns of a table as numbers (N, D)."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}")
    if len(table) < 2:
        raise UserError(f"{path} must have at least two rows of data; it has {len(table)}")
    words = [column for column in columns if table[column].dtype.kind not in "iufb"]
    if words:
        raise UserError(f"{path}: the columns {', '.join(words)} are not numbers; encode them")
    inputs = table[columns].to_numpy(dtype=float)
    gaps = [i + 2 for i, row in enumerate(inputs) if not all(map(math.isfinite, row))]
    if gaps:
        raise UserError(
            f"{path} has missing or infinite inputs in {len(gaps)} rows, first on line {gaps[0]}; "
            "drop or impute them"
        )
    return inputs


def _standardised(inputs: np.ndarray, about: dict[str, Any]) -> np.ndarray:
    return (inputs - about["centre"]) / about["spread"]


def _law(about: dict[str, Any]) -> Any:
    """The kernel that a file's words stand for."""
    import gpytorch

    from bayes.priors.targets import hierarchical_rbf_kernel
    from kernels.checks import check_real

    n_features, name = len(about["columns"]), about["kernel"]
    given, variance = about["lengthscale"], about["variance"]
    if name == KernelOption.rbf_ard:
        if given is not None or variance != 1.0:
            raise ValueError("--lengthscale and --variance are not for rbf-ard, which draws them")
        return hierarchical_rbf_kernel(n_features)
    base: Any = gpytorch.kernels.RBFKernel()
    if name != KernelOption.rbf:
        base = gpytorch.kernels.MaternKernel(nu=int(name.removeprefix("matern-")[0]) / 2)
    lengthscale = (2 * n_features) ** 0.5 if given is None else given
    base.lengthscale = check_real("lengthscale", lengthscale, low=0.0, strict=True)
    kernel = gpytorch.kernels.ScaleKernel(base)
    kernel.outputscale = check_real("variance", variance, low=0.0, strict=True)
    return kernel


@contextmanager
def _as_user_errors() -> Iterator[None]:
    """What the library refuses is what the person can put right."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
