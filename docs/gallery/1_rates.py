"""
Rates of a setting of your own
==============================

How fast do estimates of *your* mixture of experts converge? A study is a TOML file; here it is
written by the script. Sizes and replicates are few, so that this takes seconds: the verdicts say
"inconclusive" where so little data cannot tell.
"""

import tempfile
from pathlib import Path

import paper_figures
from experiments import Store, load_study, run

folder = Path(tempfile.mkdtemp())

# %%
# The truth
# ---------
# Two experts and a softmax gate. ``verifies`` says what is claimed; an arm is a way of fitting.

toml = """
name = "mine"
kind = "rates"
title = "Softmax gate, two experts"
verifies = "Every identified parameter converges at n^(-1/2)."
reference = "arXiv 2305.03288"
seed = 1

[setting]
n_experts = 2
fitted_gate = { name = "softmax" }
loss = "D1"
design = { low = -1.0, high = 1.0 }

[setting.truth]
gate = { name = "softmax" }
gate_intercept = [0.3, 0.0]
gate_slope = [[5.0], [0.0]]
slope = [[2.0], [-1.0]]
intercept = [1.0, 0.2]
scale = [0.3, 0.4]

[setting.arms.mle]
n_init = 4
n_rounds = 0
min_scale = 0.05
gate_bound = 50.0

[profiles.smoke]
minutes = 0.2
sizes = [300, 550, 1000, 1800, 3300]
replicates = 20
"""
study_file = folder / "mine.toml"
study_file.write_text(toml)
study = load_study(study_file)

# %%
# The run
# -------
# Batches are computed in worker processes and stored one by one: a run that is broken off goes on
# from there, and running again computes nothing twice.

summary = run(study, "smoke", folder, n_jobs=2)
print(f"{summary.computed} cells computed, {summary.failed} failed")

# %%
# The picture and the verdicts
# ----------------------------
# A figure is drawn from the stored table alone.

store = Store(folder, study)
figures = folder / "figures"
rendered = paper_figures.render(study, "smoke", store.table(), store.prepared(), figures)
rendered.summary

# %%
# The last column is wrong on purpose: an exponent that must be rejected. Where it is not, the study
# has too little power, and its other answers mean little.

print(rendered.headline)
