"""Benchmarks: ``python -m benchmarks run NAME [--quick] [--json] [--save]``.

Every number is a median of several runs and a ratio to a named peer measured in the same process,
on one thread; `triton` needs a GPU. The peers are written out beside the measurement, in a few
lines each. ``--save`` leaves results, a table and a picture in ``results/``.
"""
