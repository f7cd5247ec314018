"""Sphinx: guides in Markdown, reference from docstrings, gallery from scripts that are run."""

from importlib import import_module
from importlib.metadata import version as installed
from pathlib import Path
from shutil import copy

from sphinx_gallery.scrapers import figure_rst

from paper_figures import Rendered

project = "Moebius"
author = "The Moebius developers"
version = release = installed("moebius")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "gallery"]
default_role = "code"  # a name in single backquotes, as docstrings write them
suppress_warnings = [
    "ref.python",  # words in types that several things have as their name
    "config.cache",  # a scraper is a function
]

html_theme = "furo"
html_title = "Moebius"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # docstrings give types, shapes and units
autodoc_member_order = "bysource"
autosummary_generate = True
napoleon_use_ivar = True
napoleon_use_rtype = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
}


def pages() -> dict[str, list[str]]:
    """Package to the names that have their page there: classes and functions, each in the first
    package of api.rst that offers it."""
    lines = Path(__file__).with_name("api.rst").read_text().splitlines()
    packages = [line.strip() for line in lines if line.startswith("   ") and ":" not in line]
    seen: set[int] = set()
    names = {}
    for package in packages:
        offered = {name: getattr(import_module(package), name) for name in offers(package)}
        names[package] = [name for name, what in offered.items() if id(what) not in seen]
        seen |= {id(what) for what in offered.values()}
    return names


def offers(package: str) -> list[str]:
    """Classes and functions among a package's public names."""
    module = import_module(package)
    return sorted(name for name in module.__all__ if callable(getattr(module, name)))


autosummary_context = {"pages": pages()}


def drawn_by_studies(block, block_vars, gallery_conf):
    """Show what `paper_figures.render` drew in this block, beside figures of pyplot."""
    shown = []
    for name, value in block_vars["example_globals"].items():
        if isinstance(value, Rendered) and f"{name} =" in block[1]:
            for path in (path for path in value.files if path.suffix == ".png"):
                shown.append(next(block_vars["image_path_iterator"]))
                copy(path, shown[-1])
    return figure_rst(shown, gallery_conf["src_dir"])


sphinx_gallery_conf["image_scrapers"] = ("matplotlib", drawn_by_studies)
