"""Models in files: one safetensors file of weights, the records they look at and a header."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kernels.checks import check_choice, check_int, check_real

from ..headers import from_document
from ..storage import StorageError, check_tensors, group, like, members, read, understanding, write
from .architecture import Architecture, Network
from .architecture.activation import ACTIVATIONS
from .climate import Climate
from .context import N_EDGE, N_GROUPS
from .features import Features
from .kriging import Kriging
from .likelihoods import LIKELIHOODS
from .model import Model
from .recalibration import Recalibration
from .records import Records, Reference
from .scale import TargetScale

KIND, VERSION = "CGLU-BNF forecaster", 2
_ARRAYS = ("hours", "position", "target", "covariates", "sensor")


def save_model(model: Model, settings: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a model and the settings of its estimator.

    Raises
    ------
    StorageError
        If the file cannot be written, or sensors are named by something else than text and numbers.
    """
    reference = asdict(model.records.reference)
    odd = [s for s in reference["sensors"] if not isinstance(s, str | int | float | tuple)]
    if odd:
        raise StorageError(f"Sensors must be named by text or numbers to be saved; got {odd[0]!r}.")
    header = {
        "settings": settings,
        "reference": reference,
        "covariate_names": list(model.records.covariate_names),
        "features": asdict(model.features),
        "likelihood": model.likelihood.name,
        "target_scale": asdict(model.target_scale),
        "period": model.period,
        "spacing": model.spacing,
        "architecture": asdict(model.network.architecture),
        "n_members": model.network.n_members,
    }
    tensors = {
        "effects": torch.from_numpy(model.effects),
        "kriging": model.kriging.parameters,
        **group("climate", {name: torch.from_numpy(a) for name, a in vars(model.climate).items()}),
        "recalibration": torch.from_numpy(model.recalibration.shifts),
        **group("records", {a: torch.from_numpy(getattr(model.records, a)) for a in _ARRAYS}),
        **group("network", model.network.state_dict()),
    }
    write(path, KIND, VERSION, header, tensors)


def load_model(path: str | os.PathLike[str]) -> tuple[Model, dict[str, Any]]:
    """Read a model and the settings of its estimator.

    Raises
    ------
    FileNotFoundError
    StorageError
        If the file is torn, changed, of another kind or of another version, or holds no such model.
    """
    header, tensors = read(path, KIND, VERSION)
    with understanding(path):
        model = _model(header, tensors)
        settings = header["settings"]
        if not isinstance(settings, dict):
            raise ValueError(f"The settings must be an object; got {settings!r}.")
    return model, settings


def _model(header: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    reference = from_document(Reference, header["reference"])
    features = from_document(Features, header["features"])
    architecture = from_document(Architecture, header["architecture"])
    inputs = features.n_coords, features.n_season, features.n_covariates
    if inputs != (architecture.n_coords, architecture.n_season, architecture.n_covariates):
        raise ValueError(f"The network must have the inputs {inputs}; got {architecture}.")
    weights = members("network", tensors)
    n_members = _check_sizes(architecture, header["n_members"], weights)
    network = Network(
        architecture, n_members, torch.zeros(N_EDGE), torch.Generator().manual_seed(0)
    )
    n_rows = len(tensors["records.hours"])
    names = header["covariate_names"]
    n_coords, n_covariates = len(reference.schema.coords), len(names)
    period = check_real("period", header["period"], low=0, strict=True)
    spacing = check_real("spacing", header["spacing"], low=0, strict=True)
    first = Kriging(period, spacing)
    climate = Climate.none(n_members, features.n_season, N_GROUPS)
    shapes = {
        "effects": (len(reference.sensors),),
        "kriging": tuple(first.parameters.shape),
        **{f"climate.{name}": value.shape for name, value in vars(climate).items()},
        "recalibration": Recalibration.identity(N_GROUPS).shifts.shape,
        "records.hours": (n_rows,),
        "records.position": (n_rows, n_coords),
        "records.target": (n_rows,),
        "records.covariates": (n_rows, n_covariates),
    }
    expected = {name: (torch.float64, shape) for name, shape in shapes.items()}
    expected["records.sensor"] = torch.int64, (n_rows,)
    expected |= like(group("network", network.state_dict()))
    check_tensors(tensors, expected, unbounded=("records.covariates",))
    arrays = {name: t.numpy() for name, t in members("records", tensors).items()}
    for code in (arrays["sensor"].min(), arrays["sensor"].max()):
        check_int("sensor", code, -1, len(reference.sensors) - 1)
    network.load_state_dict(weights)
    return Model(
        Records(
            **arrays,
            covariate_names=tuple(names),
            rank=np.arange(n_rows),
            index=pd.RangeIndex(n_rows),
            reference=reference,
        ),
        features,
        LIKELIHOODS[check_choice("likelihood", header["likelihood"], tuple(LIKELIHOODS))](),
        from_document(TargetScale, header["target_scale"]),
        tensors["effects"].numpy(),
        period,
        spacing,
        Kriging(period, spacing, tensors["kriging"]),
        network,
        Climate(**{name: t.numpy() for name, t in members("climate", tensors).items()}),
        Recalibration(tensors["recalibration"].numpy()),
    )


def _check_sizes(architecture: Architecture, n_members: Any, weights: dict[str, Tensor]) -> int:
    """The number of members, if a network of these sizes is no larger than the weights."""
    largest = max((n for value in weights.values() for n in value.shape), default=0)
    check_int("width", architecture.width, 1, largest)
    check_int("depth", architecture.depth, 1, len(weights))
    check_int("degree", architecture.degree, 0, largest)
    for name in architecture.activations:
        check_choice("activations", name, tuple(ACTIVATIONS))
    return check_int("n_members", n_members, 1, largest)
