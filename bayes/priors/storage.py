"""Tensors and JSON in one safetensors file, written whole or not at all; priors in such a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..networks import BayesianNetwork, as_network

if TYPE_CHECKING:
    from .base import Prior

VERSION = 1
"""Of the layout of a file; raised whenever old files could be misread."""


def save_prior(prior: Prior, path: str | Path) -> Path:
    """Write a prior: its parameters, family, settings and what network it is for."""
    header = {
        "family": prior.family,
        "settings": prior.settings,
        "net": prior.net.signature(),
    }
    tensors = {name: p.detach() for name, p in prior.state_dict().items()}
    return write(Path(path), "functional prior", header, tensors)


def load_prior(path: str | Path, net: BayesianNetwork | nn.Module) -> Prior:
    """Read a prior for a network.

    Parameters
    ----------
    path : str or Path
        Written by `Prior.save`.
    net : BayesianNetwork or torch.nn.Module
        With the layers that the prior was saved for.

    Raises
    ------
    ValueError
        If the file is not such a file, is of another version, or is for another network.

    Examples
    --------
    >>> import tempfile
    >>> from bayes.priors import MLP, GaussianPrior
    >>> net = MLP(2, [3], 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = GaussianPrior.per_layer(net, scale=2.0).save(folder + "/prior.safetensors")
    ...     load_prior(path, net).scale.max().item()
    2.0
    """
    from . import FAMILIES

    header, tensors = read(Path(path), "functional prior")
    net = as_network(net)
    if header["net"] != net.signature():
        raise ValueError(
            f"The prior in {str(path)!r} is for a network with the blocks {header['net']}; "
            f"got {net.signature()}. Make the network it was fitted for."
        )
    if header["family"] not in FAMILIES:
        raise ValueError(
            f"The prior in {str(path)!r} is of the family {header['family']!r}; "
            f"known are {sorted(FAMILIES)}."
        )
    prior = FAMILIES[header["family"]](net, **header["settings"])
    prior.load_state_dict(tensors)
    return prior.requires_grad_(False)


def write(path: Path, kind: str, header: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Write tensors and a JSON header to a file that appears whole or not at all."""
    from safetensors.torch import save_file

    metadata = {"kind": kind, "version": str(VERSION), "header": json.dumps(header)}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        save_file({k: t.contiguous() for k, t in tensors.items()}, temporary, metadata)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and tensors of a file of a kind.

    Raises
    ------
    FileNotFoundError
    ValueError
        If it is not such a file, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"The file {str(path)!r} is not a safetensors file: {error}.") from error
    if metadata.get("kind") != kind:
        raise ValueError(
            f"The file {str(path)!r} must hold a {kind}; got {metadata.get('kind', 'none')!r}."
        )
    if metadata.get("version") != str(VERSION):
        raise ValueError(
            f"The file {str(path)!r} is of version {metadata.get('version')}; this library reads "
            f"version {VERSION}. Fit and save it again, or use the library that wrote it."
        )
    return json.loads(metadata["header"]), tensors
