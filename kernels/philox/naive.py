r"""Philox 4x32-10 in plain PyTorch: random words, uniforms and normals addressed by a counter.

Ten rounds turn a 128-bit counter and a 64-bit key into four 32-bit words. A round multiplies two of
the words, keeps both halves of the products and mixes them with the others and the key:

.. math::
    (c_0, c_1, c_2, c_3) \leftarrow
    (\mathrm{hi}(B c_2) \oplus c_1 \oplus k_0,\ \mathrm{lo}(B c_2),\
     \mathrm{hi}(A c_0) \oplus c_3 \oplus k_1,\ \mathrm{lo}(A c_0)).

PyTorch has no arithmetic on unsigned words: they are kept in int64, in [0, 2^32).

References
----------
Salmon, Moraes, Dror and Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, SC '11.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Words = tuple[Tensor, Tensor, Tensor, Tensor]

_A, _B = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


def philox(
    counter: Words,  # int64 tensors that broadcast together
    key: tuple[int, int],
) -> Words:
    """The four words of each counter under a key.

    Examples
    --------
    >>> zero = torch.zeros((), dtype=torch.int64)
    >>> [hex(int(word)) for word in philox((zero, zero, zero, zero), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high_a, low_a = _product(c0, _A)
        high_b, low_b = _product(c2, _B)
        c0, c1, c2, c3 = high_b ^ c1 ^ k0, low_b, high_a ^ c3 ^ k1, low_a
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def words(
    seed: int,
    number: int,
    index: Tensor,  # int64
    slot: int = 0,
) -> Words:
    """The words of the counters (index, slot, number) under the key ``seed``.

    Words 0 and 1 of a counter hold the index, low half first, word 2 the slot and word 3 the number
    of the stream; the key is the seed, low half first.
    """
    third, fourth = index.new_tensor(slot), index.new_tensor(number)
    return philox((index & _MASK, (index >> 32) & _MASK, third, fourth), (seed & _MASK, seed >> 32))


def uniform(
    word: Tensor,  # int64
    dtype: torch.dtype,
) -> Tensor:
    """(w + 1/2) / 2^32, rounded and kept below 1: uniform on (0, 1)."""
    below_one = 1 - torch.finfo(dtype).eps / 2
    return ((word.to(dtype) + 0.5) * 2.0**-32).clamp_(max=below_one)


def normal_pair(first: Tensor, second: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r"""Two standard normals of two words, by Box and Muller:
    :math:`\sqrt{-2\log u_1}\,(\cos 2\pi u_2, \sin 2\pi u_2)`."""
    radius = torch.sqrt(-2 * torch.log(uniform(first, dtype)))
    angle = 2 * math.pi * uniform(second, dtype)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def normal(seed: int, number: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Standard normals: entry j, in row-major order, is normal j % 4 of counter j // 4."""
    size = math.prod(shape)
    index = torch.arange((size + 3) // 4, device=like.device)
    w0, w1, w2, w3 = words(seed, number, index)
    pairs = (*normal_pair(w0, w1, like.dtype), *normal_pair(w2, w3, like.dtype))
    return torch.stack(pairs, -1).flatten()[:size].view(shape)


def _product(word: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a product, by halves of the constant: int64 must not overflow."""
    low, high = word * (constant & 0xFFFF), word * (constant >> 16)
    high += low >> 16
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)
