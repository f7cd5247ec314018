"""What a run returns: draws, what was seen with them, and how the chains ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..storage import members
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
        """Draws from a `document` and the tensors beside it."""
        return cls(
            draws=tensors["draws"],
            potential=tensors["potential"],
            moments=Moments.from_tensors(members("moments", tensors)),
            sampler=sampler,
            temperature=document["temperature"],
            divergences=tuple(Divergence(**d) for d in document["divergences"]),
            faults=tuple(document["faults"]),
            names={k: slice(*v) for k, v in document["names"].items()},
            **{name: document[name] for name in _NUMBERS},
        )

    def _some_kept(self) -> list[int]:
        if not self.kept:
            raise ValueError(f"All {len(self.draws)} chains were stopped. {self.divergences[0]}")
        return self.kept
