r"""The updates of stochastic-gradient Markov chain Monte Carlo, equation by equation.

The target is :math:`\pi(q) \propto \exp(-U(q)/T)` with potential U and temperature T. C chains of
P parameters advance together: position q, momentum p, gradient :math:`g \approx \nabla U(q)` and
standard normal noise :math:`\xi` are (C, P). Every update takes the gradient at the position it
starts from, reads each state tensor once and writes it once. Step sizes and the like are numbers,
or tensors that broadcast against (C, P): one value a chain is (C, 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Number = float | Tensor


def sgld(
    position: Tensor,  # (C, P)
    gradient: Tensor,  # (C, P)
    noise: Tensor,  # (C, P)
    step_size: Number,
    temperature: Number,
) -> Tensor:
    r"""Langevin dynamics, Euler-Maruyama: :math:`q' = q - h g + \sqrt{2hT}\,\xi`."""
    return position - step_size * gradient + _sqrt(2 * step_size * temperature) * noise


def psgld(
    position: Tensor,  # (C, P)
    second_moment: Tensor,  # (C, P)
    gradient: Tensor,  # (C, P)
    noise: Tensor,  # (C, P)
    step_size: Number,
    damping: float,
    temperature: Number,
) -> Tensor:
    r"""Langevin dynamics under the diagonal preconditioner G = 1/(damping + sqrt(V)).

    :math:`q' = q - h G g + \sqrt{2hTG}\,\xi`. The drift :math:`hT\,\nabla\cdot G` is left out:
    it is zero for a frozen V.
    """
    step = step_size / (damping + torch.sqrt(second_moment))
    return position - step * gradient + torch.sqrt(2 * temperature * step) * noise


def sghmc(
    position: Tensor,  # (C, P)
    momentum: Tensor,  # (C, P)
    gradient: Tensor,  # (C, P)
    noise: Tensor,  # (C, P)
    step_size: Number,
    momentum_decay: Number,
    mass: Number,
    noise_variance: Number,
    temperature: Number,
) -> tuple[Tensor, Tensor]:
    r"""Hamiltonian dynamics with friction.

    .. math::
        p' = (1 - a) p - \varepsilon g + \sqrt{2 a m T - \varepsilon^2 \hat v}\,\xi, \qquad
        q' = q + \varepsilon p' / m,

    with decay a, diagonal mass m and an estimate :math:`\hat v` of the variance of g. Where the
    injected variance would be negative it is 0; `sufficient_decay` prevents that.
    """
    variance = 2 * momentum_decay * mass * temperature - step_size**2 * noise_variance
    new = (
        (1 - momentum_decay) * momentum - step_size * gradient + _sqrt(_positive(variance)) * noise
    )
    return position + step_size * new / mass, new


def sufficient_decay(
    momentum_decay: float,
    step_size: Number,
    mass: Tensor,  # (C, P)
    noise_variance: Tensor,  # (C, P)
    temperature: Number,
) -> Tensor:
    r"""The decay that keeps the injected variance of `sghmc` from turning negative; (C, P).

    :math:`a' = \min(1, \max(a, \varepsilon^2 \hat v / (2 m T)))`: where the gradient's own noise is
    larger than friction a can dissipate, as much friction as balances it. At T = 0 there is no
    noise to balance and a is returned.
    """
    heat = step_size**2 * noise_variance / mass
    if isinstance(temperature, Tensor):
        needed = torch.where(temperature > 0, heat / (2 * temperature), 0.0)
    else:
        needed = heat / (2 * temperature) if temperature > 0 else torch.zeros_like(heat)
    return needed.clamp(min=momentum_decay, max=1.0)


def scale_adaptation(
    window: Tensor,  # (C, P)
    mean: Tensor,  # (C, P)
    second_moment: Tensor,  # (C, P)
    gradient: Tensor,  # (C, P)
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Averages of g and g^2 over a window that is long where g is mostly noise.

    .. math::
        \bar g' = \bar g + \frac{g - \bar g}{\tau + 1}, \quad
        V' = V + \frac{g^2 - V}{\tau + 1}, \quad
        \tau' = 1 + \tau\,(1 - \bar g^2 / V).
    """
    rate = 1 / (window + 1)
    new_window = 1 + window * (1 - mean.square() / second_moment)
    return (
        new_window,
        mean + rate * (gradient - mean),
        second_moment + rate * (gradient.square() - second_moment),
    )


def baoab(
    position: Tensor,  # (C, P)
    momentum: Tensor,  # (C, P)
    gradient: Tensor,  # (C, P)
    noise: Tensor,  # (C, P)
    step_size: Number,
    friction: float,
    temperature: Number,
) -> tuple[Tensor, Tensor]:
    r"""Underdamped Langevin dynamics, the splitting B-A-O-A-B.

    The two half kicks B that meet between steps are merged into the one kick that opens this
    update, so ``momentum`` is the one *before* the closing half kick:

    .. math::
        p_1 = p - \varepsilon g, \quad q_1 = q + \tfrac\varepsilon2 p_1, \quad
        p' = c\,p_1 + \sqrt{T(1 - c^2)}\,\xi, \quad q' = q_1 + \tfrac\varepsilon2 p',
        \qquad c = e^{-\gamma\varepsilon}.

    The momentum that belongs to q is :math:`p - \tfrac\varepsilon2 g`.
    """
    decay = _exp(-friction * step_size)
    kicked = momentum - step_size * gradient
    new = decay * kicked + _sqrt(temperature * (1 - decay**2)) * noise
    return position + 0.5 * step_size * (kicked + new), new


def sgnht(
    position: Tensor,  # (C, P)
    momentum: Tensor,  # (C, P)
    thermostat: Tensor,  # (C, 1)
    gradient: Tensor,  # (C, P)
    noise: Tensor,  # (C, P)
    step_size: Number,
    diffusion: float,
    temperature: Number,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The Nose-Hoover thermostat, the splitting B-A-D-O-D-A-B, half kicks merged as in `baoab`.

    .. math::
        dq = p\,dt, \quad dp = -g\,dt - \zeta p\,dt + \sqrt{2AT}\,dW, \quad
        d\zeta = (|p|^2/P - T)\,dt.

    B kicks, A moves by half a step, D turns the thermostat by half a step, and O solves friction
    and noise exactly: :math:`p \leftarrow e^{-\zeta\varepsilon} p +
    \sqrt{AT(1 - e^{-2\zeta\varepsilon})/\zeta}\,\xi`.
    """
    half = 0.5 * step_size
    kicked = momentum - step_size * gradient
    turned = thermostat + half * (kicked.square().mean(-1, keepdim=True) - temperature)
    rate = 2 * step_size * turned
    tiny = rate.abs() < 1e-4  # (1 - e^-x)/x = 1 - x/2 + O(x^2): 2e-9 at most is dropped
    ratio = torch.where(tiny, 1 - rate / 2, -torch.expm1(-rate) / torch.where(tiny, 1.0, rate))
    scale = torch.sqrt(2 * diffusion * temperature * step_size * ratio)
    new = torch.exp(-rate / 2) * kicked + scale * noise
    thermostat = turned + half * (new.square().mean(-1, keepdim=True) - temperature)
    return position + half * (kicked + new), new, thermostat


def mclmc(
    position: Tensor,  # (C, P)
    direction: Tensor,  # (C, P), unit vectors
    gradient: Tensor,  # (C, P)
    noise: Tensor,  # (C, P)
    step_size: Number,
    decoherence_length: Number,
    temperature: Number,
) -> tuple[Tensor, Tensor]:
    r"""Microcanonical Langevin dynamics: B/2, O, B/2, A with the direction u on the unit sphere.

    B solves :math:`\dot u = -(1 - uu')\nabla U/(T(P-1))` exactly for half a step. With
    :math:`e = -g/|g|` and :math:`\delta = \varepsilon|g|/(2T(P-1))`,

    .. math::
        u \leftarrow \frac{u + e\,(\sinh\delta + (e'u)(\cosh\delta - 1))}
                          {\cosh\delta + (e'u)\sinh\delta};

    O turns: :math:`u \leftarrow (u + \nu\xi)/|u + \nu\xi|` with
    :math:`\nu^2 = (e^{2\varepsilon/L} - 1)/P`; A moves: :math:`q' = q + \varepsilon u`.
    """
    n = position.shape[-1]
    norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    uphill = gradient / norm.clamp(min=torch.finfo(norm.dtype).tiny)
    delta = 0.5 * step_size * norm / (temperature * (n - 1))
    turn = _sqrt(_expm1(2 * step_size / decoherence_length) / n)
    u = _rotated(direction, uphill, delta) + turn * noise
    u = u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)
    u = _rotated(u, uphill, delta)
    return position + step_size * u, u


def _rotated(u: Tensor, uphill: Tensor, delta: Tensor) -> Tensor:
    """u after B; numerator and denominator are multiplied by 2 e^-delta, which cannot overflow."""
    cosine = -(u * uphill).sum(-1, keepdim=True)
    z = torch.exp(-delta)
    sinh, cosh = 1 - z * z, 1 + z * z
    turned = 2 * z * u - uphill * (sinh + cosine * (cosh - 2 * z))
    return turned / torch.linalg.vector_norm(turned, dim=-1, keepdim=True)


def _sqrt(x: Number) -> Number:
    return torch.sqrt(x) if isinstance(x, Tensor) else math.sqrt(x)


def _exp(x: Number) -> Number:
    return torch.exp(x) if isinstance(x, Tensor) else math.exp(x)


def _expm1(x: Number) -> Number:
    return torch.expm1(x) if isinstance(x, Tensor) else math.expm1(x)


def _positive(x: Number) -> Number:
    return x.clamp(min=0) if isinstance(x, Tensor) else max(x, 0.0)
