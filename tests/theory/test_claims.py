"""The registry of claims: every check can be refuted, and one that cannot says nothing."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from theory.claims import ROUTES, Check, Claim, ClaimError, Data, Outcome, claim_names, get_claim
from theory.claims.base import all_of

SIZES = np.repeat([316, 562, 1000, 1778, 3162, 5623, 10000], 40)
CALCULATED = [
    ("rbar", "is order 2m - 1 solvable?"),
    ("systems-equal", "are they solvable together?"),
    ("mirror-image", "is the density the same?"),
    ("every-cell-over-fitted", "is h 0 with the gate slopes off?"),
    ("dense-to-sparse-raw", "is the density the same along the ray?"),
    ("dense-to-sparse-identified", "is it the softmax gate of the quotients?"),
    ("independence", "is it so at first order?"),
    ("topk-boundary", "does h move like the boundary?"),
]


def check_of(claim, question):
    return next(c for c in get_claim(claim).checks if c.question == question)


def table(slopes, arm="mle", cells="1,1,1"):
    """Rows of a study whose errors are n^slope times the quantiles of a chi, the same at each n."""
    spread = np.sqrt(chi2.ppf((np.arange(40) + 0.5) / 40, 60) / 60)
    rows = {name: np.tile(spread, 7) * SIZES**s for name, s in slopes.items()}
    fixed = {"arm": arm, "status": "ok", "n": SIZES, "cell_sizes": cells}
    n_single = cells.split(",").count("1")
    return pd.DataFrame({**fixed, "n_single": n_single, "n_empty": 0, **rows})


def data(slopes, arm="mle", **options):
    near = {"arms": {arm: {"near": 0.0, "everywhere": None}}}
    return Data(table(slopes, arm, **options), near, 0)


def test_every_claim_is_well_formed():
    names = claim_names()
    assert len(names) == len(set(names)) > 15
    for name in names:
        claim = get_claim(name)
        assert claim.name == name
        assert claim.statement.endswith(".")
        assert claim.source
        for check in claim.checks:
            assert check.route in ROUTES
            assert check.question.endswith("?")


def test_unknown_claim_names_the_nearest():
    with pytest.raises(
        ClaimError, match=r"unknown claim 'topk-exakt'; did you mean 'topk-exact'\?"
    ):
        get_claim("topk-exakt")
    with pytest.raises(ClaimError, match=r"unknown claim '\.\./rbar'"):
        get_claim("../rbar")


@pytest.mark.parametrize(("claim", "question"), CALCULATED)
def test_calculations_agree_and_reject_what_is_false(claim, question):
    found = check_of(claim, question).run()
    assert found.verdict == "consistent"
    assert found.numbers["controls"]
    assert all(found.numbers["controls"].values())
    json.dumps(found.numbers, allow_nan=False)


def test_remembered_statements_say_so():
    found = check_of("every-cell-over-fitted", "is h 0 with the gate slopes off?").run()
    assert "check against the theorem's text" in found.sentence


def test_heat_relation_alone_holds_for_one_feature_only():
    found = check_of("interactions-activation", "does it hold with two features?").run()
    assert found.verdict == "inconsistent"
    assert "d2u/db1_1 da_2 = d2u/db1_2 da_1" in found.sentence


def test_a_check_that_rejects_nothing_is_inconclusive():
    for verdict in ("consistent", "inconsistent"):
        outcome = Outcome(verdict, "So.", {}, {"1 = 1": True, "1 = 2": False})
        found = Check("algebra", "q?", lambda outcome=outcome: outcome).run()
        assert found.verdict == "inconclusive"
        assert found.sentence == "So. But the check does not reject what is false: 1 = 2."
    with pytest.raises(ValueError, match="must try at least one control"):
        Check("algebra", "q?", lambda: Outcome("consistent", "So.", {}, {})).run()


def test_checks_are_handed_what_they_need():
    outcome = Outcome("consistent", "So.", {}, {"no": True})
    with pytest.raises(ValueError, match="'study' parameter must be given for the route"):
        Check("simulation", "q?", lambda d: outcome)
    with pytest.raises(ValueError, match="'route' parameter must be one of"):
        Check("telepathy", "q?", lambda: outcome)
    with pytest.raises(ValueError, match="must be of study 'topk-exact'"):
        Check("simulation", "q?", lambda d: outcome, "topk-exact").run()
    check = Check("algebra", "q?", lambda: outcome)
    with pytest.raises(ValueError, match="must be None"):
        check.run(data({"hellinger": -0.5}))
    with pytest.raises(ValueError, match="route and question of its own"):
        Claim("twice", "S.", "s", "a", "derived", (check, dataclasses.replace(check)))


EXACT = {f"{g}_single_largest": -0.5 for g in ("gate_slope", "slope", "intercept", "variance")}


@pytest.mark.parametrize(("slope", "expected"), [(-0.5, "consistent"), (-0.3, "inconsistent")])
def test_simulated_rates_are_judged(slope, expected):
    slopes = {"hellinger": -0.5, **EXACT, "variance_single_largest": slope}
    found = check_of("topk-exact", "is n^-1/2 sharp for the experts?").run(data(slopes))
    assert found.verdict == expected
    assert [r["quantity"] for r in found.numbers["rates"]] == [
        "gate slope",
        "slope",
        "intercept",
        "variance",
    ]
    assert all(r["control_rejected"] for r in found.numbers["rates"][:3])
    json.dumps(found.numbers, allow_nan=False)


def test_bound_and_sharp_are_apart():
    multi = {"gate_slope": -0.25, "slope": -0.25, "intercept": -0.125, "variance": -0.25}
    slopes = {"hellinger": -0.5, **{f"{g}_multi_largest": s for g, s in multi.items()}}
    stored = data(slopes, "constrained", cells="2,1")
    ask = {
        (claim, question): check_of(claim, question).run(stored).verdict
        for claim, question in (
            ("softmax-over-published", "does the bound hold for 3 experts?"),
            ("softmax-over-published", "is it sharp for 3 experts?"),
            ("softmax-over-derived", "is it sharp for 3 experts?"),
        )
    }
    assert list(ask.values()) == ["consistent", "inconsistent", "consistent"]


def test_what_is_not_measured_is_inconclusive():
    found = check_of("topk-boundary", "is n^-1 sharp, K = 1?").run(data({"hellinger": -0.5}))
    assert found.verdict == "inconclusive"
    assert "measures nothing" in found.sentence


# H0: near-truth EM falls short on half of the data sets; exact binomial interval, 5% false alarms
@pytest.mark.parametrize(
    ("gains", "expected"),
    [((0.0, 4.0), "consistent"), ((4.0, 0.0), "inconclusive"), ((2.0, 2.2), "inconsistent")],
)
def test_near_truth_em(gains, expected):
    question = "does it fall short (softmax)?"
    n, r = np.meshgrid([100, 1000], np.arange(10), indexing="ij")
    parts = [
        pd.DataFrame({"arm": arm, "n": n.ravel(), "replicate": r.ravel(), "gain": g})
        for arm, g in zip(("oracle", "unconstrained"), gains, strict=True)
    ]
    rows = pd.concat(parts, ignore_index=True).assign(status="ok")
    assert check_of("near-truth-em", question).run(Data(rows, {}, 0)).verdict == expected


def test_all_of():
    assert all_of([]) == "inconclusive"
    assert all_of(["consistent", "consistent"]) == "consistent"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claim", "question", "verdict"),
    [
        ("softmax-exact", "is h linear in every parameter?", "consistent"),
        ("softmax-over-published", "does the bound hold, two atoms?", "consistent"),
        ("softmax-over-published", "is it sharp, two atoms?", "inconsistent"),
        ("softmax-over-derived", "is it sharp, two atoms?", "consistent"),
        ("minimax", "are the rates minimax at a fixed truth?", "consistent"),
        ("minimax", "is n^-1/12 minimax for moving truths?", "consistent"),
        ("topk-sufficiency", "is the bound necessary?", "consistent"),
        ("topk-sufficiency", "is it not sufficient?", "consistent"),
    ],
)
def test_slow_calculations(claim, question, verdict):
    found = check_of(claim, question).run()
    assert found.verdict == verdict
    assert all(found.numbers["controls"].values())


@pytest.mark.parametrize(("slope", "expected"), [(-1 / 12, "consistent"), (0.05, "inconsistent")])
def test_merging_atoms_are_judged_by_the_quantile(slope, expected):
    found = check_of("minimax", "is it sharp for merging atoms?").run(
        data({"intercept_moving_deviation": slope}, arm="constrained")
    )
    assert found.verdict == expected
    assert found.numbers["controls"] == {"n^-1/2, the rate at each fixed truth": True}
    parametric = check_of("minimax", "does the bound hold for merging atoms?").run(
        data({"intercept_moving_deviation": -0.5}, arm="constrained")
    )
    assert parametric.verdict == "inconclusive"  # the control is not rejected
