"""Files that no one should have written: each loader says what is wrong, and serves nothing.

Every loader of the package is a line of `LOADERS`; each takes the place of a file, and is tried on
the file of its own artefact, damaged.
"""

import contextlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bayes import CGLUBNF
from bayes.forecast.architecture import N_FOLDS, Architecture, Inputs, Network
from bayes.forecast.training import Plan, Targets, train
from bayes.networks import MLP
from bayes.priors import (
    Box,
    CallableTarget,
    FlowPrior,
    GaussianPrior,
    HierarchicalPrior,
    fit_functional_prior,
    load_prior,
)
from bayes.priors.matching import Energy
from bayes.priors.storage import read_about, save_prior
from bayes.samplers import BAOAB, SGHMC, Gaussian, Posterior, read_draws, sample, sample_density
from bayes.storage import StorageError, read, write

KIND, VERSION = "thing", 3
NET = MLP(1, [3], 1)
X = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]


@dataclass(frozen=True)
class Loader:
    """How a file of a kind is made and read.

    ``free`` are the tensors, or groups of them, that may hold NaN.
    """

    make: Callable
    load: Callable
    name: str = "x.safetensors"
    free: tuple[str, ...] = ()
    looks_at_tensors: bool = True


def make_posterior(path):
    options = {"n_chains": 2, "n_draws": 3, "thin": 1, "burn_in": 1, "batch_size": None}
    prior = HierarchicalPrior.per_layer(NET)
    posterior = sample(NET, prior, X, X[:, 0], SGHMC(1e-3), **options, random_state=0)
    posterior.save(path)


def load_posterior(path):
    return Posterior.load(path, NET, HierarchicalPrior.per_layer(NET), Gaussian(), SGHMC(1e-3))


def run(path, n_draws=20, **where):
    return sample_density(
        lambda q: -0.5 * q.square().sum(), torch.zeros(2, 3), BAOAB(0.5), n_draws=n_draws,
        burn_in=5, random_state=0, **(where or {"checkpoint": path}),
    )  # fmt: skip


def fit(path, n_steps=2):
    target = CallableTarget(lambda x, n, g: torch.randn(n, len(x), generator=g, dtype=x.dtype))
    fit_functional_prior(
        NET, GaussianPrior.per_layer(NET), target, Box(X), method=Energy(n_steps, n_functions=8),
        n_measurement=3, check_every=1, random_state=0, checkpoint=path,
    )  # fmt: skip


def train_field(path):
    rows, none = torch.linspace(-0.5, 0.5, 12)[:, None], torch.zeros(12, 0)
    inputs = Inputs(
        rows, none, none, none, none.bool(), torch.zeros(12, 0, 1), none, *torch.zeros(2, 12)
    )
    network = Network(
        Architecture(n_coords=1, n_edge=1, width=3, depth=1, context=False), 2, torch.zeros(1),
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    train(
        network, Targets(inputs, rows[:, 0], torch.arange(12) % N_FOLDS),
        lambda z, m, s, _: -0.5 * ((z - m) / s.exp()).square() - s, Plan(2, 6, 1e-2, 9, 1.0, 12),
        torch.Generator().manual_seed(1), checkpoint=path,
    )  # fmt: skip


def make_forecaster(path):
    hours = np.arange(40)
    df = pd.DataFrame({"time": pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, "h")})
    df = df.assign(x=hours % 2 * 1.0, wind=np.cos(hours), pm25=10 + np.sin(hours / 4))
    model = CGLUBNF("time", ["x"], "pm25", ["wind"], n_updates=1, width=4, ensemble_size=2)
    model.set_params(random_state=0, activations=("tanh",), depth=1).fit(df).save(path)


STOPPED = ("draws", "potential", "at_start", "at_position", "moments")
"""Where a chain that was stopped leaves NaN."""

LOADERS = {
    "read": Loader(
        lambda path: write(path, KIND, VERSION, {"a": 1}, {"a": torch.ones(2)}),
        lambda path: read(path, KIND, VERSION),
        looks_at_tensors=False,
    ),
    "load_prior": Loader(
        lambda path: GaussianPrior.per_layer(NET).save(path), lambda path: load_prior(path, NET)
    ),
    "load_prior, a flow": Loader(
        lambda path: FlowPrior(NET, 1, 2).save(path), lambda path: load_prior(path, NET)
    ),
    "read_about": Loader(
        lambda path: save_prior(GaussianPrior(NET), path, {"kernel": "rbf"}), read_about,
        looks_at_tensors=False,
    ),
    "fit_functional_prior": Loader(fit, fit),
    "Posterior.load": Loader(make_posterior, load_posterior, free=STOPPED),
    "sample_density": Loader(run, lambda path: run(path, 30), free=STOPPED),
    "stream_to": Loader(
        lambda path: run(path, stream_to=path.parent),
        lambda path: run(path, 30, stream_to=path.parent),
        "state.safetensors", STOPPED,
    ),
    "read_draws": Loader(
        lambda path: run(path, stream_to=path.parent), lambda path: list(read_draws(path.parent)),
        "state.safetensors", looks_at_tensors=False,
    ),
    "read_draws, a chunk": Loader(
        lambda path: run(path, stream_to=path.parent), lambda path: list(read_draws(path.parent)),
        "draws-000000000.safetensors", free=("draws",),
    ),
    "train": Loader(train_field, train_field, free=("score",)),
    "CGLUBNF.load": Loader(make_forecaster, CGLUBNF.load, free=("records.covariates",)),
}  # fmt: skip


def safetensors(header, body=b""):
    """The bytes of a file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def claims(**changes):
    entry = {"dtype": "F64", "shape": [1], "data_offsets": [0, 8], **changes}
    return safetensors({"a": entry}, b"\0" * 8)


BYTES = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "text": b"a,b\n1,2\n",
    "pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94.",
    "header of 2^62 bytes": struct.pack("<Q", 2**62) + b"{}",
    "header of 2^64 - 1 bytes": struct.pack("<Q", 2**64 - 1),
    "header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "header that is no JSON": safetensors(b"{]"),
    "deep header": safetensors(b"[" * 20_000 + b"]" * 20_000),
    "billions of rows claimed": claims(shape=[2**40]),
    "shape that overflows": claims(shape=[2**62, 2**62]),
    "data beyond the end": claims(shape=[1000], data_offsets=[0, 8000]),
    "data before the beginning": claims(data_offsets=[-8, 0]),
    "unknown dtype": claims(dtype="O"),
    "dtype of another size": claims(dtype="F32"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Callable[[str], bytes]:
    """The path of the artefact of a loader, made once."""
    made: dict[str, os.PathLike] = {}

    def path_of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("good")
            LOADERS[name].make(folder / LOADERS[name].name)
            made[name] = folder / LOADERS[name].name
        return made[name]

    return path_of


@pytest.fixture(params=LOADERS)
def loader(request):
    return request.param


@pytest.fixture
def mine(loader, good, tmp_path):
    """A copy of a loader's artefact, and what reads it."""
    folder = shutil.copytree(good(loader).parent, tmp_path / "mine")
    return folder / LOADERS[loader].name, LOADERS[loader].load


def refuses(load, path, match=".") -> None:
    with pytest.raises(StorageError, match=match) as stop:
        load(path)
    assert path.name in str(stop.value)


def test_what_was_written_is_read(mine):
    """Control: what nobody touched is taken, through a symbolic link too."""
    path, load = mine
    os.rename(path, path.with_suffix(".away"))
    path.symlink_to(path.with_suffix(".away"))
    load(path)


def test_bytes_that_are_no_file_of_ours(mine):
    path, load = mine
    for content in BYTES.values():
        path.write_bytes(content)
        refuses(load, path, "torn or not a safetensors file")
        assert path.read_bytes() == content


def test_truncated_files(mine):
    path, load = mine
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.7, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        refuses(load, path, "torn")


def test_one_bit_that_was_changed(mine):
    """The last byte is a tensor's: without a digest it would be served."""
    path, load = mine
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refuses(load, path, "changed after it was written")


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"},
        {"kind": None},
        {"version": "0"},
        {"version": None},
        {"header": None},
        {"header": "{"},
        {"header": "[1]"},
        {"header": "[" * 200_000},
        {"sha256": None},
        {"sha256": "0" * 64},
    ],
    ids=str,
)
def test_good_safetensors_with_other_metadata(mine, changes):
    path, load = mine
    metadata, tensors = contents(path)
    metadata = {k: v for k, v in (metadata | changes).items() if v is not None}
    save_file(tensors, path, metadata=metadata)
    refuses(load, path)


def contents(path):
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewrite(path, header=None, tensors=None) -> None:
    """Other content, with the digest that belongs to it."""
    metadata, old = contents(path)
    header = json.loads(metadata["header"]) if header is None else header
    write(path, metadata["kind"], int(metadata["version"]), header, tensors or old)


def test_other_tensors(mine, loader):
    """Missing, unknown, of another dtype or shape, NaN where numbers are needed."""
    path, load = mine
    _, tensors = contents(path)
    for k, (name, tensor) in enumerate(tensors.items()):
        rest = {k: v for k, v in tensors.items() if k != name}
        damages = [
            rest or {"another": tensor},
            {**tensors, "stranger": tensor},
            {**rest, name: tensor.to(torch.complex64)},
            {**rest, name: tensor.unsqueeze(0)},
            {**rest, name: tensor.flatten()[:0]},
        ]
        if tensor.is_floating_point() and name.split(".")[0] not in LOADERS[loader].free:
            wrong = tensor.clone().flatten()
            wrong[:1] = torch.nan
            damages.append({**rest, name: wrong.view(tensor.shape)})
        few = len(tensors) < 8
        for damaged in damages if few else [damages[k % len(damages)]]:
            rewrite(path, tensors=damaged)
            if LOADERS[loader].looks_at_tensors:
                refuses(load, path)
            else:
                load(path)


WRONG = [None, "../../passwd", "/etc/passwd", -1, 2**70, float("nan"), True, [], [[]], {}, {"a": 1}]


def edits(document: Mapping, depth: int = 2):
    """Copies of a document without one of its fields, and with another value in it."""
    for name, value in document.items():
        rest = {k: v for k, v in document.items() if k != name}
        yield "less", rest
        for wrong in WRONG:
            yield "other", {**rest, name: wrong}
        if isinstance(value, dict) and depth:
            for kind, inner in edits(value, depth - 1):
                yield kind, {**rest, name: inner}


def test_other_headers(mine, loader):
    """A missing field is refused; a wrong value too, or it does no harm to reading."""
    path, load = mine
    header = json.loads(contents(path)[0]["header"])
    n_refused = 0
    for _, changed in edits(header):
        rewrite(path, header=changed)
        with contextlib.suppress(StorageError):
            load(path)
            continue
        n_refused += 1
    assert n_refused or loader in ("read", "read_draws, a chunk")


def test_places_that_are_no_file(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    places = [tmp_path, tmp_path / "nothing", tmp_path / "loop", tmp_path / "dangling"]
    for load in ("read", "load_prior", "read_about", "Posterior.load", "CGLUBNF.load"):
        for place in [*places, tmp_path / "pipe", "/dev/zero"]:
            with pytest.raises(FileNotFoundError, match="There is no file"):
                LOADERS[load].load(place)
        for place in ("", "a\0b", None, 3, b"a"):
            with pytest.raises(ValueError, match="The 'path' parameter must be the path of a file"):
                LOADERS[load].load(place)


def test_a_folder_in_place_of_a_file(mine):
    path, load = mine
    path.unlink()
    path.mkdir()
    with pytest.raises((StorageError, FileNotFoundError), match=path.name):
        load(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(mine):
    path, load = mine
    path.chmod(0)
    refuses(load, path, "cannot be read: Permission denied")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux's /proc")
def test_a_file_that_the_system_does_not_give():
    with pytest.raises(StorageError, match="'/proc/self/mem' cannot be read"):
        read("/proc/self/mem", KIND, VERSION)
