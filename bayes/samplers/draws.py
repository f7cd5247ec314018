"""What a run returns: draws, what was seen with them, and how the chains ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kernels.checks import check_int, check_real

from ..headers import from_document
from ..storage import check_tensors, like, members
from .cyclical import AnySampler

if TYPE_CHECKING:
    from .diagnostics import TemperatureReport


_NUMBERS = ("seed", "burn_in", "thin", "n_steps", "seconds", "interrupted")


@dataclass(frozen=True)
class Divergence:
    """A chain that was stopped."""

    chain: int
    step: int
    reason: str

    def __str__(self) -> str:
        return f"Chain {self.chain} was stopped at step {self.step}: {self.reason}."


@dataclass
class Moments:
    """Sums over a chain's draws from which its temperatures follow; (C, P), and counts (C, 1)."""

    count: Tensor
    position: Tensor
    gradient: Tensor
    product: Tensor
    kinetic: Tensor
    has_kinetic: bool = False

    @classmethod
    def zeros(cls, n_chains: int, n_parameters: int) -> Moments:
        def zeros(n: int) -> Tensor:
            return torch.zeros(n_chains, n, dtype=torch.float64)

        n = n_parameters
        return cls(zeros(1), zeros(n), zeros(n), zeros(n), zeros(n))

    def add(
        self,
        going: Tensor,  # (C, n)
        position: Tensor,  # (C, n, P)
        gradient: Tensor,  # (C, n, P)
        kinetic: Tensor | None,  # (C, n, P)
    ) -> None:
        def total(values: Tensor) -> Tensor:
            return values.double().masked_fill(~going[..., None], 0).sum(1).cpu()

        self.count += going.sum(1, keepdim=True).cpu()
        self.position += total(position)
        self.gradient += total(gradient)
        self.product += total(position.double() * gradient.double())
        if kinetic is not None:
            self.kinetic += total(kinetic)
            self.has_kinetic = True

    def as_tensors(self) -> dict[str, Tensor]:
        return {
            "count": self.count,
            "position": self.position,
            "gradient": self.gradient,
            "product": self.product,
            "kinetic": self.kinetic,
            "has_kinetic": torch.tensor(self.has_kinetic),
        }

    @classmethod
    def from_tensors(cls, saved: Mapping[str, Tensor]) -> Moments:
        tensors = {name: value.clone() for name, value in saved.items()}
        return cls(**{**tensors, "has_kinetic": bool(tensors["has_kinetic"])})  # type: ignore[arg-type]


@dataclass(frozen=True)
class ChainDraws:
    """Draws of C chains.

    Attributes
    ----------
    draws : Tensor
        (C, S, P); NaN from where a chain was stopped.
    potential : Tensor
        (C, S), U at the draws (of the step's batch, if there were batches).
    divergences : tuple of Divergence
        The chains that were stopped. Summaries leave them out.
    faults : tuple of str
        What the sampler says of its hyperparameters at the end of the run.
    interrupted : bool
        Whether Ctrl-C ended the run; the draws up to then are there.
    temperature : float or None
        None if it followed a schedule.
    seed, burn_in, thin, n_steps, seconds, sampler, names
        As the run was.
    """

    draws: Tensor
    potential: Tensor
    moments: Moments = field(repr=False)
    sampler: AnySampler
    temperature: float | None
    divergences: tuple[Divergence, ...]
    faults: tuple[str, ...]
    seed: int
    burn_in: int
    thin: int
    n_steps: int
    seconds: float
    interrupted: bool
    names: Mapping[str, slice]

    @property
    def kept(self) -> list[int]:
        """The chains that were not stopped."""
        stopped = {d.chain for d in self.divergences}
        return [c for c in range(len(self.draws)) if c not in stopped]

    def mean(self) -> Tensor:
        """Mean of all draws of the chains kept, (P,)."""
        return self.draws[self._some_kept()].double().mean((0, 1))

    def covariance(self) -> Tensor:
        """Covariance of all draws of the chains kept, (P, P)."""
        return torch.cov(self.draws[self._some_kept()].double().flatten(0, 1).T)

    def rhat(self) -> Tensor:
        """Rank-normalised split R-hat of each parameter, (P,)."""
        from .diagnostics import rhat

        return rhat(self.draws[self._some_kept()])

    def ess(self) -> Tensor:
        """Bulk effective sample size of each parameter, over all chains kept, (P,)."""
        from .diagnostics import ess

        return ess(self.draws[self._some_kept()])

    def mean_error(self) -> Tensor:
        """Monte-Carlo standard error of `mean`, (P,)."""
        from .diagnostics import ess

        draws = self.draws[self._some_kept()]
        return draws.double().std((0, 1)) / torch.sqrt(ess(draws, method="mean"))

    def temperatures(self) -> TemperatureReport:
        """Kinetic and configurational temperature of each block of parameters."""
        from .diagnostics import temperatures

        return temperatures(self)

    def diagnose(self) -> list[str]:
        """What is wrong with the run, in sentences; empty if nothing was found."""
        from .diagnostics import diagnose

        return diagnose(self)

    def to_datatree(self) -> Any:
        """An `xarray.DataTree` for ArviZ, with the chains that were kept.

        Groups ``posterior`` (one variable a named block, or ``w``) and ``sample_stats``
        (``potential``, ``lp`` its negative).
        """
        import arviz_base

        kept = self._some_kept()
        blocks = self.names or {"w": slice(None)}
        values = self.potential[kept].numpy()
        tree = arviz_base.from_dict(
            {
                "posterior": {n: self.draws[kept][..., part].numpy() for n, part in blocks.items()},
                "sample_stats": {"potential": values, "lp": -values},
            }
        )
        tree.attrs.update(
            sampler=repr(self.sampler),
            seed=self.seed,
            burn_in=self.burn_in,
            thin=self.thin,
            stopped_chains=[d.chain for d in self.divergences],
        )
        return tree

    def document(self) -> dict[str, Any]:
        """What is not a tensor, in JSON's types; `from_document` is its inverse."""
        return {
            "temperature": self.temperature,
            "divergences": [asdict(d) for d in self.divergences],
            "faults": list(self.faults),
            "names": {k: [v.start, v.stop] for k, v in self.names.items()},
            **{name: getattr(self, name) for name in _NUMBERS},
        }

    @classmethod
    def from_document(
        cls, document: Mapping[str, Any], tensors: Mapping[str, Tensor], sampler: AnySampler
    ) -> ChainDraws:
        """Draws from a `document` and the tensors beside it.

        Raises
        ------
        KeyError, TypeError, ValueError
            If they are not those of a run.
        """
        draws, moments = tensors["draws"], members("moments", tensors)
        n_chains, n_draws, width = draws.shape
        n_parameters = moments["position"].shape[1]
        check_int("n_parameters", n_parameters, 1, width)
        check_tensors(
            {"draws": draws, "potential": tensors["potential"], **moments},
            {
                "draws": (draws.dtype, (n_chains, n_draws, width)),
                "potential": (draws.dtype, (n_chains, n_draws)),
                **like(Moments.zeros(n_chains, n_parameters).as_tensors()),
            },
            unbounded=("draws", "potential", *moments),  # NaN from where a chain was stopped
        )
        temperature = document["temperature"]
        if temperature is not None:
            check_real("temperature", temperature, low=0)
        run = cls(
            draws=draws,
            potential=tensors["potential"],
            moments=Moments.from_tensors(moments),
            sampler=sampler,
            temperature=temperature,
            divergences=divergences_of(document, n_chains),
            faults=tuple(str(fault) for fault in document["faults"]),
            seed=check_int("seed", document["seed"], 0),
            burn_in=check_int("burn_in", document["burn_in"], 0),
            thin=check_int("thin", document["thin"], 1),
            n_steps=check_int("n_steps", document["n_steps"], 0),
            seconds=check_real("seconds", document["seconds"], low=0),
            interrupted=bool(document["interrupted"]),
            names={
                name: slice(*(check_int("names", end, 0, width) for end in ends))
                for name, ends in document["names"].items()
            },
        )
        if not bool(torch.isfinite(draws[run.kept]).all()):
            raise ValueError("The draws of chains that were not stopped must be finite.")
        return run

    def _some_kept(self) -> list[int]:
        if not self.kept:
            raise ValueError(f"All {len(self.draws)} chains were stopped. {self.divergences[0]}")
        return self.kept


def divergences_of(document: Mapping[str, Any], n_chains: int) -> tuple[Divergence, ...]:
    """The chains that were stopped, by a document that has them."""
    stopped = tuple(from_document(Divergence, d) for d in document["divergences"])
    for divergence in stopped:
        check_int("chain", divergence.chain, 0, n_chains - 1)
    return stopped
