"""`moebius claims` and `moebius verify`: what is claimed, and what was found of it."""

from __future__ import annotations

import math
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Out, Profile, ProfileOption
from .output import duration, listed, notes, print_json, print_table, say

if TYPE_CHECKING:
    from theory.claims import Check, Claim

    from ..claims import Record

LONGEST = 60.0
"""Seconds that a check may take where no claim is named."""


class RouteOption(StrEnum):
    """How a claim is checked."""

    algebra = "algebra"
    calculus = "calculus"
    quadrature = "quadrature"
    two_point = "two-point"
    simulation = "simulation"


def claims(out: Out = Path("results"), as_json: Json = False) -> None:
    """List the claims with their source, their standing and what was found of them.

    Reads OUT/claims, which `moebius verify` writes. JSON has the statements, numbers and versions
    too.
    """
    from ..claims import by_route, chosen, document
    from ..claims import records as records_of

    found = [(claim, records_of(claim, out)) for claim in chosen(None)]
    if as_json:
        print_json([document(*entry) for entry in found])
        return
    rows = [
        [
            claim.name,
            claim.standing,
            claim.source,
            "\n".join(f"{route}: {words}" for route, words in by_route(stored).items()),
        ]
        for claim, stored in found
    ]
    print_table(["claim", "standing", "source", "verdicts"], rows, lines=True)


def verify(
    claim: Annotated[
        str | None,
        typer.Argument(
            metavar="[CLAIM]", help="Name of one claim (moebius claims); all by default."
        ),
    ] = None,
    route: Annotated[
        RouteOption | None,
        typer.Option(metavar="ROUTE", help=f"Only these checks: {listed(RouteOption)}."),
    ] = None,
    profile: Profile = ProfileOption.quick,
    out: Out = Path("results"),
    long: Annotated[
        bool,
        typer.Option(
            "--long", help="Also checks of more than a minute, as for a claim that is named."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check claims: by calculation, and on simulated data where their study is stored.

    Writes findings to OUT/claims as they come. Ends with exit code 1 where a check broke off with
    an error; a claim that is found inconsistent is a finding, not an error.
    """
    from ..claims import chosen, document
    from ..claims import verify as run_checks

    console = notes(as_json)
    found: dict[str, tuple[Claim, list[Record]]] = {}
    with console.status("") as shown:

        def begin(one: Claim, check: Check) -> None:
            takes = duration(check.seconds / 60)
            shown.update(f"{one.name}, {check.route}: {check.question} (about {takes})")

        which = route and route.value
        longest = math.inf if long or claim is not None else LONGEST
        for one, record in run_checks(
            chosen(claim), out, profile=profile.value, route=which, longest=longest, begin=begin
        ):
            found.setdefault(one.name, (one, []))[1].append(record)
            finding = record.finding
            took = f" ({finding.seconds:.1f} s)" if record.at else ""
            say(f"{one.name}, {finding.route}: {finding.question}", "bold", console)
            say(f"  {finding.verdict}{took}: {finding.sentence}", console=console)
    if as_json:
        print_json([document(*entry) for entry in found.values()])
    everything = [record for _, stored in found.values() for record in stored]
    counts = Counter(record.finding.verdict for record in everything)
    words = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    say(words or "no check of that route", console=console)
    broken = sum(record.failed for record in everything)
    if broken:
        say(f"{broken} checks broke off with an error", "red", notes(True))
        raise typer.Exit(1)
