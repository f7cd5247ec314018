"""The report: one self-contained HTML page of what is stored. It simulates and fits nothing.

Verdicts come first, then what was found otherwise than published, derived or supposed, then
studies, then claims in full. Whoever adds a section adds a template and a line here.
"""

from __future__ import annotations

import os
from pathlib import Path

from experiments.store import write_whole

from .report_claims import claims_section, findings, verdicts_section
from .report_otherwise import otherwise_section
from .report_page import render_page
from .report_studies import studies_section


def write_report(out: str | os.PathLike[str]) -> list[Path]:
    """Write ``OUT/report.html``, and its figures with their tables beside the findings.

    Parameters
    ----------
    out : path
        The folder of all results; made if it is not there.

    Returns
    -------
    list of Path
        The page first.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found = findings(folder)
    sections = [
        verdicts_section(found),
        otherwise_section(found),
        studies_section(folder),
        claims_section(found, folder),
    ]
    page = folder / "report.html"
    write_whole(page, render_page(sections).encode())
    return [page, *(path for section in sections for path in section.files)]
