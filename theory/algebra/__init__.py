"""The polynomial systems of over-fitted cells, and rbar with its certificate.

`rbar` says from which order on m atoms cannot hide in a cell; `check` examines its certificate and
shares no code with it; `two_atoms` is an independent proof for m = 2, `sign_changes` a count of
what the general proof bounds, `equivalence` shows that both published systems give one rbar.
"""

from .certificate import Checked, check
from .equivalence import Equivalence, compare, equivalence
from .gauss_hermite import gauss_hermite_certificate
from .rbar import MAX_EXACT, Rbar, rbar
from .sign_changes import count_sign_changes, imitation
from .systems import PolynomialSystem, gmm_system, softmax_system
from .two_atoms import Elimination, eliminate_two_atoms

__all__ = [
    "MAX_EXACT",
    "Checked",
    "Elimination",
    "Equivalence",
    "PolynomialSystem",
    "Rbar",
    "check",
    "compare",
    "count_sign_changes",
    "eliminate_two_atoms",
    "equivalence",
    "gauss_hermite_certificate",
    "gmm_system",
    "imitation",
    "rbar",
    "softmax_system",
]
