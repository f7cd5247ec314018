"""The report's section on studies: words, verdicts or scores, figures and configuration of each."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.store import Store, stores_in

from . import render
from .report_page import Section


def studies_section(out: Path) -> Section:
    """Every stored study, at the profile of which most is stored."""
    studies, files = [], []
    for store in stores_in(out):
        profile, cells, table = _fullest(store)
        if not table.empty:
            shown, drawn = _described(store, profile, cells, table)
            studies.append(shown)
            files += drawn
    return Section("studies", "Studies", {"studies": studies}, files)


def _fullest(store: Store) -> tuple[str, int, pd.DataFrame]:
    """The profile with most stored cells, the smallest of those that tie; its cells and rows."""
    found = []
    for profile in store.study.profiles:
        batches = store.study.batches(profile)
        cells = sum(len(batch.cells) for batch in batches)
        found.append((profile, cells, store.table(store.done(batches))))
    return max(found, key=lambda entry: (len(entry[2]), -entry[1]))


def _described(
    store: Store, profile: str, cells: int, table: pd.DataFrame
) -> tuple[dict[str, Any], list[Path]]:
    """What the template shows of a study, and the files that were drawn."""
    study = store.study
    shown: dict[str, Any] = {
        "study": study,
        "profile": profile,
        "cells": cells,
        "stored": len(table),
        "failed": int((table["status"] == "failed").sum()),
        "seconds": float(table["seconds"].sum()),
        "versions": ", ".join(sorted(set(table["version"]))),
        "path": f"{study.name}/{study.config_hash}",
        "configuration": json.dumps(study.document(), indent=1),
        "problem": None,
        "headline": [],
        "summary": None,
        "pictures": [],
    }
    folder = store.path.parent / "figures"
    try:
        rendered = render(study, profile, table, store.prepared() or {}, folder)
    except ValueError as error:  # no figure of this kind, or too little is stored to draw one
        return {**shown, "problem": str(error)}, []
    shown["headline"] = rendered.headline.splitlines()
    shown["summary"] = rendered.summary.map(_cell)
    shown["pictures"] = [
        {"name": path.stem, "source": _png(path)}
        for path in rendered.files
        if path.suffix == ".png"
    ]
    return shown, rendered.files


def _png(path: Path) -> str:
    """An image as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
