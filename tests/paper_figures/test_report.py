"""The report: one page that needs nothing else, and figures from findings' numbers alone."""

import base64
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import paper_figures
from experiments import UserError
from experiments.claims import Record
from experiments.rows import tabulate
from experiments.store import Store
from experiments.study import load_study, study_from_document
from paper_figures import (
    Rendered,
    claims_algebra,
    claims_calculus,
    claims_quadrature,
    claims_simulation,
    claims_two_point,
    report,
    report_captions,
    report_claims,
    report_otherwise,
    report_studies,
)
from paper_figures.report_page import render_page
from paper_figures.style import save, style
from theory.claims import Check, Claim, Finding, Outcome

NUMBERS = {
    "algebra": {
        "residuals": [
            {"m": m, "order": s, "residual": 0.0 if s < 2 * m else 1e-2 / m}
            for m in (2, 3)
            for s in range(1, 2 * m + 1)
        ]
    },
    "calculus": {
        "searches": [
            {"family": "softmax", "relations": ["r"], "nearest": 0.1, "largest_null": 0.0},
            {"family": "none", "relations": [], "nearest": 0.1, "largest_null": 0.0},
        ],
        "reports": [{"family": "relu, order 1", "singular_values": [1.0, 0.3, 1e-62]}],
    },
    "quadrature": {
        "exponents": [
            {
                "name": "softmax, two atoms: intercept",
                "deltas": [0.1, 0.05, 0.02],
                "values": [1e-4, 6e-6, 1.6e-7],
                "exponent": 4.0,
                "error": 0.01,
                "predicted": {"published": 4.0, "derived": 4.0},
            }
        ]
    },
    "two-point": {
        "pairs": [
            {
                "name": "pointwise, intercept",
                "n": [1e4, 1e6, 1e8],
                "distance": [0.1, 0.06, 0.03],
                "affinity": [0.78, 0.78, 0.78],
                "lower_bound": [0.01, 0.006, 0.003],
                "exponent": 0.125,
                "error": 0.001,
                "predicted": 0.125,
            }
        ]
    },
    "simulation": {
        "arm": "mle",
        "rates": [
            {
                "quantity": q,
                "role": "published",
                "question": "sharp",
                "predicted": -0.5,
                "slope": s,
                "low": s - 0.03,
                "high": s + 0.02,
                "verdict": v,
                "control": -0.25,
                "control_rejected": True,
            }
            for q, s, v in (("slope", -0.5, "consistent"), ("variance", -0.3, "inconsistent"))
        ],
    },
}
SOURCE = {"study": "topk-exact", "profile": "quick", "config_hash": "abc", "cells": 9}
MODULES = {
    "algebra": claims_algebra,
    "calculus": claims_calculus,
    "quadrature": claims_quadrature,
    "two-point": claims_two_point,
    "simulation": claims_simulation,
}


class Reader(HTMLParser):
    """Open tags, to see that they close; headings; every address that the page would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.links = [], [], set()
        self.ids, self.headings, self.unnamed = [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.fetched += [attrs[k] for k in ("src", "srcset", "data", "poster") if k in attrs]
        if tag == "link":
            self.fetched.append(attrs.get("href"))
        if attrs.get("href", "").startswith("#"):
            self.links.add(attrs["href"][1:])
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if (tag == "img" and not attrs.get("alt")) or (
            "tabindex" in attrs and not attrs.get("aria-label")
        ):
            self.unnamed.append(tag)
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def made(name="toy", statement="Slopes <b1> & more."):
    claim = Claim(
        name,
        statement,
        "derived here",
        "None.",
        "derived",
        tuple(
            Check(r, "so?", lambda *_: Outcome("consistent", "", {}, {}), s)
            for r, s in ((r, "topk-exact" if r == "simulation" else None) for r in NUMBERS)
        ),
    )
    verdicts = ["consistent", "inconsistent", "inconclusive", "consistent", "consistent"]
    found = [
        Record(
            Finding(r, "so?", v, "Because.", {**n, "controls": {"no": True}}, 1.0),
            SOURCE if r == "simulation" else {},
            "2026-01-01T00:00:00+00:00",
            {"moebius": "0", "torch": "2"},
        )
        for (r, n), v in zip(NUMBERS.items(), verdicts, strict=True)
    ]
    return claim, found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    claim, found = made()
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_claims, "chosen", lambda name: [claim])
        patch.setattr(report_claims, "records", lambda claim, out: found)
        files = report.write_report(folder)
    return files, (folder / "report.html").read_text(encoding="utf-8")


def test_page_is_whole_and_needs_nothing_else(page):
    files, text = page
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert len(reader.fetched) == len(NUMBERS)
    assert all(address.startswith("data:image/svg+xml;base64,") for address in reader.fetched)
    assert reader.links <= set(reader.ids)
    assert not re.search(r"url\(|@import|<script", text)
    for address in reader.fetched:
        assert b"</svg>" in base64.b64decode(address.split(",")[1])
    assert {p.suffix for p in files} == {".html", ".pdf", ".png", ".csv"}
    assert all(path.stat().st_size > 0 for path in files)


def test_page_reads_without_colour_and_escapes(page):
    _, text = page
    assert "Slopes &lt;b1&gt; &amp; more." in text
    for symbol, word in (("✓", "consistent"), ("✗", "inconsistent"), ("?", "inconclusive")):
        assert f'<span aria-hidden="true">{symbol}</span> {word}' in text
    for words in ("abc", "9 cells", "torch 2", "topk-exact quick"):
        assert words in " ".join(text.split())
    assert 'name="viewport"' in text


def test_page_can_be_heard(page):
    """Headings descend one level at a time, ids are unique, images and scrolled regions named."""
    reader = Reader()
    reader.feed(page[1])
    levels = reader.headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert len(reader.ids) == len(set(reader.ids))
    assert reader.unnamed == []
    assert re.search(r'<html lang="en">.*<nav aria-label.*<main>', page[1], re.DOTALL)
    sections = re.findall(r'<section id="(\w+)"', page[1])
    assert sections == ["verdicts", "otherwise", "studies", "claims"]


def luminance(colour):
    """Relative luminance of #rgb or #rrggbb, by WCAG 2.1."""
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one, other):
    a, b = sorted((luminance(one), luminance(other)))
    return (b + 0.05) / (a + 0.05)


def test_contrast_of_text(page):
    """At least 4.5 to 1 on paper and on code, light, dark and printed; light grey is refused."""
    palettes = re.findall(r":root \{([^}]*)\}", page[1])
    assert len(palettes) == 3
    for palette in palettes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", palette))
        for name in ("ink", "note", "link", "yes", "no", "open", "none"):
            for ground in ("paper", "soft"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert contrast("#fff", "#000") == pytest.approx(21)
    assert contrast("#999", "#fff") < 4.5


def found_as(standing, verdict):
    claim, records = made()
    object.__setattr__(claim, "standing", standing)
    finding = records[0].finding
    changed = Finding(finding.route, "so?", verdict, "Because <so>.", finding.numbers, 1.0)
    return [(claim, [Record(changed, {}, "2026-01-01", {})])]


@pytest.mark.parametrize(
    ("standing", "verdict", "expected"),
    [
        ("published", "inconsistent", ["against-published"]),
        ("derived", "inconsistent", ["against-ours"]),
        ("hypothesis", "inconsistent", ["against-ours"]),
        ("hypothesis", "consistent", ["supposed"]),
        ("derived", "consistent", ["derived"]),
        ("published", "inconclusive", ["inconclusive"]),
        ("derived", "inconclusive", ["inconclusive"]),
        ("published", "consistent", []),  # as the paper says: not otherwise
        ("derived", "not run", []),
    ],
)
def test_what_was_found_otherwise_follows_from_standing_and_verdict(standing, verdict, expected):
    section = report_otherwise.otherwise_section(found_as(standing, verdict))
    assert [group.name for group in section.content["groups"]] == expected
    assert [name for name, _ in section.entries] == expected
    text = render_page([section])
    assert ("Because &lt;so&gt;." in text) == bool(expected)
    assert ("Nothing yet" in text) == (not expected)


def test_every_figure_of_a_study_has_a_caption():
    """As the sources name figures; a caption that no source has would show here too."""
    folder = Path(paper_figures.__file__).parent
    named = {
        kind: set(
            re.findall(r'(?:\{profile\}-|keep\(.*, ")([a-z]+)', source.read_text(encoding="utf-8"))
        )
        for kind, module in paper_figures.RENDERERS.items()
        for source in [folder / f"{module.rpartition('.')[2]}.py"]
    }
    named["functional_prior"] |= {"functions", "classes"}  # a loop names them
    named["forecast"] |= {"horizon", "gap", "series", "places"}
    assert named == {kind: set(words) for kind, words in report_captions.CAPTIONS.items()}


def test_an_unwritable_folder_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(report_claims, "chosen", lambda name: [])
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        report.write_report(tmp_path)


def test_stored_studies_are_shown_with_their_figures(tmp_path, monkeypatch):
    """One that is drawn, and one of which too little is stored, which the page says."""
    study = load_study("coverage")
    others = study_from_document(study.document() | {"name": "too-little"})
    for stored in (study, others):
        batch = stored.batches("smoke")[0]
        rows = [{"covered": True} for _ in batch.cells]
        store = Store(tmp_path, stored)
        with store.lock():
            store.write(tabulate(stored, batch, rows, 2.0))

    def render(drawn, profile, table, prepared, folder):
        if drawn.name == "too-little":
            raise ValueError("Too little is <stored>.")
        with style():
            figure = Figure()
            figure.subplots().plot(table["n"])
        shown = pd.DataFrame({"case": ["a & b"], "level": [0.94999]})
        files = save(figure, shown, folder, f"{profile}-figure", "stamp")
        return Rendered(files, shown, "All is well.")

    monkeypatch.setattr(report_studies, "render", render)
    monkeypatch.setattr(report_claims, "chosen", lambda name: [])
    page, *files = report.write_report(tmp_path)
    text = page.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.links <= set(reader.ids)
    assert reader.unnamed == []
    (picture,) = reader.fetched
    content = base64.b64decode(picture.removeprefix("data:image/png;base64,"))
    assert content == next(path for path in files if path.suffix == ".png").read_bytes()
    words = " ".join(text.split())
    cells = sum(len(batch.cells) for batch in study.batches("smoke"))
    for expected in (
        "All is well.",
        f"Only {len(batch.cells)} of {cells} cells are stored",
        "<td>a &amp; b</td><td>0.95</td>",
        "Not drawn: Too little is &lt;stored&gt;.",
        f"{len(batch.cells)} of {cells} cells, 0 failed, 2 s of worker time",
        study.config_hash,
        others.config_hash,
    ):
        assert expected in words


def test_page_without_findings(monkeypatch, tmp_path):
    claim, found = made()
    none = [Record(Finding(r.finding.route, "so?", "not run", "never run")) for r in found]
    monkeypatch.setattr(report_claims, "chosen", lambda name: [claim])
    monkeypatch.setattr(report_claims, "records", lambda claim, out: none)
    assert report.write_report(tmp_path / "new") == [tmp_path / "new" / "report.html"]
    assert "No simulated data were used." in (tmp_path / "new" / "report.html").read_text()


@pytest.mark.parametrize("route", NUMBERS)
def test_tables_hold_what_is_drawn(route):
    shown = MODULES[route].table([{**NUMBERS[route], **SOURCE}])
    again = MODULES[route].table([{**NUMBERS[route], **SOURCE}] * 2)
    assert len(shown) > 0
    if route in ("calculus", "quadrature", "simulation"):  # claims share findings
        assert len(again) == len(shown)
    axes = MODULES[route].figure(shown).axes
    assert all(ax.get_xlabel() or ax.get_title() or ax.get_ylabel() for ax in axes)
    assert MODULES[route].table([{}]).empty


def test_gap_is_between_relations_and_none():
    shown = claims_calculus.table([NUMBERS["calculus"]])
    values = shown.groupby("related")["value"]
    assert values.max()[True] < 1e-40 < values.min()[False]
    assert np.isclose(values.min()[False], 0.1)
