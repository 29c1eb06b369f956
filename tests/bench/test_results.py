"""The bookkeeping of the benchmarks: who is best, ratios, JSON. No test here measures anything."""

import json
from dataclasses import replace

import pytest

from bench import contestants, plots, report
from bench.measure import Turn, in_turn
from bench.results import Row, Run, mean, scaling, summary


def row(name="logistic", group="rows", **more):
    seconds = {
        "graphc": {"gradient": 2.0, "value": 1.0, "bound": 1.5},
        "graphc-1": {"gradient": 3.0},
        "numpy": {"gradient": 10.0, "value": 4.0},
        "jax": {"gradient": 9.0, "ahead": 5.0},
        "torch": {"gradient": 6.0},
        "casadi": {"gradient": 8.0, "bound": 3.0},
        "numba": {"bound": 1.0, "parallel": 0.5},
    }
    return Row(name, group, 1000, seconds | more.pop("seconds", {}), **more)


def test_the_best_peer_is_the_fastest_of_those_judged_in_a_plain_call():
    best = row().best()
    assert (best.contestant, best.way, best.seconds) == ("jax", "ahead", 5.0)
    assert row().peer_ratio == 2.5


def test_bound_buffers_are_held_against_bound_buffers():
    assert row().best(("bound",)).contestant == "casadi"  # Numba's loops are no peer
    assert row().bound_ratio == 2.0


def test_other_ratios():
    r = row(predicted=1.5)
    assert r.numpy_ratio == 5.0
    assert r.numba_share == 3.0
    assert r.gradient_cost == 2.0
    assert r.thread_gain == 1.5
    assert r.prediction_error == 0.25


def test_errors_of_predictions_at_other_sizes_are_summed_up_apart():
    r = row(predicted=1.5, elsewhere={"3": [1.0, 2.0], "21": [1.1, 1.0]})
    assert r.errors_elsewhere == pytest.approx([0.5, 0.1])
    found = summary([r, Row("x", "rows", 1, {})])
    assert (found["prediction_error"], found["error_elsewhere"]) == pytest.approx((0.25, 0.3))
    line = "At sizes that no row has, 0.37 and 2.7 times as large, it is 30% off (median)."
    assert line in report.summary_lines(Run("", 2, rows=[r]))
    assert report.limit_text(r).endswith("(predicted within 25%, 50%, 10%)")


def test_ratios_are_none_where_a_side_is_missing():
    r = Row("x", "rows", 1, {"numpy": {"gradient": 1.0}})
    assert (r.peer_ratio, r.bound_ratio, r.numpy_ratio, r.gradient_cost) == (None,) * 4
    assert r.best() is None


def test_rows_that_products_bind_are_summed_up_apart():
    slow = row("training step", "products", seconds={"graphc": {"gradient": 10.0}})
    found = summary([row(), row("other", seconds={"graphc": {"gradient": 0.5}}), slow])
    assert found["peer_ratio"] == pytest.approx(5.0)  # of 2.5 and 10
    assert found["peer_ratio_least"] == 2.5
    assert found["products_ratio"] == 0.5


def test_means_leave_out_what_is_not_there():
    assert mean([2.0, None, 8.0]) == pytest.approx(4.0)
    assert mean([None]) is None


def test_scaling_is_against_the_slower_of_the_small_row_and_a_copy():
    small = Row("tanh wave 1e4 f64", "rows", 1, {"graphc": {"gradient": 1e-5}})
    large = Row("tanh wave 1e6 f64", "rows", 1, {"graphc": {"gradient": 3e-3}}, copy=2e-3)
    assert scaling([small, large]) == {"tanh wave f64": pytest.approx(1.5)}
    assert scaling([large]) == {}


def test_json_has_seconds_ratios_and_who_was_away(tmp_path):
    path = tmp_path / "out" / "results.json"
    r = row(without={"torch-compile": "no answer in 60 s"}, same_bits=True)
    run = Run("a machine", 2, {"jax": "JAX 1"}, {"numba": "not here"}, [r], 3e6)
    report.save(str(path), run)
    found = json.loads(path.read_text())
    assert found["absent"] == {"numba": "not here"}
    kept = found["rows"][0]
    assert kept["seconds"]["jax"]["ahead"] == 5.0
    assert kept["best"] == {"contestant": "jax", "way": "ahead", "seconds": 5.0}
    assert kept["peer_ratio"] == 2.5
    assert kept["without"]["torch-compile"] == "no answer in 60 s"
    assert report.load(str(path)) == run


def test_who_failed_is_named_with_the_reason():
    r = row(without={"casadi": "too wide"}, notes={"jax": ["ahead is 1.0e+00 from NumPy"]})
    lines = report.absences(Run("", 2, absent={"numba": "ModuleNotFoundError"}, rows=[r]))
    assert lines == [
        "Numba, by hand took no part: ModuleNotFoundError",
        "CasADi: too wide: logistic",
        "JAX: ahead is 1.0e+00 from NumPy: logistic",
    ]


def test_the_gain_of_threads_stands_beside_that_of_processes_that_share_nothing():
    r = row("100,000 cameras")
    lines = report.summary_lines(Run("", 2, rows=[r], ceiling=1.98))
    assert (
        "One thread's time over two's, where computing binds: 1.50; with nothing shared, 1.98."
        in lines
    )


def test_each_way_of_a_contestant_comes_first_in_turn():
    turns = [Turn("jax", "ahead", 1.0), Turn("jax", "gradient", 1.0), Turn("numba", "bound", 1.0)]
    rounds = [[t.way for t in in_turn(turns, count)] for count in range(3)]
    assert rounds == [
        ["ahead", "gradient", "bound"],
        ["gradient", "ahead", "bound"],
        ["ahead", "gradient", "bound"],
    ]


def test_the_table_has_a_cell_for_each_column():
    assert len(report.cells(row())) == len(report.COLUMNS)
    assert len(report.cells(Row("x", "rows", 1, {}))) == len(report.COLUMNS)
    assert len(report.memory_cells(row(memory={"graphc": 1e6}))) == len(report.MEMORY)


def test_peers_are_chosen_by_name_or_by_module():
    names = [c.name for c in contestants.chosen("jax-sync,torch")]
    assert names == [*contestants.OURS, "jax-sync", "torch", "torch-compile", "torch-func"]
    assert [c.name for c in contestants.chosen("none")] == list(contestants.OURS)
    with pytest.raises(SystemExit, match="no peer theano"):
        contestants.chosen("theano")


def test_tables_and_pictures_of_what_was_saved(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    r = row(limit="memory", limit_share=0.5, memory={"graphc": 2e6, "numpy": 3e6, "jax": 4e6})
    rows = [r, replace(r, name="training step", group="products", bytes=2_000_000)]
    run = Run("a machine", 2, {"jax": "JAX 1"}, {}, rows, 3e6)
    report.print_markdown(run)
    report.print_table(run)
    printed = capsys.readouterr().out
    assert printed.count("memory [50%]") == 4
    assert "a machine; JAX 1" in printed
    pictures = plots.draw(str(tmp_path), rows)
    assert [path.name for path in pictures] == ["bench.svg", "bench-memory.svg"]
    assert all("training step" in path.read_text() for path in pictures)


def test_pictures_hold_plain_calls_against_plain_calls():
    assert plots.compared(row(), "casadi") == 4.0  # not its call with bound buffers
    assert plots.compared(row(), "numba") == pytest.approx(1 / 3)  # bound buffers on both sides
    assert plots.compared(row(), "pytensor") is None
