"""From trained members to posterior draws: each way leaves an ensemble, which predictions mix.

``"map"`` and ``"mle"`` stop at the trained members; the others draw around each of them.
"""

from __future__ import annotations

from collections.abc import Callable

from ..architecture import Network
from .laplace import last_layer_laplace
from .sgmcmc import sample_weights
from .vi import variational

DRAWS: dict[str, Callable[..., Network] | None] = {
    "map": None,
    "mle": None,
    "vi": variational,
    "laplace": last_layer_laplace,
    "sgmcmc": sample_weights,
}
