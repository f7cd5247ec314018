"""Benchmarks: ``python -m benchmarks run NAME [--quick] [--json]``.

Every number is a median of several runs and a ratio to a named peer measured in the same process,
on one thread. The peers are written out beside the measurement, in a few lines each.
"""
