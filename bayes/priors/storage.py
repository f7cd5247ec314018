"""Priors in files: parameters, family, settings and the network they are for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from kernels.checks import check_int

from ..networks import BayesianNetwork, as_network
from ..storage import StorageError, check_tensors, like, read, understanding, write

if TYPE_CHECKING:
    from .base import Prior

KIND, VERSION = "functional prior", 2


def save_prior(prior: Prior, path: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write a prior.

    Parameters
    ----------
    prior : Prior
    path : str or Path
    about : dict, optional
        JSON's types: what the prior was fitted to, for `read_about`.

    Raises
    ------
    StorageError
        If the file cannot be written; what was there is intact.
    """
    header = {
        "family": prior.family,
        "settings": prior.settings,
        "net": prior.net.signature(),
        "about": dict(about or {}),
    }
    write(path, KIND, VERSION, header, prior.state_dict())
    return Path(path)


def read_about(path: str | Path) -> dict[str, Any]:
    """What `save_prior` was told about a prior.

    Raises
    ------
    FileNotFoundError
    StorageError
        If the file is not such a file, or is of another version.
    """
    header, _ = read(path, KIND, VERSION)
    with understanding(path):
        return dict(header["about"])


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
    FileNotFoundError
    StorageError
        If the file is not such a file, is of another version, is for another network, or holds no
        prior of a known family.

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

    header, tensors = read(path, KIND, VERSION)
    net = as_network(net)
    with understanding(path):
        if header["net"] != net.signature():
            raise StorageError(
                f"The prior in {str(path)!r} is for a network with the blocks {header['net']}; "
                f"got {net.signature()}. Make the network it was fitted for."
            )
        if header["family"] not in FAMILIES:
            raise StorageError(
                f"The prior in {str(path)!r} is of the family {header['family']!r}; "
                f"known are {sorted(FAMILIES)}."
            )
        for name, value in header["settings"].items():
            if isinstance(value, int):  # what a family counts is no more than its parameters
                check_int(name, value, 1, sum(t.numel() for t in tensors.values()))
        prior = FAMILIES[header["family"]](net, **header["settings"])
        check_tensors(tensors, like(prior.state_dict()))
        prior.load_state_dict(tensors)
    return prior.requires_grad_(False)
