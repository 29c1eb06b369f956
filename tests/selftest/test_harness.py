"""The harness finds what is wrong: errors of a fraction of a unit, special values, lanes."""

import gc
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphc.errors import GateError
from graphc.gates.gate import registry
from graphc.ir.scalar import bitcast, select
from graphc.ir.types import DTYPES, f64
from graphc.selftest import points, run
from graphc.selftest.__main__ import main
from graphc.selftest.arithmetic import LONG
from graphc.selftest.exact import EXACT, Exact, exact_of
from graphc.selftest.lanes import faults, lane_faults, special_arguments, table_faults
from graphc.selftest.measure import Judge, Tally, errors, scan, unit_of
from graphc.selftest.run import Effort, gates_to_judge, measure_gate
from graphc.selftest.subjects import Subject, compiled, jax_peer, judged_gates, numpy_peer
from graphc.selftest.table import BEGIN, END, as_json, markdown, write_page
from graphc.selftest.validation import beyond, rows

QUICK = Effort(points=30_000, stride=193 * 41, sample=10, lanes=False, csv=False)
BOTH = pytest.mark.parametrize("dtype", ["f64", "f32"])


def subject(*functions):
    """A subject of NumPy functions: the value, then partials."""
    return Subject("numpy", lambda *args: [f(*args) for f in functions])


# -- one error -------------------------------------------------------------------------------------


def test_errors_count_units_of_the_exact_result():
    exact = np.array([1.0, 1.0, 0.75, 3e-324, 0.0], LONG)
    got = np.array([1.0, 1 + 2.0**-52, 0.75 + 2.0**-53, 5e-324, 5e-324])
    exact[3] = LONG(2) ** -1075
    assert errors(got, exact, np.float64).tolist() == [0.0, 1.0, 1.0, 0.5, 1.0]


def test_errors_at_the_overflow():
    largest, beyond_ = np.finfo(np.float64).max, LONG(2) ** 1024
    exact = np.array([beyond_, beyond_ * LONG(4), LONG(largest), LONG(largest)])
    assert errors(np.full(4, np.inf), exact, np.float64).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert errors(np.array([largest]), np.array([beyond_]), np.float64)[0] == 0.5
    assert errors(np.array([-np.inf]), np.array([beyond_]), np.float64)[0] == np.inf


def test_other_kinds_of_results_are_infinitely_wrong():
    nan, inf = np.nan, np.inf
    got, exact = np.array([nan, 1.0, nan, inf]), np.array([nan, nan, 1.0, nan], LONG)
    assert errors(got, exact, np.float64).tolist() == [0.0, inf, inf, inf]


def test_a_scale_takes_the_place_of_a_small_result():
    got, exact = np.array([2.0**-53]), np.array([0.0], LONG)
    assert errors(got, exact, np.float64)[0] > 1e9
    assert errors(got, exact, np.float64, np.array([1.0], LONG))[0] == 0.5


@pytest.mark.parametrize("judge", [np.float64, LONG])
def test_units(judge):
    magnitude = np.array([1.0, 1.5, 2.0, 2.0**-126, 2.0**-140, 0.0], judge)
    units = [2.0**-23, 2.0**-23, 2.0**-22, *[2.0**-149] * 3]
    assert unit_of(magnitude, np.float32).astype(float).tolist() == units


def test_a_tally_keeps_the_worst():
    tally = Tally()
    for part in np.array_split(np.random.default_rng(0).permutation(1000.0 * np.arange(300)), 7):
        tally.add(part, (part,), part)
    assert tally.count == 300
    assert [p.error for p in tally.points] == [1000.0 * k for k in range(299, 275, -1)]


# -- seeded errors ---------------------------------------------------------------------------------


def off_by_one(body, low, high):
    """The body, with results of low < x < high moved to the next float away from 0."""

    def wrong(*args):
        y = body(*args)
        x = args[0]
        return select((low < x) & (x < high), bitcast(bitcast(y) + 1), y)

    return wrong


@pytest.fixture
def broken(monkeypatch):
    """broken(gate, body): the gate has that body until the test ends."""
    touched = []

    def apply(name, make):
        gate = registry()[name]
        touched.append((gate, gate.body))
        object.__setattr__(gate, "body", make(gate.body))
        gate._graphs.clear()

    yield apply
    for gate, body in reversed(touched):
        object.__setattr__(gate, "body", body)
        gate._graphs.clear()


@BOTH
def test_a_value_off_by_a_unit_is_reported(broken, dtype):
    before = measure_gate("exp", dtype, QUICK)
    assert before.ok
    broken("exp", lambda body: off_by_one(body, 1.0, 1.02))
    after = measure_gate("exp", dtype, QUICK)
    assert not after.ok and not after.outputs[0].ok
    assert 1.0 < after.outputs[0].worst < 2.0
    assert 1.0 < float(after.outputs[0].place) < 1.02


@BOTH
def test_a_value_off_by_six_tenths_of_a_unit_is_reported(dtype):
    """y (1 + 0.6 eps), rounded: exact results become up to 1.1 units wrong."""
    ty = DTYPES[dtype].numpy
    wide = LONG if dtype == "f64" else np.float64

    def sqrt(x):
        unit = unit_of(np.sqrt(x.astype(wide)), ty)
        return (np.sqrt(x.astype(wide)) + wide(0.6) * unit).astype(ty)

    judge = Judge(EXACT["sqrt"], ty)
    chunks = [(x[x > 0],) for (x,) in points.single(EXACT["sqrt"], (), ty, 3000, 1)]
    right, wrong = scan(judge, [subject(np.sqrt), subject(sqrt)], chunks)
    assert right[0].worst.error <= 0.5 < 1.05 < wrong[0].worst.error < 1.1001


@BOTH
def test_a_derivative_off_by_a_unit_is_reported(broken, dtype):
    """Below the contract's 4 units a derivative shows by what it is held to: what it was."""
    clean = measure_gate("erf", dtype, QUICK)
    budgets = [o.worst + 0.1 for o in clean.outputs]
    assert all(o.ok for o in measure_gate("erf", dtype, QUICK, budgets).outputs)
    broken("erf_partial", lambda body: off_by_one(body, 0.5, 2.0))
    after = measure_gate("erf", dtype, QUICK, budgets)
    assert after.outputs[0].ok and not after.outputs[1].ok
    assert after.outputs[1].worst >= clean.outputs[1].worst + 0.4


@BOTH
def test_a_wrong_partial_is_reported(broken, dtype):
    """A derivative that is wrong by a hundred thousandth breaks the contract."""
    broken("erf_partial", lambda body: lambda x: body(x) * 1.00001)
    report = measure_gate("erf", dtype, QUICK)
    assert report.outputs[0].ok and not report.outputs[1].ok and not report.ok


def test_what_the_interpreter_does_is_measured_too():
    effort = Effort(points=2000, stride=193 * 4001, lanes=False, csv=False, interpreter=True)
    compiled_ = Effort(points=2000, stride=193 * 4001, lanes=False, csv=False)
    for dtype in ("f64", "f32"):
        one, other = (measure_gate("log", dtype, e) for e in (effort, compiled_))
        assert one.outputs == other.outputs


# -- special values and lanes ----------------------------------------------------------------------


@BOTH
def test_special_values_of_a_wrong_table_are_faults(dtype):
    ty = DTYPES[dtype].numpy
    right = compiled(registry()["exp"], DTYPES[dtype], gradient=False)
    assert not list(table_faults(EXACT["exp"], 1, ty, right))
    wrong = Exact(EXACT["exp"].value, at="1 1 inf -0 nan")
    (fault,) = table_faults(wrong, 1, ty, right)
    assert fault == "at (-inf): 0.0, not -0.0"
    either = Exact(EXACT["exp"].value, at="1 1 inf ~0 nan")
    assert not list(table_faults(either, 1, ty, right))


def test_pairs_of_special_values_are_the_c_librarys():
    numpy = subject(np.power)
    with np.errstate(all="ignore"):
        found = list(table_faults(EXACT["power"], 2, np.float64, numpy))
    assert found == ["at (-inf, 0.5): nan, not inf"] or not found  # NumPy's deviation, where it is
    ours = compiled(registry()["power"], f64)
    assert not list(table_faults(EXACT["power"], 2, np.float64, ours))


@pytest.mark.parametrize("length, lane", [(1, 0), (5, 4), (16, 15), (67, 66)])
def test_a_result_that_depends_on_its_place_is_a_fault(length, lane):
    def placed(x):
        y = np.exp2(x)
        if x.size == length and x[lane] == 1.5:
            y[lane] = np.nextafter(y[lane], 0)
        return y

    (fault,) = lane_faults(EXACT["exp2"], 1, np.float64, subject(placed))
    assert f"position {lane} of {length}" in fault


@BOTH
@pytest.mark.parametrize("name", ["exp", "sin", "erf_partial", "maximum", "clip"])
def test_lanes_of_some_gates(name, dtype):
    gate = registry()[name]
    subject_ = compiled(gate, DTYPES[dtype])
    assert not list(lane_faults(EXACT[name], len(gate.params), DTYPES[dtype].numpy, subject_))


def test_special_arguments_cover_pairs():
    x, y = special_arguments(EXACT["power"], 2, np.float64)
    assert x.size == y.size >= 13**2
    assert np.isnan(x).any() and np.signbit(x[x == 0]).any()


def test_faults_of_nothing():
    nothing = Exact(lambda m, x: x)
    assert faults(nothing, 1, np.float64, subject(lambda x: x)) == []


# -- NumPy's validation sets -----------------------------------------------------------------------


def test_the_validation_sets_are_read():
    x, y = rows("sin", np.float64)
    assert x.size == y.size > 100 and x.dtype == np.float64
    assert rows("erf", np.float64) is None
    total = sum(
        found[0].size
        for path in Path(np.__file__).parent.glob("_core/tests/data/umath-*.csv")
        for dtype in (np.float32, np.float64)
        for found in [rows(path.stem.removeprefix("umath-validation-set-"), dtype)]
    )
    assert total > 20_000


def test_a_row_beyond_the_budget_is_found():
    count, bad = beyond("exp", np.float64, subject(np.exp), 1.0)
    assert count > 100 and not bad
    twice = subject(lambda x: np.nextafter(np.nextafter(np.exp(x), 0), 0))
    count, bad = beyond("exp", np.float64, twice, 1.0)
    assert len(bad) > count / 3


@BOTH
@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "sin", "cos"])
def test_gates_on_numpys_rows(name, dtype):
    ty = DTYPES[dtype]
    count, bad = beyond(name, ty.numpy, compiled(registry()[name], ty), registry()[name].ulp)
    assert count and not bad


# -- points ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_points_cover_exponents_and_breakpoints(dtype):
    exact, info = EXACT["tanh"], np.finfo(dtype)
    (x,) = map(np.concatenate, zip(*points.single(exact, (9.5,), dtype, 60_000, 1)))
    exponents = np.unique(np.frexp(x[np.isfinite(x) & (x != 0)])[1])
    assert exponents.size >= (info.maxexp - info.minexp) * 0.99
    for b in (*exact.breaks, 9.5):
        near = np.nextafter(dtype(b), dtype(np.inf))
        assert (x == dtype(b)).any() and (x == near).any()
    again = np.concatenate([c[0] for c in points.single(exact, (9.5,), dtype, 60_000, 1)])
    assert np.array_equal(x, again, equal_nan=True)


def test_a_sweep_reaches_every_pattern():
    first = np.concatenate([c[0] for c in points.sweep(np.float32, 1, 0, 200_000)])
    assert np.array_equal(first.view(np.uint32), np.arange(200_000))
    sparse = np.concatenate([c[0] for c in points.sweep(np.float32, 1 << 20)])
    assert np.array_equal(sparse.view(np.uint32), np.arange(1 << 12, dtype=np.uint32) << 20)


# -- gates, peers, and what is written -------------------------------------------------------------


def test_every_gate_has_an_entry():
    assert set(gates_to_judge()) <= {g.name for g in judged_gates()}


def test_a_gate_without_an_entry_is_named(monkeypatch):
    monkeypatch.delitem(EXACT, "log1p")
    with pytest.raises(GateError, match="log1p: .*exact.py"):
        gates_to_judge()
    with pytest.raises(GateError, match="'where'"):
        gates_to_judge(["where"])


def test_a_partial_without_an_entry_is_its_gates_derivative():
    derived, x = exact_of("log_sigmoid_partial"), np.array([0.0])
    from graphc.selftest.arithmetic import Bulk

    assert derived.value(Bulk(np.float64), x) == 0.5 and derived.partials == (None,)
    assert exact_of("nothing_partial") is None


def test_a_gate_that_does_not_compile_is_a_fault(broken):
    broken("log", lambda body: lambda x: 1 / 0)
    (report,) = run.measure_all(["log"], ["f64"], QUICK, 1)
    assert not report.ok and report.faults == ("ZeroDivisionError: division by zero",)


def test_numpy_is_measured_on_the_same_points():
    peer = numpy_peer("exp")
    assert peer.run(np.array([0.0]))[0] == 1
    assert numpy_peer("softplus") is None
    report = measure_gate("exp", "f64", Effort(points=3000, lanes=False, csv=False, peers=False))
    assert not report.outputs[0].peers


def test_jax_is_measured_with_its_derivatives():
    pytest.importorskip("jax")
    peer = jax_peer("tanh", 1)
    value, slope = peer.run(np.array([0.5]))
    assert value.dtype == np.float64 and slope[0] == pytest.approx(1 / math.cosh(0.5) ** 2)
    assert jax_peer("tanh_partial", 1) is None


@pytest.fixture(scope="module")
def reports():
    effort = Effort(points=2000, stride=193 * 4001, lanes=False, csv=False, sample=5)
    return run.measure_all(["exp", "power"], ["f64", "f32"], effort, 1)


def test_reports_as_json(reports):
    found = json.loads(as_json(reports))
    assert [(r["gate"], r["dtype"]) for r in found][:2] == [("exp", "f64"), ("exp", "f32")]
    assert found[0]["outputs"][0]["budget"] == 1.0


def test_the_page_gets_its_table(reports, tmp_path):
    page = tmp_path / "numerics.md"
    page.write_text("# Numbers\n\nText.\n")
    write_page(page, reports)
    text = page.read_text()
    assert text.startswith("# Numbers\n\nText.\n") and "## Measured errors" in text
    assert text.count(BEGIN) == text.count(END) == 1
    write_page(page, reports)
    assert page.read_text() == text
    assert markdown(reports).splitlines()[2].startswith("| `exp` | 0.")


def test_the_command(tmp_path, capsys):
    arguments = ["--ulp", "--gates", "exp", "--points", "2000", "--stride", "1000003"]
    assert main([*arguments, "--json", str(tmp_path / "r.json")]) == 0
    assert "1 gates, 2 of 2 reports within their budgets" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())[0]["ok"]
    assert main(["--gates", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err


def test_a_budget_that_is_exceeded_is_exit_status_1(broken, capsys):
    broken("exp", lambda body: off_by_one(body, 1.0, 1.02))
    arguments = ["--ulp", "--gates", "exp", "--points", "20000", "--stride", "193007"]
    assert main(arguments) == 1
    assert "exp f64: value is off by 1." in capsys.readouterr().out


def test_processes_share_the_work():
    code = (
        "from graphc.selftest.__main__ import main\n"
        "if __name__ == '__main__':\n"
        "    raise SystemExit(main(['--gates', 'abs', 'neg', '--points', '2000', '--stride',"
        " '1000003', '--jobs', '2']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "4 of 4" in done.stdout, done.stderr


def test_a_long_scan_keeps_few_points(monkeypatch):
    """All of f32 is tens of thousands of chunks: what is drawn from them is thinned on the way."""
    from graphc.selftest import measure

    alive = []

    def look(judge, output, tally, more):
        alive.append(sum(isinstance(o, measure.Point) for o in gc.get_objects()))

    monkeypatch.setattr(measure, "_rejudge", look)
    x = np.linspace(0.1, 2, 64, dtype=np.float32)
    scan(Judge(EXACT["exp"], np.float32), [subject(np.exp, np.exp)], [(x,)] * 3000, sample=100)
    assert max(alive) < 1500
