"""Models in files: one safetensors file of weights, the records they look at and a header."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..storage import StorageError, group, members, read, write
from .architecture import Architecture, Network
from .climate import Climate
from .context import N_EDGE
from .features import Features
from .kriging import Kriging
from .likelihoods import LIKELIHOODS
from .model import Model
from .recalibration import Recalibration
from .records import Records, Reference, Schema
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
        If the file is torn, of another kind or of another version.
    """
    header, tensors = read(path, KIND, VERSION)
    arrays = {name: t.numpy() for name, t in members("records", tensors).items()}
    n_rows = len(arrays["hours"])
    records = Records(
        **arrays,
        covariate_names=tuple(header["covariate_names"]),
        rank=np.arange(n_rows),
        index=pd.RangeIndex(n_rows),
        reference=_reference(header["reference"]),
    )
    architecture = Architecture(**_tuples(header["architecture"]))
    network = Network(
        architecture, header["n_members"], torch.zeros(N_EDGE), torch.Generator().manual_seed(0)
    )
    network.load_state_dict(members("network", tensors))
    model = Model(
        records,
        Features(**_tuples(header["features"])),
        LIKELIHOODS[header["likelihood"]](),
        TargetScale(**header["target_scale"]),
        tensors["effects"].numpy(),
        header["period"],
        header["spacing"],
        Kriging(header["period"], header["spacing"], tensors["kriging"]),
        network,
        Climate(**{name: t.numpy() for name, t in members("climate", tensors).items()}),
        Recalibration(tensors["recalibration"].numpy()),
    )
    return model, header["settings"]


def _reference(header: dict[str, Any]) -> Reference:
    fields = _tuples({**header, "schema": None})
    return Reference(**{**fields, "schema": Schema(**_tuples(header["schema"]))})


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as tuples, also inside lists."""
    return {key: _tuple(value) for key, value in fields.items()}


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, list) else value
