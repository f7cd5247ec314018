"""The report: one self-contained HTML page of what is stored. It simulates and fits nothing.

Whoever adds a section adds a template and an entry of `SECTIONS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from experiments.store import write_whole

from .report_claims import claims_section
from .report_page import Section, render_page
from .report_studies import studies_section

SECTIONS: tuple[Callable[[Path], Section], ...] = (claims_section, studies_section)
"""What the page consists of."""


def write_report(out: str | os.PathLike[str]) -> list[Path]:
    """Write ``OUT/report.html``, and its figures with their tables beside the findings.

    Parameters
    ----------
    out : path
        The folder of all results.

    Returns
    -------
    list of Path
        The page first.
    """
    folder = Path(out)
    sections = [make(folder) for make in SECTIONS]
    page = folder / "report.html"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(page, render_page(sections).encode())
    return [page, *(path for section in sections for path in section.files)]
