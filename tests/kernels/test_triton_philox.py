"""The counter-based generator inside kernels: the same words, uniforms and normals."""

import pytest
import torch

from kernels.philox import naive

triton = pytest.importorskip("triton", minversion="3.6")
tl = triton.language
inside = pytest.importorskip("kernels.philox.triton")

SEEDS = [0, 1, 2**32 + 5, 0x299F31D0A4093822, 2**64 - 1]
INDEX = [0, 1, 2, 2**31, 2**32 - 1, 2**32, 10**12 + 7, 0x85A308D3243F6A88 - 2**64, -1]

ROUNDING = {torch.float32: 2e-6, torch.float64: 4e-15}
"""A few units of rounding of sine, cosine and logarithm on normals up to 6.8."""


@triton.jit(do_not_specialize=["seed", "number"])
def _words(out, index, seed, number, SLOT: tl.constexpr):
    at = tl.arange(0, 1)
    i = tl.program_id(0)
    words = inside.words(seed, number, tl.load(index + i + at), SLOT)
    for k in tl.static_range(4):
        tl.store(out + 4 * i + k + at, words[k].to(tl.int64))


@triton.jit
def _uniform(out, word, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, inside.uniform(tl.load(word + at).to(tl.uint32), out.dtype.element_ty))


@triton.jit
def _randint4x(out, seed, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    words = tl.randint4x(seed, at)
    for k in tl.static_range(4):
        tl.store(out + k * BLOCK + at, words[k].to(tl.int64))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_words(seed, device):
    """The published counters of `test_philox` are among these: slot and number too."""
    index = torch.tensor(INDEX)
    for number, slot in [(0, 0), (1, 3), (2**32 - 1, 2**32 - 1), (0x03707344, 0x13198A2E)]:
        out = torch.full((len(index), 4), -1, dtype=torch.int64, device=device)
        _words[(len(index),)](out, index.to(device), seed, number, SLOT=slot)
        low_half_first = (index & 0xFFFFFFFF, (index >> 32) & 0xFFFFFFFF)
        counter = (*low_half_first, torch.tensor(slot), torch.tensor(number))
        plain = naive.philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
        assert torch.equal(out.cpu(), torch.stack(plain, -1))


@pytest.mark.parametrize("dtype", ROUNDING)
def test_the_same_uniforms_to_the_bit(dtype, device):
    edges = torch.tensor([0, 1, 2**24, 2**24 + 1, 2**31, 2**32 - 129, 2**32 - 2, 2**32 - 1])
    word = torch.cat([edges, *naive.words(0, 0, torch.arange(62))])
    out = torch.full((256,), float("nan"), dtype=dtype, device=device)
    _uniform[(1,)](out, word.to(device), BLOCK=256)
    assert torch.equal(out.cpu(), naive.uniform(word, dtype))


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 7), (1021,)])
def test_the_same_normals(dtype, shape, device):
    like = torch.empty(0, dtype=dtype)
    plain = naive.normal(3, 5, shape, like)
    drawn = inside.normal(3, 5, shape, like.to(device)).cpu()
    assert plain.shape == drawn.shape == shape
    assert plain.dtype == drawn.dtype == dtype
    assert torch.allclose(plain, drawn, rtol=0, atol=ROUNDING[dtype])
    other = naive.normal(3, 6, shape, like)
    assert plain.numel() == 0 or not torch.allclose(other, drawn, rtol=0, atol=1e-2)


def test_stream_zero_is_that_of_triton(device):
    out = torch.full((4, 8), -1, dtype=torch.int64, device=device)
    _randint4x[(1,)](out, 12345, BLOCK=8)
    plain = torch.stack(naive.words(12345, 0, torch.arange(8)))
    assert torch.equal(out.cpu() & 0xFFFFFFFF, plain)
