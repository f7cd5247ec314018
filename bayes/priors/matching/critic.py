r"""A critic for the Wasserstein-1 distance, with its gradient penalty in closed form.

.. math:: \max_\phi\; \mathbb E \phi(F) - \mathbb E \phi(G)
    - \lambda\, \mathbb E \bigl(|\nabla \phi(\hat x)| - 1\bigr)^2,
    \qquad \hat x = \epsilon F + (1 - \epsilon) G, \; \epsilon \sim U(0, 1),

where :math:`\phi(x) = v' s(W_2 s(W_1 x + b_1) + b_2)`, s the softplus. Its slope is written out,

.. math:: \nabla \phi(x) = W_1' \bigl(s_1' \circ W_2' (s_2' \circ v)\bigr),

and so is the derivative of everything in the critic's parameters: no second pass of automatic
differentiation. The first layer is linear, so its values at :math:`\hat x` are interpolated.

References
----------
Gulrajani et al. (2017), Improved training of Wasserstein GANs, NIPS. Duchi, Hazan and Singer
(2011), Adaptive subgradient methods, JMLR 12.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LEAST = -80.0
"""Below it softplus is zero, and a sigmoid in float32 would be."""


class Critic:
    """A critic, freshly drawn, with the state of its Adagrad.

    Parameters
    ----------
    n_points : int
        M.
    width : int
        Of both hidden layers.
    generator : torch.Generator
    """

    def __init__(self, n_points: int, width: int, generator: torch.Generator) -> None:
        def uniform(fan_in: int, *shape: int) -> Tensor:
            return (2 * torch.rand(shape, generator=generator) - 1) / fan_in**0.5

        self.parameters = [
            uniform(n_points, width, n_points),
            uniform(n_points, width),
            uniform(width, width, width),
            uniform(width, width),
            uniform(width, width),
        ]
        self.squares = [torch.full_like(p, 1e-10) for p in self.parameters]
        self._work: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        """phi (n,) at x (n, M), differentiable in x."""
        w1, b1, w2, b2, v = self.parameters
        h = functional.softplus(functional.linear(x, w1, b1))
        return functional.softplus(functional.linear(h, w2, b2)) @ v

    @torch.inference_mode()
    def step(
        self, f: Tensor, g: Tensor, epsilon: Tensor, first: int, penalty: float, rate: float
    ) -> None:
        """One step of Adagrad up the objective; arguments as for `gradients`."""
        gradients = self.gradients(f, g, epsilon, first, penalty)
        torch._foreach_addcmul_(self.squares, gradients, gradients)
        torch._foreach_addcdiv_(self.parameters, gradients, torch._foreach_sqrt(self.squares), rate)

    def gradients(
        self, f: Tensor, g: Tensor, epsilon: Tensor, first: int, penalty: float
    ) -> list[Tensor]:
        """Derivatives of the objective in the parameters.

        Parameters
        ----------
        f, g : Tensor
            (n, M) functions.
        epsilon : Tensor
            (m, 1), one for each pair between which the penalty is taken.
        first : int
            The first of these m pairs, at most n - m.
        penalty : float
            lambda.
        """
        w1, b1, w2, b2, v = self.parameters
        n, m = len(f), len(epsilon)
        pairs, both, ours, theirs = slice(first, first + m), slice(2 * n), slice(n), slice(n, 2 * n)
        between, every, last = slice(2 * n, 2 * n + m), slice(2 * n + m), slice(2 * n + m, None)
        x, a, h1, s1, h2, s2 = self._buffers(f, 2 * (n + m))
        torch.cat([f, g], out=x[both])
        torch.lerp(g[pairs], f[pairs], epsilon, out=x[between])
        torch.addmm(b1, x[both], w1.mT, out=a[both])
        torch.lerp(a[theirs][pairs], a[ours][pairs], epsilon, out=a[between])
        _softplus(a[every], h1[every], s1[every])
        _softplus(torch.addmm(b2, h1[every], w2.mT, out=a[every]), h2[every], s2[every])

        u2 = torch.mul(s2[between], v, out=s2[last])  # the slope between, from the output down
        u1 = torch.mul(u2 @ w2, s1[between], out=a[last])
        slope = u1 @ w1
        inverse = slope.square().sum(1, keepdim=True).rsqrt()
        d_slope = torch.mul(slope, (inverse - 1).mul_(2 * penalty / m), out=x[last])

        d_u1 = d_slope @ w1.mT
        d_p1 = torch.mul(d_u1, s1[between], out=h1[last])
        d_u2 = d_p1 @ w2.mT
        d_v = h2[ours].mean(0) - h2[theirs].mean(0) + (d_u2 * s2[between]).sum(0)
        s2[between].mul_(d_u2.mul_(v).mul_(1 - s2[between]))  # from here on d_a2
        s2[ours].mul_(v / n)
        s2[theirs].mul_(-v / n)
        torch.mm(s2[every], w2, out=a[every]).mul_(s1[every])  # and d_a1
        a[between].add_(d_u1.mul_(u1).mul_(1 - s1[between]))
        return [a.mT @ x, a[every].sum(0), s2.mT @ h1, s2[every].sum(0), d_v]

    def _buffers(self, f: Tensor, n_rows: int) -> list[Tensor]:
        """One (n_rows, M) and five (n_rows, width), the same at every step: fresh ones cost more
        than what is put in them.

        The last m rows hold the slope's part of the products that are a weight's derivative, beside
        the values' part above, so that each is one product.
        """
        shapes = [(n_rows, f.shape[1])] + 5 * [(n_rows, len(self.parameters[1]))]
        if not self._work or self._work[0].shape != shapes[0] or self._work[0].dtype != f.dtype:
            self._work = [f.new_empty(shape) for shape in shapes]
        return self._work


def _softplus(a: Tensor, h: Tensor, s: Tensor) -> None:
    """Softplus of a, as a - log s, into h, and its derivative into s; a is overwritten."""
    torch.sigmoid(a.clamp_(min=LEAST), out=s)
    torch.sub(a, torch.log(s, out=h), out=h)
