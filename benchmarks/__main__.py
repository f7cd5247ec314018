"""Command line of the benchmarks; see the package's docstring."""

from __future__ import annotations

import argparse
import json
from importlib import import_module

import torch

NAMES = (
    "gating",
    "batch",
    "fit",
    "first_fit",
    "optimum",
    "boundary",
    "functional_prior",
    "sgmcmc",
    "simulate",
    "cpu",
    "scaling",
    "triton",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run one benchmark, or all")
    run.add_argument("name", choices=[*NAMES, "all"])
    run.add_argument("--quick", action="store_true", help="fewer repeats and data sets")
    run.add_argument("--json", action="store_true", help="one JSON object a line")
    run.add_argument("--save", action="store_true", help="write results, table and picture too")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in NAMES if chosen.name == "all" else (chosen.name,):
        rows = []
        benchmark = import_module(f".{name}", __package__)
        for row in benchmark.run(chosen.quick):
            rows.append(row)
            if chosen.json:
                print(json.dumps(row.as_dict()), flush=True)
            else:
                print(
                    f"{row.operation:28s} {row.form:26s} {row.shape:32s} "
                    f"{1e3 * row.median_s:10.2f} ms  x{row.ratio_to_eager:<7.2f} {row.note}",
                    flush=True,
                )
            if chosen.save:  # after every row: a run that is broken off keeps what it measured
                from .report import save

                save(name, rows, getattr(benchmark, "picture", None))


if __name__ == "__main__":
    main()
