"""`moebius verify`, `claims` and `report`: what is stored, what is printed, exit codes."""

import json

import pytest

import theory.claims
from experiments import UserError, cli
from experiments.claims import by_route, chosen, records, verify
from experiments.store import StoreWarning
from theory.claims import Check, Claim, Outcome


def outcome(verdict="consistent", **numbers):
    return Outcome(verdict, "So.", numbers, {"1 = 2": True})


def fail():
    raise ZeroDivisionError("no limit")


@pytest.fixture
def claim():
    asked = []
    made = Claim(
        name="toy",
        statement="It is so.",
        source="derived here",
        assumptions="None.",
        standing="derived",
        checks=(
            Check("algebra", "is it?", lambda: asked.append(1) or outcome(x=float("nan"))),
            Check("quadrature", "is it sharp?", lambda: outcome("inconsistent")),
            Check("simulation", "does it?", lambda data: outcome(), "topk-exact"),
        ),
    )
    return made


@pytest.fixture
def moebius(capsys, monkeypatch, claim):
    """Run the command line on the toy claim alone; return exit code, output, errors."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("experiments.claims.claim_names", lambda: ["toy"])
    known = theory.claims.get_claim
    monkeypatch.setattr(
        "experiments.claims.get_claim", lambda name: claim if name == "toy" else known(name)
    )

    def call(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(arg) for arg in args])
        return (stop.value.code or 0, *capsys.readouterr())

    return call


def test_verify_then_list(moebius, tmp_path):
    code, out, err = moebius("verify", "--out", tmp_path)
    assert (code, err) == (0, "")
    assert "toy, algebra: is it?\n  consistent" in out
    assert "first: moebius run topk-exact --profile quick --out" in out
    assert out.endswith("1 consistent, 1 inconsistent, 1 not run\n")
    assert [p.name for p in (tmp_path / "claims").iterdir()] == ["toy.json"]

    code, out, _ = moebius("claims", "--out", tmp_path)
    assert code == 0
    for words in ("toy", "derived here", "algebra: consistent", "simulation: not run"):
        assert words in out
    code, out, _ = moebius("claims", "--json", "--out", tmp_path)
    listed = json.loads(out)
    assert [entry["claim"] for entry in listed] == ["toy"]
    assert listed[0]["routes"]["quadrature"] == "inconsistent"
    first = listed[0]["findings"][0]
    assert first["finding"]["numbers"] == {"x": None, "controls": {"1 = 2": True}}
    assert {"moebius", "python", "torch"} <= first["versions"].keys()


def test_verify_for_machines(moebius, claim, tmp_path):
    """The keys are those of `claims --json`; what is said on the way goes to stderr."""
    code, out, err = moebius("verify", "--out", tmp_path, "--json")
    assert code == 0
    assert "toy, algebra: is it?\n  consistent" in err
    (found,) = json.loads(out)
    (listed,) = json.loads(moebius("claims", "--json", "--out", tmp_path)[1])
    assert found.keys() == listed.keys()
    assert found["findings"][:2] == listed["findings"][:2]
    assert found["routes"]["simulation"] == "not run"
    broken = Check("algebra", "is it?", fail)
    object.__setattr__(claim, "checks", (broken,))
    code, out, err = moebius("verify", "--out", tmp_path, "--json")
    assert (code, "1 checks broke off with an error" in err) == (1, True)
    assert json.loads(out)[0]["findings"][0]["finding"]["sentence"].startswith("failed: Zero")


def test_one_route(moebius, tmp_path):
    _, out, _ = moebius("verify", "toy", "--route", "quadrature", "--out", tmp_path)
    assert out.endswith("\n1 inconsistent\n")
    assert moebius("verify", "toy", "--route", "calculus", "--out", tmp_path)[1].strip() == (
        "no check of that route"
    )


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["verify", "topk-exakt"], "unknown claim 'topk-exakt'; did you mean 'topk-exact'?"),
        (["verify", "toy", "--out", "/dev/null"], "--out must be a folder; /dev/null is a file"),
    ],
)
def test_user_errors_are_one_line(moebius, args, sentence):
    code, out, err = moebius(*args)
    assert code == 2
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert "Traceback" not in out + err


def test_usage_error(moebius):
    assert moebius("verify", "toy", "--route", "telepathy")[0] == 2


def test_a_check_that_breaks_off_is_a_finding(claim, tmp_path):
    broken = Check("algebra", "is it?", fail)
    object.__setattr__(claim, "checks", (broken, *claim.checks[1:2]))
    found = [record for _, record in verify([claim], tmp_path, profile="quick")]
    assert [r.failed for r in found] == [True, False]
    assert found[0].finding.sentence == "failed: ZeroDivisionError: no limit"


def test_what_cannot_be_run_leaves_what_was_found(claim, tmp_path, monkeypatch):
    list(verify([claim], tmp_path, profile="quick"))
    before = (tmp_path / "claims" / "toy.json").read_bytes()
    list(verify([claim], tmp_path, profile="smoke", route="simulation"))
    assert (tmp_path / "claims" / "toy.json").read_bytes() == before
    assert by_route(records(claim, tmp_path)) == {
        "algebra": "consistent",
        "quadrature": "inconsistent",
        "simulation": "not run",
    }
    monkeypatch.setattr("experiments.claims.FORMAT", 2)
    assert set(by_route(records(claim, tmp_path)).values()) == {"not run"}
    monkeypatch.undo()
    monkeypatch.setattr("experiments.claims.same_version", lambda version: False)
    assert set(by_route(records(claim, tmp_path)).values()) == {"not run"}


TORN = ["{", "[]", '{"format": 1, "findings": [{"finding": {"route": 1}}]}']


@pytest.mark.parametrize("content", TORN)
def test_torn_findings_are_ignored_and_replaced(claim, tmp_path, content):
    path = tmp_path / "claims" / "toy.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.warns(StoreWarning, match="torn or not a list of findings"):
        assert by_route(records(claim, tmp_path))["algebra"] == "not run"
    with pytest.warns(StoreWarning, match="torn"):
        list(verify([claim], tmp_path, profile="quick"))
    assert by_route(records(claim, tmp_path))["algebra"] == "consistent"


def test_unknown_route_and_claim(claim, tmp_path):
    with pytest.raises(UserError, match="unknown route 'x'; routes: algebra"):
        list(verify([claim], tmp_path, profile="quick", route="x"))
    with pytest.raises(UserError, match="unknown claim 'x'"):
        chosen("x")


def test_report(moebius, tmp_path):
    moebius("verify", "--route", "algebra", "--out", tmp_path)
    code, out, err = moebius("report", "--out", tmp_path)
    assert (code, err) == (0, "")
    assert out == f"{tmp_path / 'report.html'}\n"
    assert "It is so." in (tmp_path / "report.html").read_text()
    code, out, err = moebius("report", "--out", tmp_path, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"page": str(tmp_path / "report.html"), "files": []}


def test_checks_of_minutes_are_left_out_unless_asked_for(claim, tmp_path):
    (_, record), *_ = verify([claim], tmp_path, profile="quick", longest=-1.0)
    assert record.finding.verdict == "not run"
    assert "it takes minutes; run it by moebius verify" in record.finding.sentence
    assert not list(tmp_path.glob("claims/*.json"))  # nothing was found, nothing is kept
