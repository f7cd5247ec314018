r"""Profile likelihood of one linear function of the parameters.

.. math:: \ell_p(v) = \max_\theta \ell(\theta) \quad\text{subject to}\quad c'\theta = v,

by Newton's method on the affine subspace, in standard-error units, each maximum started from the
one before. The likelihood-ratio interval holds the v with
:math:`2(\hat\ell - \ell_p(v)) \le \chi^2_{1, level}`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..fit.newton import standard_error_units
from ..fit.problem import Problem

TOL = 1e-6
"""Scaled gradient at which a constrained maximum has converged."""
MAX_ITER = 100
WIDEST = 60
"""Steps of a growing search, each half as long again, after which an end is taken for infinite."""
FARTHEST = 1e3
"""The same in standard errors."""


class Profile:
    """The profile likelihood of c'theta around a maximum; the problem's bounds are not imposed, but
    for what experts hold at 0.

    Parameters
    ----------
    problem : Problem
    row : int
        Which data set.
    params : Tensor
        (P,) where the likelihood is maximal.
    direction : Tensor
        (P,) c, orthogonal to the gate's invariances and 0 where experts hold a parameter.
    path : Tensor
        (P,) by how much the parameters move with c'theta to first order.
    """

    def __init__(self, problem: Problem, row: int, params: Tensor, direction: Tensor, path: Tensor):
        self.problem = problem
        self.rows = torch.tensor([row])
        self.free = ~problem.held
        self.direction = direction
        self.path = path / (direction @ path)
        self.start = params
        self.estimate = float(direction @ params)
        self.top = self.highest = float(problem.evaluate(params[None], self.rows, "value").value)

    def interval(self, level: float, error: float) -> tuple[float, float]:
        """Ends of the likelihood-ratio interval; ``error`` is the standard error of c'theta."""
        from scipy.special import ndtri

        threshold = float(ndtri((1 + level) / 2) ** 2)  # chi-square with 1 degree of freedom
        low, high = (self._end(sign * error, threshold) for sign in (-1.0, 1.0))
        return low, high

    def deviance(self, value: float) -> float:
        """2 (maximum - profile) at a value of c'theta."""
        params = self.start + self.path * (value - float(self.direction @ self.start))
        self.start, reached = self._maximise(params)
        self.highest = max(self.highest, reached)
        return 2 * (self.top - reached)

    def _end(self, step: float, threshold: float) -> float:
        from scipy.optimize import brentq

        start, inside, width = self.start, self.estimate, step
        try:
            for _ in range(WIDEST):
                outside = inside + width
                if self.deviance(outside) > threshold:
                    return float(
                        brentq(
                            lambda v: self.deviance(v) - threshold,
                            inside,
                            outside,
                            xtol=1e-6 * abs(step),
                        )
                    )
                inside, width = outside, 1.5 * width
                if abs(inside - self.estimate) > FARTHEST * abs(step):
                    break
            return math.copysign(math.inf, step)
        finally:
            self.start = start

    def _maximise(self, params: Tensor) -> tuple[Tensor, float]:
        at = self.problem.evaluate(params[None], self.rows, "hessian")
        for _ in range(MAX_ITER):
            assert at.gradient is not None
            assert at.information is not None
            assert at.hessian is not None
            units = standard_error_units(at.information)[0]
            normal = self.direction / units
            normal = normal / normal.norm()
            tangent = torch.diag(self.free.to(normal)) - torch.outer(normal, normal)
            gradient = tangent @ (at.gradient[0] / units)
            if float(gradient.abs().max()) <= TOL:
                break
            curvature = tangent @ (-at.hessian[0] / (units[:, None] * units)) @ tangent
            size, vectors = torch.linalg.eigh(curvature)
            step = tangent @ (vectors @ ((vectors.mT @ gradient) / size.abs().clamp(min=1e-6)))
            length = min(1.0, 0.5 * self.problem.n_observations**0.5 / float(step.norm()))
            while length > 1e-10:
                trial = params + length * step / units
                new = self.problem.evaluate(trial[None], self.rows, "hessian")
                if float(new.value) >= float(at.value) + 1e-4 * length * float(gradient @ step):
                    break
                length /= 2
            else:
                break  # rounding: no step gains any more
            params, at = trial, new
        return params, float(at.value)
