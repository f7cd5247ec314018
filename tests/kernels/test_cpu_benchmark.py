"""The benchmark of what runs on a CPU runs, on tiny sizes; its figures mean nothing here."""

from benchmarks import cpu

OUTCOMES = {"gating": "passed", "sgmcmc": "passed", "simulate": "passed"}


def test_every_row_is_there(monkeypatch):
    monkeypatch.setattr(cpu, "ROUND_S", 1e-4)
    copy, *rows = cpu.rows(2, 2**10, OUTCOMES, sizes=(40, 50))
    assert copy.operation == "copy"
    operations = ["gating, value", "gating, gradient", "gating, hessian"]
    operations += ["sgmcmc, sghmc", "simulate, gradient"]
    forms = ["eager", "library"]  # nobody compiles for so few
    wanted = [(operation, form) for operation in operations for form in forms]
    assert [(row.operation, row.form) for row in rows] == 2 * wanted
    assert all(row.median_s > 0 and row.tests == "passed" for row in rows)
    assert all(row.ratio_to_eager == 1 for row in rows if row.form == "eager")
    assert all(row.note.endswith(" us") for row in rows if row.form == "library")
