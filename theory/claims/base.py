"""What a claim is: a statement with its source, and the checks that could refute it.

A claim is what a theorem, or this project, states; a *check* asks one question about it by one
*route*:

========== ========================================================================
algebra    exact arithmetic: polynomial systems and their certificates
calculus   derivatives and linear relations between them, symbolic or in 120 digits
quadrature densities of given models compared by integration, nothing simulated
two-point  pairs of models that n observations cannot tell apart
simulation errors of fits to simulated data
========== ========================================================================

A check that calculates needs nothing. One that speaks of simulated data names the study it needs
and is handed that study's table: claims never read a store.

Every check tries something false beside what it asks, a *control*. Where a control is not rejected
the check could not have failed, and the finding is "inconclusive" whatever else came out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..verdict import Question

if TYPE_CHECKING:
    import pandas as pd

Route = Literal["algebra", "calculus", "quadrature", "two-point", "simulation"]
ROUTES: tuple[Route, ...] = get_args(Route)

Answer = Literal["consistent", "inconsistent", "inconclusive"]
Standing = Literal["published", "derived", "hypothesis"]

BOTH: tuple[tuple[str, Question], ...] = (
    ("does the bound hold", "bound"),
    ("is it sharp", "sharp"),
)
"""The two questions that are never mixed, in words."""

REMEMBERED = "as remembered; check against the theorem's text"
"""Said of a statement whose source was not at hand in full."""


@dataclass(frozen=True)
class Data:
    """What is stored of a study, as a check of the simulation route takes it.

    Attributes
    ----------
    table : DataFrame
        One row a cell, all arms.
    prepared : mapping
        What the study's kind prepared.
    seed : int
        The study's.
    """

    table: pd.DataFrame
    prepared: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes
    ----------
    verdict : {"consistent", "inconsistent", "inconclusive"}
        About the claim.
    sentence : str
        Why.
    numbers : dict
        Behind the verdict, of JSON's types; what figures draw.
    controls : dict of str to bool
        What was tried though it is false, and whether it was rejected; at least one unless the
        verdict is "inconclusive".
    """

    verdict: Answer
    sentence: str
    numbers: Mapping[str, Any]
    controls: Mapping[str, bool]


@dataclass(frozen=True)
class Finding:
    """The answer of one check.

    Attributes
    ----------
    route : str
        One of `ROUTES`.
    question : str
        What was asked, in a few words; a claim asks it once by a route.
    verdict : {"consistent", "inconsistent", "inconclusive", "not run"}
    sentence : str
        Why, or what is missing.
    numbers : dict
        Of JSON's types; "controls" among them.
    seconds : float
        What it took.
    """

    route: Route
    question: str
    verdict: Answer | Literal["not run"]
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Check:
    """One question about a claim, by one route.

    Attributes
    ----------
    route : str
        One of `ROUTES`.
    question : str
        In a few words.
    ask : callable
        Without arguments, or with a `Data` where a study is needed; gives an `Outcome`.
    study : str or None
        Name of the study whose table is needed.
    seconds : float
        What it takes on an idle core, roughly.
    """

    route: Route
    question: str
    ask: Callable[..., Outcome]
    study: str | None = None
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.route not in ROUTES:
            listed = ", ".join(map(repr, ROUTES))
            raise ValueError(
                f"The 'route' parameter must be one of {{{listed}}}; got {self.route!r}."
            )
        if (self.route == "simulation") != (self.study is not None):
            raise ValueError(
                "The 'study' parameter must be given for the route 'simulation' and for no other; "
                f"got {self.study!r} with route {self.route!r}."
            )

    def run(self, data: Data | None = None) -> Finding:
        """Ask.

        Parameters
        ----------
        data : Data or None
            Of the study needed, or None where none is.

        Raises
        ------
        ValueError
            If data are missing, or given to a check that calculates.
        """
        if (data is None) != (self.study is None):
            needed = "must be None" if self.study is None else f"must be of study {self.study!r}"
            raise ValueError(f"The 'data' parameter {needed} for {self.question!r}.")
        start = time.perf_counter()
        found = self.ask() if data is None else self.ask(data)
        seconds = time.perf_counter() - start
        verdict, sentence = found.verdict, found.sentence
        if not found.controls and verdict != "inconclusive":
            raise ValueError(
                f"The check {self.question!r} must try at least one control; got none."
            )
        kept = [name for name, rejected in found.controls.items() if not rejected]
        if kept:
            verdict = "inconclusive"
            sentence += f" But the check does not reject what is false: {'; '.join(kept)}."
        numbers = {**found.numbers, "controls": dict(found.controls)}
        return Finding(self.route, self.question, verdict, sentence, numbers, seconds)

    def not_run(self, reason: str) -> Finding:
        """The finding of a check that lacks something."""
        return Finding(self.route, self.question, "not run", reason)


@dataclass(frozen=True)
class Claim:
    """A statement that can be checked.

    Attributes
    ----------
    name : str
        As `get_claim` takes it.
    statement : str
        In words and numbers.
    source : str
        Paper and theorem, or "derived here".
    assumptions : str
        Under which it is stated.
    standing : {"published", "derived", "hypothesis"}
    checks : tuple of Check
        No two of the same route and question.
    """

    name: str
    statement: str
    source: str
    assumptions: str
    standing: Standing
    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        asked = [(check.route, check.question) for check in self.checks]
        if not asked or len(set(asked)) < len(asked):
            raise ValueError(
                f"The 'checks' of claim {self.name!r} must be at least one, each with a route and "
                f"question of its own; got {asked}."
            )


def all_of(answers: list[Answer]) -> Answer:
    """One answer for several: inconsistent if any is, consistent if all are.

    Examples
    --------
    >>> all_of(["consistent", "inconclusive"]), all_of(["inconclusive", "inconsistent"])
    ('inconclusive', 'inconsistent')
    """
    if "inconsistent" in answers:
        return "inconsistent"
    return "consistent" if answers and set(answers) == {"consistent"} else "inconclusive"


def whether(holds: bool) -> Answer:
    """The answer of a calculation that decides."""
    return "consistent" if holds else "inconsistent"
