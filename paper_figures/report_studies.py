"""The report's section on studies: words, verdicts or scores, figures and configuration of each."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.store import Store, stores_in

from . import render
from .report_captions import caption_of
from .report_page import Picture, Section, shown


def studies_section(out: Path) -> Section:
    """Every stored study, at the profile of which most is stored."""
    studies, files = [], []
    for store in stores_in(out):
        profile, cells, table = _fullest(store)
        if not table.empty:
            about, drawn = _described(store, profile, cells, table)
            studies.append(about)
            files += drawn
    entries = [
        (f"study-{entry['path']}", f"{entry['study'].title} ({entry['profile']})")
        for entry in studies
    ]
    return Section("studies", "Studies", {"studies": studies}, files, entries)


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
    about: dict[str, Any] = {
        "study": study,
        "profile": profile,
        "cells": cells,
        "stored": len(table),
        "failed": int((table["status"] == "failed").sum()),
        "seconds": float(table["seconds"].sum()),
        "versions": ", ".join(sorted(set(table["version"]))),
        "path": f"{study.name}-{study.config_hash}",
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
        return {**about, "problem": str(error)}, []
    about["headline"] = rendered.headline.splitlines()
    about["summary"] = shown(rendered.summary)
    about["pictures"] = [
        _picture(path, caption_of(study.kind, profile, path.stem))
        for path in rendered.files
        if path.suffix == ".png"
    ]
    return about, rendered.files


def _picture(path: Path, caption: str) -> Picture:
    """A drawn PNG with the table beside it."""
    source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    table = pd.read_csv(path.with_suffix(".csv"))
    return Picture(path.stem, source, caption, shown(table))
