"""The draws of a run as it goes: at which steps they are taken, and what was seen there."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from .checkpoint import Checkpoint
from .cyclical import AnySampler
from .draws import Divergence, Moments
from .folder import DrawFolder
from .steps import Record


class Recorder:
    """Room for the draws of C chains, in memory or in a folder.

    The last block is recorded to its end, so that a longer run can go on from there.

    Parameters
    ----------
    sampler : Sampler
        Says at which steps there may be a draw.
    position : Tensor
        (C, P), of the draws' dtype.
    n_scales : int
        G log scales that are kept beside each position.
    n_draws, thin, burn_in : int
    n_block : int
        Steps of a block.
    folder : DrawFolder or None
    """

    def __init__(
        self,
        sampler: AnySampler,
        position: Tensor,
        n_scales: int,
        *,
        n_draws: int,
        thin: int,
        burn_in: int,
        n_block: int,
        folder: DrawFolder | None,
    ) -> None:
        self.thin, self.n_draws, self.folder = thin, n_draws, folder
        collected = (t for t in itertools.count(burn_in + 1) if sampler.collects(t))
        steps = itertools.islice(collected, thin - 1, None, thin)
        self.steps = list(itertools.islice(steps, n_draws))
        self.n_steps = self.steps[-1] + 1
        end = -(-self.n_steps // n_block) * n_block
        self.steps += itertools.takewhile(lambda t: t < end, steps)
        self.n_recorded = 0
        n_chains, n_parameters = position.shape
        in_memory = 0 if folder else len(self.steps)
        shape = (n_chains, in_memory, n_parameters + n_scales)
        self.draws = torch.full(shape, torch.nan, dtype=position.dtype)
        self.values = torch.full((n_chains, len(self.steps)), torch.nan, dtype=position.dtype)
        self.moments = Moments.zeros(n_chains, n_parameters)

    @property
    def n_taken(self) -> int:
        """How many of the draws asked for there are."""
        return min(self.n_recorded, self.n_draws)

    @property
    def coming(self) -> list[int]:
        """Steps at whose start draws are still to be taken."""
        return self.steps[self.n_recorded :]

    def add(
        self,
        seen: list[tuple[int, Record]],
        log_scale: Tensor | None,  # (C, G), the same at all of them
        divergences: list[Divergence],
    ) -> None:
        """Keep what was seen at the next of the steps, NaN from where a chain was stopped."""
        if not seen:
            return
        steps = torch.tensor([step for step, _ in seen])
        positions = torch.stack([record[0] for _, record in seen], 1).detach()  # (C, n, P)
        values = torch.stack([record[1].potential for _, record in seen], 1).detach()
        gradients = torch.stack([record[1].gradient for _, record in seen], 1).detach()
        kinetic = [record[2] for _, record in seen if record[2] is not None]
        going = torch.ones(values.shape, dtype=torch.bool)
        for divergence in divergences:
            going[divergence.chain] = steps < divergence.step
        whole = positions
        if log_scale is not None:
            held = log_scale[:, None].expand(-1, len(seen), -1)
            whole = torch.cat([positions, held], 2)
        new = slice(self.n_recorded, self.n_recorded + len(seen))
        draws = whole.cpu().masked_fill(~going[..., None], torch.nan)
        if self.folder is None:
            self.draws[:, new] = draws
        else:
            self.folder.add(draws)
        self.values[:, new] = values.cpu().masked_fill(~going, torch.nan)
        self.moments.add(
            going.to(positions.device),
            positions,
            gradients,
            torch.stack(kinetic, 1).detach() if kinetic else None,
        )
        self.n_recorded += len(seen)

    def restore(self, saved: Checkpoint) -> None:
        """Continue from the draws of a checkpoint."""
        self.n_recorded = min(saved.potential.shape[1], len(self.steps))
        if self.folder is None:
            self.draws[:, : self.n_recorded] = saved.draws[:, : self.n_recorded]
        else:
            self.folder.sizes = saved.chunks
        self.values[:, : self.n_recorded] = saved.potential[:, : self.n_recorded]
        self.moments = Moments.from_tensors(saved.moments)

    def taken(self) -> tuple[Tensor, Tensor, int]:
        """Draws (C, S, P + G), potentials (C, S), and k if memory holds every k-th alone."""
        n, k = self.n_taken, 1
        if self.folder is None:
            draws = self.draws[:, :n]
        else:
            n_chains, _, width = self.draws.shape
            k = self.folder.stride(n * n_chains * width * self.draws.element_size())
            draws = self.folder.every(k, n) if n else self.draws
        return draws, self.values[:, :n][:, k - 1 :: k], k
