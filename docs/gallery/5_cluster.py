"""
A cluster run
=============

The same study on this machine's processes and on a Dask cluster gives the same rows, bit for bit.
The cluster is two processes here; for a real one only its address changes (see :doc:`/cluster`).
"""

import tempfile
from pathlib import Path

from distributed import LocalCluster

from experiments import Store, load_study, run

if __name__ == "__main__":  # workers import this file
    folder = Path(tempfile.mkdtemp())
    study = load_study("topk-exact")

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        summary = run(study, "smoke", folder / "cluster", cluster=cluster.scheduler_address)
    print(f"{summary.computed} cells computed, {summary.failed} failed")

    run(study, "smoke", folder / "here", n_jobs=2)
    tables = [
        Store(folder / where, study).table().drop(columns="seconds")
        for where in ("cluster", "here")
    ]
    print("equal:", tables[0].equals(tables[1]))
