"""The counter-based generator in plain PyTorch: known answers and its law."""

import math

import pytest
import torch
from scipy import stats

from kernels.philox import Stream, naive

FALSE_ALARM = 1e-6
"""Of each test of a law below; 14 of them. The streams are fixed: a failure is a change of code."""

N = 200_000

KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
"""Counters, keys and words of Random123's kat_vectors, philox 4x32 with 10 rounds."""

TINY = torch.zeros(0, dtype=torch.float64)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    tensors = tuple(torch.tensor(c) for c in counter)
    assert tuple(int(word) for word in naive.philox(tensors, key)) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniforms_are_inside_the_unit_interval(dtype):
    word = torch.tensor([0, 1, 2**31, 2**32 - 2, 2**32 - 1])
    u = naive.uniform(word, dtype)
    assert bool((u > 0).all())
    assert bool((u < 1).all())
    assert bool((u.diff() >= 0).all())
    first, second = naive.normal_pair(word, word.flip(0), dtype)
    assert bool(torch.isfinite(first).all())
    assert bool(torch.isfinite(second).all())


def test_an_entry_has_an_address():
    """Whatever the shape, and however many come after it."""
    whole = Stream(11, 2).normal((1000,), TINY)
    assert torch.equal(Stream(11, 2).normal((10, 37), TINY).flatten(), whole[:370])
    assert not torch.equal(Stream(11, 3).normal((1000,), TINY), whole)
    assert not torch.equal(Stream(12, 2).normal((1000,), TINY), whole)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True])
def test_numbers_out_of_range_are_refused(seed):
    with pytest.raises(ValueError, match="The 'seed' parameter must be an int in"):
        Stream(seed)
    with pytest.raises(ValueError, match="The 'number' parameter must be an int in"):
        Stream(0, seed)


def bit_statistic(words):
    """Sum of squared z-scores of the 32 bit frequencies: chi-squared with 32 degrees."""
    bits = (words[:, None] >> torch.arange(32)) & 1
    z = (bits.double().mean(0) - 0.5) * 2 * math.sqrt(len(words))
    return float(z.square().sum())


def test_bits_are_fair():
    """H0: independent fair bits; false alarm FALSE_ALARM for each word. Control: words whose top
    bit is 1 with probability .52."""
    bound = stats.chi2.isf(FALSE_ALARM, 32)
    for word in naive.words(0, 0, torch.arange(N)):
        assert bit_statistic(word) < bound
    some = torch.arange(N) % 25 == 0
    assert bit_statistic(torch.where(some, word | (1 << 31), word)) > bound


def test_normals_are_normal():
    """H0: standard normals; Kolmogorov-Smirnov and four moments, false alarm FALSE_ALARM each.
    Control: the same numbers scaled by 1.02."""

    def p_values(z):
        yield stats.kstest(z.numpy(), "norm").pvalue
        hermite = (z, z**2 - 1, z**3 - 3 * z, z**4 - 6 * z**2 + 3)  # orthogonal, variances p!
        for power, h in enumerate(hermite, 1):
            score = float(h.mean()) * math.sqrt(len(z) / math.factorial(power))
            yield 2 * stats.norm.sf(abs(score))

    z = Stream(0).normal((N,), TINY)
    assert min(p_values(z)) > FALSE_ALARM
    assert min(p_values(1.02 * z)) < FALSE_ALARM


def test_streams_do_not_follow_each_other():
    """H0: independence; the correlation of values and of squares, times sqrt(N), is standard
    normal. Pairs: neighbours, and the same entries under another number, seed or high half of the
    index. Control: a stream and its own copy with 2% of the variance replaced by another's."""

    def worst(a, b):
        pairs = ((a, b), (a.square(), b.square()))
        return max(abs(float(torch.corrcoef(torch.stack(p))[0, 1])) for p in pairs)

    bound = stats.norm.isf(FALSE_ALARM / 4) / math.sqrt(N)
    z = Stream(0).normal((N + 5,), TINY)
    far = naive.normal_pair(*naive.words(0, 0, torch.arange(N) + 2**32)[:2], torch.float64)[0]
    others = [z[lag : N + lag] for lag in (1, 2, 3, 4, 5)]
    others += [Stream(0, 1).normal((N,), TINY), Stream(1).normal((N,), TINY), far]
    assert max(worst(z[:N], other) for other in others) < bound
    control = math.sqrt(0.02) * z[:N] + math.sqrt(0.98) * Stream(1).normal((N,), TINY)
    assert worst(z[:N], control) > bound
