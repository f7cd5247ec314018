"""`moebius prior`: fit a prior over a network's weights to a Gaussian process, and report on it.

The file of a fitted prior says what it was fitted to and how the inputs were standardised, so that
`report` needs nothing but the data.
"""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import UserError
from .options import Json, Seed, as_user_errors
from .output import examples, listed, notes, print_json, records, say

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

_Data = Annotated[
    Path, typer.Option(metavar="FILE", help="CSV file of numbers with a header, a row a case.")
]
_NETWORK, _PROCESS = "The network and its prior", "The Gaussian process to match"


@app.command(
    epilog=examples(
        "moebius prior fit --net mlp:13-100-1 --data boston.csv --target medv "
        "--out prior.safetensors",
        "moebius prior report prior.safetensors --data boston.csv",
    )
)
def fit(
    data: _Data,
    target: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of the output; all others are inputs.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File to write, ending in .safetensors.")
    ],
    net: Annotated[
        str,
        typer.Option(
            metavar="LAYERS",
            rich_help_panel=_NETWORK,
            help="Widths of inputs, hidden layers and output, as mlp:13-100-1.",
        ),
    ],
    activation: Annotated[
        ActivationOption,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_NETWORK,
            help=f"Of the hidden layers: {listed(ActivationOption)}.",
        ),
    ] = ActivationOption.tanh,
    family: Annotated[
        FamilyOption,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_NETWORK,
            help=f"Of priors over weights: {listed(FamilyOption)}.",
        ),
    ] = FamilyOption.hierarchical,
    kernel: Annotated[
        KernelOption,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_PROCESS,
            help=f"Covariance: {listed(KernelOption)}; rbf-ard draws lengthscales and variance "
            "anew for every function.",
        ),
    ] = KernelOption.rbf_ard,
    lengthscale: Annotated[
        float | None,
        typer.Option(
            metavar="REAL",
            rich_help_panel=_PROCESS,
            help="Of the other kernels, in standard deviations of an input; sqrt(2 D) for D "
            "inputs by default.",
        ),
    ] = None,
    variance: Annotated[
        float,
        typer.Option(
            metavar="REAL",
            rich_help_panel=_PROCESS,
            help="Of the other kernels, in squared units of the output.",
        ),
    ] = 1.0,
    method: Annotated[
        MethodOption,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_PROCESS,
            help=f"How the two are matched: {listed(MethodOption)}.",
        ),
    ] = MethodOption.auto,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit a prior over a network's weights so that its functions are a Gaussian process's.

    Reads the inputs of a table, which it standardises; the output's values are not looked at.
    Writes one file, which says what it was fitted to.
    """
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
    console = notes(as_json)
    with as_user_errors(), console.status("") as shown:

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
    seconds = prior.fit_.checks[-1].seconds
    if as_json:
        print_json(
            {
                "prior": out,
                **about,
                "family": family.value,
                "method": method.value,
                "held_out_before": first.held_out,
                "held_out_after": best.held_out,
                "cpu_seconds": seconds,
                "status": prior.fit_.status,
            }
        )
        return
    say(
        f"Held-out energy distance {first.held_out:.4f} before, {best.held_out:.4f} after "
        f"{seconds:.1f} CPU seconds ({'; '.join(prior.fit_.status)})\n{out}"
    )


@app.command(
    epilog=examples(
        "moebius prior report prior.safetensors --data boston.csv",
        "moebius prior report prior.safetensors --data boston.csv --figure functions.pdf",
    )
)
def report(
    prior: Annotated[
        Path, typer.Argument(metavar="PRIOR", help="File that `moebius prior fit` wrote.")
    ],
    data: _Data,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PNG or PDF of functions of both, side by side."),
    ] = None,
    functions: Annotated[
        int, typer.Option(metavar="N", help="Drawn of each, in each of five repetitions.")
    ] = 2000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure how well a prior's functions match: each distance beside its floor.

    Prints distances between the two laws of functions, and statistics of each, with standard
    errors. The target's column of a distance is its floor: the target against itself.
    """
    from bayes.priors import MLP, load_prior
    from bayes.priors.storage import read_about

    with as_user_errors():
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
        if figure is not None:
            found.plot().savefig(figure, dpi=200)
    if as_json:
        rows = records(found.table.rename_axis("quantity").reset_index())
        print_json({"prior": prior, "quantities": rows, "figure": figure})
        return
    say(str(found))
    if figure is not None:
        say(str(figure))


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
