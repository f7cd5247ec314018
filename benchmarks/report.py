"""What a run leaves behind: rows with versions and device, a table and a picture of them.

``python -m benchmarks run NAME --save`` writes ``NAME.json``, ``NAME.md`` and ``NAME.png`` here in
``results/``. A benchmark with a function ``picture`` draws its own.
"""

from __future__ import annotations

import io
import json
import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bayes.files import write_whole

from .measure import Row

FOLDER = Path(__file__).parent / "results"


def save(
    name: str,
    rows: Sequence[Row],
    draw: Callable[[Sequence[Any]], bytes] | None = None,
    folder: Path = FOLDER,
) -> None:
    """Write the rows of a benchmark, with its own picture if it draws one."""
    folder.mkdir(exist_ok=True)
    record = {"benchmark": name, **conditions(), "rows": [row.as_dict() for row in rows]}
    write_whole(folder / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())
    write_whole(folder / f"{name}.md", table(rows).encode())
    write_whole(folder / f"{name}.png", (draw or _picture)(rows))


def conditions() -> dict[str, Any]:
    """Versions, device, threads, and how many processes wanted a core in the last minutes."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "triton", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else platform.machine()
    return {
        "versions": versions,
        "device": device,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
    }


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of all columns that some row fills."""
    records = [row.as_dict() for row in rows]
    every = dict.fromkeys(key for record in records for key in record)
    columns = [key for key in every if any(record.get(key) for record in records)]
    lines = [columns, ["---"] * len(columns)]
    for record in records:
        cells = [record.get(key, "") for key in columns]
        lines.append([f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _picture(rows: Sequence[Row]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    labels = [f"{row.operation}, {row.form}\n{row.shape}" for row in rows]
    ratios = [row.ratio_to_eager for row in rows]
    spreads = [getattr(row, "spread_s", 0.0) / row.median_s / 2 for row in rows]
    errors = [ratio * spread for ratio, spread in zip(ratios, spreads, strict=True)]
    axes.errorbar(ratios, labels, xerr=errors, fmt="o", color="#0072B2")
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("times as fast as the peer; bars: half the distance of the quartiles of time")
    axes.tick_params(axis="y", labelsize=6)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()
