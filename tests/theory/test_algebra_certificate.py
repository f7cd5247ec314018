"""The certificate of rbar: the checker accepts it, refuses every tampering and gives the reason."""

import ast
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import theory.algebra.certificate as checker
from theory.algebra import check, rbar


@pytest.mark.parametrize("m", [2, 3, 4, 5, 6, 10, 17, 40])
def test_certificates_survive_json_and_are_accepted(m):
    found = check(json.loads(json.dumps(rbar(m).certificate)))
    assert found.valid
    assert found.reason.startswith(f"rbar({m}) >= {2 * m}")


@pytest.mark.parametrize("m", [2, 5, 9])
def test_nodes_and_weights_are_numpys(m):
    certificate = rbar(m).certificate
    nodes, weights = np.polynomial.hermite_e.hermegauss(m)
    ours = [float(Fraction(c)) for c in certificate["weights"]]
    expected = weights / weights.sum()
    # float64 roots of condition numbers below 1e3
    assert np.allclose(np.polynomial.polynomial.polyval(nodes, ours), expected, atol=1e-12)
    polynomial = [float(c) for c in certificate["nodes"]]
    found = np.sort(np.polynomial.polynomial.polyroots(polynomial).real)
    assert np.allclose(found, nodes, atol=1e-10)


def tampered(**changes):
    """The certificate of four atoms with entries replaced, or one coefficient: name=(index, value).

    It is He_4 = x^4 - 6 x^2 + 3 with weights (6 - x^2) / 12 (nodes squared 3 -+ sqrt 6)."""
    certificate = rbar(4).certificate
    for name, change in changes.items():
        if isinstance(change, tuple):
            index, value = change
            certificate[name][index] = value
        else:
            certificate[name] = change
    return certificate


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (tampered(n_atoms=5), "'order' must be 2 n_atoms - 1 = 9; got 7"),
        (tampered(n_atoms=1), "'n_atoms' must be an int of at least 2"),
        (tampered(n_atoms=True), "'n_atoms' must be an int"),
        (tampered(order=8), "'order' must be 2 n_atoms - 1 = 7; got 8"),
        (tampered(order=6), "got 6"),
        (tampered(nodes=["3", "0", "-6", "0", "1", "0"]), "monic polynomial of degree 4"),
        (tampered(nodes=(4, "2")), "monic"),
        (tampered(nodes=(0, "-3")), "2 of 4 atoms are real and distinct"),
        (tampered(nodes=(0, "9")), "2 of 4 atoms"),  # (x^2 - 3)^2: two double roots
        (tampered(nodes=(0, "2")), "Equation 2 leaves"),
        (tampered(nodes=(1, "1/7")), "Equation 1 leaves"),
        (tampered(weights=["0"] * 4), "exceed negative ones by 0, not by 4"),
        (tampered(weights=(0, "-1/6")), "exceed negative ones by -4"),
        (tampered(weights=(0, "0")), "exceed negative ones by -4"),
        (tampered(weights=(1, "1/50")), "exceed negative ones by 2, not by 4"),
        (tampered(weights=(1, "1/99")), "Equation 1 leaves"),
        (tampered(weights=["1/4", "0", "0", "0"]), "Equation 2 leaves 1, not 0"),
        (tampered(weights=["1/2"]), "'weights' must have 4 coefficients; got 1"),
        (tampered(q2="1/2"), "Equation 2 leaves 1, not 0"),
        (tampered(remainder="0"), "Equation 8 leaves -1/1680; stated is 0"),
        (tampered(remainder="1/1680"), "stated is 1/1680"),
        (tampered(q2="half"), "not made of rational numbers"),
        (tampered(q2="1/0"), "not made of rational numbers"),
        (tampered(q2=float("inf")), "not made of rational numbers"),
        (tampered(nodes=None), "not made of rational numbers"),
        ({"n_atoms": 4}, "The entry 'order' is missing"),
    ],
)
def test_a_tampered_certificate_is_rejected_with_the_reason(certificate, reason):
    found = check(certificate)
    assert not found.valid
    assert reason in found.reason


def test_a_solution_found_elsewhere_is_accepted_too():
    # the same rule scaled by 2: other nodes and q2, the last equation 2^4 times as much
    found = check(
        {
            "n_atoms": 2,
            "order": 3,
            "nodes": ["-4", "0", "1"],
            "weights": ["1/2", "0"],
            "q2": -2,
            "remainder": "-4/3",
        }
    )
    assert found.valid


def test_the_checker_imports_the_standard_library_alone():
    tree = ast.parse(Path(checker.__file__).read_text())
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in imports if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in imports if isinstance(n, ast.ImportFrom)}
    allowed = {"__future__", "collections.abc", "dataclasses", "fractions", "itertools", "math"}
    assert names <= {*allowed, "typing"}
