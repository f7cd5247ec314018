"""Where findings differ from what is published, derived or supposed; drawn from claims' records.

A finding goes where its claim's standing and its verdict say. What is inconclusive is told apart:
it speaks neither for a claim nor against it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from experiments.claims import Record
from theory.claims import Claim

from .report_claims import Findings
from .report_page import Section


@dataclass(frozen=True)
class Group:
    """Findings that say the same kind of thing.

    Attributes
    ----------
    name, title, words : str
        What links to it, its heading, and what it means.
    standings : tuple of str
        Of the claims.
    verdict : str
    findings : tuple of (Claim, Record)
    """

    name: str
    title: str
    words: str
    standings: tuple[str, ...]
    verdict: str
    findings: tuple[tuple[Claim, Record], ...] = ()


GROUPS = (
    Group(
        "against-published",
        "Against what is published",
        "Inconsistent with the words of a published claim. Where the question is whether a bound "
        "is sharp, the bound itself may hold: then a faster rate is possible than is published.",
        ("published",),
        "inconsistent",
    ),
    Group(
        "against-ours",
        "Against what was derived or supposed here",
        "Inconsistent with a statement of this project: it is wrong, its assumptions fail, or the "
        "sizes behind the finding are too small for its asymptotics.",
        ("derived", "hypothesis"),
        "inconsistent",
    ),
    Group(
        "supposed",
        "Supposed, and not contradicted",
        "Hypotheses with which all that was tried is consistent. None is thereby proved.",
        ("hypothesis",),
        "consistent",
    ),
    Group(
        "derived",
        "Derived here, and not contradicted",
        "What this project adds to the papers, with what was found of it.",
        ("derived",),
        "consistent",
    ),
    Group(
        "inconclusive",
        "Inconclusive",
        "These experiments cannot tell: they speak neither for the claim nor against it. More "
        "replicates or sizes may.",
        ("published", "derived", "hypothesis"),
        "inconclusive",
    ),
)


def otherwise_section(found: Findings) -> Section:
    """Findings by what they say of their claim."""
    groups = [replace(group, findings=_of(group, found)) for group in GROUPS]
    shown = [group for group in groups if group.findings]
    entries = [(group.name, f"{group.title} ({len(group.findings)})") for group in shown]
    return Section("otherwise", "Where we found otherwise", {"groups": shown}, entries=entries)


def _of(group: Group, found: Findings) -> tuple[tuple[Claim, Record], ...]:
    return tuple(
        (claim, record)
        for claim, stored in found
        for record in stored
        if claim.standing in group.standings and record.finding.verdict == group.verdict
    )
