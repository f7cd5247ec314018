r"""Verdicts: does a simulated rate bear out the exponent a theorem predicts?

Two questions, never mixed. With s the slope of log error on log n:

* **sharp**: is the error of exact order n^-a, that is s = -a?
* **bound**: is the error at most of order (log n)^(1/2) n^-a, that is s <= -a up to the log?

Two ranges answer them, all sizes and the larger half of the sizes. The tolerance is .05, or .03 for
a <= 1/8, where neighbouring exponents lie closer.

============ ====================================== ==========================================
status       sharp                                  bound
============ ====================================== ==========================================
consistent   the 95% interval of all sizes covers   the upper 95% limit (one-sided) of all
             -a, its half-width is at most the      sizes is at most -a + tolerance, and no
             tolerance, and the interval of the     range is demonstrably slower
             larger half covers -a too
inconsistent both intervals exclude -a              both ranges are demonstrably slower
inconclusive anything else                          anything else
============ ====================================== ==========================================

A range is *demonstrably slower* if its lower 95% limit (one-sided) exceeds -a + g, where g is the
slope that a factor (log n)^(1/2) adds over that range (.07 from 100 to 100,000): the theorems hold
up to such a factor, and a truth that has it must not be refuted by it. So "inconsistent" needs two
overlapping 95% statements to fail together, at most 5% of the time if the prediction is true; and
a bound is called "consistent" at most 5% of the time if the slope is slower than -a by the
tolerance or more. An imprecise experiment has a high upper limit and a wide interval: inconclusive.

a = 0 says that the error levels off. Then **sharp** asks for a slope of 0, while **bound** asks
only that the error does not grow, without a log factor. A slope is a statement about the sizes
simulated: an error that levels off at larger sizes, or has yet to begin to fall, is not excluded.
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

from .rates import Interval, Rate, Slope

Status = Literal["consistent", "inconsistent", "inconclusive"]
Question = Literal["bound", "sharp"]
Statistic = Literal["median", "quantile90"]

_NOUN = {"median": "median", "quantile90": ".9 quantile"}


@dataclass(frozen=True)
class Verdict:
    """Answer to one question about one predicted exponent.

    Attributes
    ----------
    status : {"consistent", "inconsistent", "inconclusive"}
    question : {"bound", "sharp"}
    statistic : {"median", "quantile90"}
    predicted : float
        Exponent a of the predicted n^-a.
    slope, interval, half_width : float, (float, float), float
        Slope over all sizes, its two-sided 95% interval, half the width of that.
    last_half_interval : (float, float)
        Two-sided 95% interval of the slope over the larger half of the sizes.
    sentence : str
        The verdict and its reason in plain English, with 95% intervals in brackets; what ``str``
        gives.
    """

    status: Status
    question: Question
    statistic: Statistic
    predicted: float
    slope: float
    interval: Interval
    half_width: float
    last_half_interval: Interval
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def verdict(
    rate: Rate,
    predicted: float,
    *,
    question: Question = "bound",
    statistic: Statistic = "median",
) -> Verdict:
    r"""Judge a predicted exponent by a fitted rate.

    The module's docstring states the rules.

    Parameters
    ----------
    rate : Rate
        From :func:`theory.rates.fit_rate`.
    predicted : float, at least 0
        Exponent a of the predicted rate n^-a; 0 predicts that the error levels off.
    question : {"bound", "sharp"}
        Whether n^-a bounds the error up to a log factor, or is its exact order.
    statistic : {"median", "quantile90"}
        The quantile of the error that is judged.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If a parameter is not as described.

    Examples
    --------
    An error of order n^-1/2 obeys the bound n^-1/4, and refutes n^-1/4 as its exact order.

    >>> import numpy as np
    >>> from theory.rates import fit_rate
    >>> rng = np.random.default_rng(0)
    >>> n = np.repeat(np.geomspace(100, 100_000, 13), 40)
    >>> rate = fit_rate(n, abs(rng.standard_normal(n.size)) / np.sqrt(n), random_state=1)
    >>> verdict(rate, 1 / 4, question="bound").status
    'consistent'
    >>> verdict(rate, 1 / 4, question="sharp").status
    'inconsistent'
    """
    if not isinstance(rate, Rate):
        raise ValueError(f"The 'rate' parameter must be a Rate made by fit_rate; got {rate!r}.")
    if (
        not isinstance(predicted, Real)
        or isinstance(predicted, bool)
        or not (0 <= predicted < math.inf)
    ):
        raise ValueError(
            f"The 'predicted' parameter must be a finite number of at least 0; got {predicted!r}."
        )
    _check_choice("question", question, get_args(Question))
    _check_choice("statistic", statistic, get_args(Statistic))

    a = float(predicted)
    curve = getattr(rate, statistic)
    full, last = curve.stability[0], curve.last_half
    tolerance = 0.03 if a <= 1 / 8 else 0.05
    status, reason = (_sharp if question == "sharp" else _bound)(full, last, a, tolerance)

    order = f"{'exact' if question == 'sharp' else 'at most'} order n^-{a:.4g}"
    if a == 0:
        order = "constant order" if question == "sharp" else "bounded order"
    link = "about" if status == "inconclusive" else "with"
    failed = f" ({rate.n_failed} failed cells are left out)" if rate.n_failed else ""
    sentence = (
        f"{status.capitalize()} {link} an error of {order}: {reason}. The slope of the "
        f"{_NOUN[statistic]} is {_show(full)} over all {full.n_sizes} sizes and {_show(last)} "
        f"over the largest {last.n_sizes}{failed}."
    )
    return Verdict(
        status,
        question,
        statistic,
        a,
        full.slope,
        full.interval,
        full.half_width,
        last.interval,
        sentence,
    )


def _sharp(full: Slope, last: Slope, a: float, tolerance: float) -> tuple[Status, str]:
    target = f"{0 - a:.4g}"
    covers_full, covers_last = (part.interval[0] <= -a <= part.interval[1] for part in (full, last))
    if not covers_full and not covers_last:
        return "inconsistent", f"both intervals exclude {target}"
    if not covers_full:
        return "inconclusive", f"the interval of all sizes excludes {target}, the larger half's not"
    if not covers_last:
        return "inconclusive", f"the interval of the larger half excludes {target}, the full not"
    width = f"the half-width {full.half_width:.3f}"
    if full.half_width > tolerance:
        return "inconclusive", f"both intervals hold {target}, but {width} exceeds {tolerance}"
    return "consistent", f"both intervals hold {target}, and {width} is within {tolerance}"


def _bound(full: Slope, last: Slope, a: float, tolerance: float) -> tuple[Status, str]:
    target = f"{0 - a:.4g}"
    allowed = f"{target} and a log factor allow" if a else f"{target} allows"
    slower_full, slower_last = (
        part.one_sided[0] > -a + (part.log_factor if a else 0) for part in (full, last)
    )
    if slower_full and slower_last:
        return "inconsistent", f"both ranges are slower than {allowed}"
    if slower_full:
        return "inconclusive", f"all sizes together are slower than {allowed}, the larger half not"
    if slower_last:
        return "inconclusive", f"the larger half of the sizes is slower than {allowed}"
    limit = f"the upper 95% limit {full.one_sided[1]:.3f} of the slope"
    if full.one_sided[1] > -a + tolerance:
        return "inconclusive", f"{limit} exceeds {target} by more than {tolerance}"
    return "consistent", f"{limit} is at most {target} plus the tolerance {tolerance}"


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        listed = ", ".join(map(repr, sorted(choices)))
        raise ValueError(f"The '{name}' parameter must be one of {{{listed}}}; got {value!r}.")


def _show(part: Slope) -> str:
    return f"{part.slope:.3f} [{part.interval[0]:.3f}, {part.interval[1]:.3f}]"
