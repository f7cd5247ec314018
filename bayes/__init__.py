"""Functional priors, SG-MCMC samplers, Bayesian neural networks and forecasters.

`bayes.networks` evaluates many weight draws of a network at once, `bayes.priors` gives it the prior
of a Gaussian process, `bayes.samplers` draws from posteriors, `bayes.forecast` predicts space-time
records with holes; its `CGLUBNF` is importable from here.
"""

from typing import Any

__all__ = ["CGLUBNF"]


def __getattr__(name: str) -> Any:
    if name == "CGLUBNF":
        from .forecast import CGLUBNF

        return CGLUBNF
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
