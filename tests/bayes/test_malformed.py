"""Files that no one should have written: each loader says what is wrong, and serves nothing."""

import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file

from bayes import CGLUBNF
from bayes.networks import MLP
from bayes.priors import GaussianPrior, load_prior
from bayes.priors.storage import read_about
from bayes.storage import StorageError, read, write

KIND, VERSION = "thing", 3
NET = MLP(1, [3], 1)


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

LOADERS = {
    "read": lambda path: read(path, KIND, VERSION),
    "load_prior": lambda path: load_prior(path, NET),
    "read_about": read_about,
    "CGLUBNF.load": CGLUBNF.load,
}


@pytest.fixture(params=LOADERS.values(), ids=LOADERS.keys())
def load(request):
    return request.param


@pytest.mark.parametrize("content", BYTES.values(), ids=BYTES.keys())
def test_bytes_that_are_no_file_of_ours(load, content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="torn or not a safetensors file") as stop:
        load(path)
    assert str(path) in str(stop.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated_files(load, share, tmp_path):
    path = tmp_path / "x.safetensors"
    GaussianPrior.per_layer(NET).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(StorageError, match="torn"):
        load(path)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"kind": "other", "version": "3", "header": "{}"},
        {"kind": KIND, "version": "4", "header": "{}"},
        {"kind": KIND, "version": "3"},
        {"kind": KIND, "version": "3", "header": "{"},
        {"kind": KIND, "version": "3", "header": "[1]"},
        {"kind": KIND, "version": "3", "header": "[" * 200_000},
    ],
    ids=["none", "kind", "version", "no header", "torn header", "list", "deep"],
)
def test_good_safetensors_with_other_metadata(load, metadata, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(StorageError, match=r"x\.safetensors"):
        load(path)


def test_places_that_are_no_file(load, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    places = [tmp_path, tmp_path / "nothing", tmp_path / "loop", tmp_path / "dangling"]
    for place in [*places, tmp_path / "pipe", "", "a\0b", "/dev/zero"]:
        with pytest.raises(FileNotFoundError, match="There is no file"):
            load(place)


def test_what_was_written_is_read(tmp_path):
    """Control: the same reader takes a good file, through a symbolic link too."""
    write(tmp_path / "good", KIND, VERSION, {"b": 1}, {"a": torch.arange(3.0)})
    (tmp_path / "link").symlink_to(tmp_path / "good")
    for name in ("good", "link"):
        header, tensors = read(tmp_path / name, KIND, VERSION)
        assert header == {"b": 1}
        assert tensors["a"].tolist() == [0.0, 1.0, 2.0]
