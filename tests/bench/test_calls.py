"""The rows of `bench --calls`: right numbers, and native code that serves every one of them."""

import timeit

import pytest

from bench import callers, calls


@pytest.fixture(scope="module")
def ours():
    return callers.surroundings("graphc")


def test_the_numbers_are_right(ours):
    callers.checked(ours)
    callers.checked(callers.surroundings("numpy"))
    with pytest.raises(AssertionError):
        callers.checked({**ours, "f": lambda x, y: (0.0, (x, y))})


@pytest.mark.parametrize("row", calls.ROWS, ids=lambda row: row.name)
def test_native_code_serves_every_row(ours, row):
    timer = timeit.Timer(row.statement, globals=ours)
    timer.timeit(3)
    before = callers.slow_calls(ours)
    timer.timeit(3)
    assert callers.slow_calls(ours) == before and all(n in ours for n in row.needs)


def test_targets_and_cells():
    bound, first = calls.ROWS[4], calls.ROWS[0]
    results = calls.Results({"graphc": {first.name: 0.5, bound.name: 0.2}}, {first.name: 3e-7})
    assert results.target(first) == 1.0 and results.target(bound) is None
    results.ratios["casadi"] = {bound.name: 0.3}
    results.ratios["jax"] = {}
    assert results.target(bound) == 0.3
    assert calls.columns(results)[4:] == ["jax", "casadi"]
    assert calls.cells(results, first) == [first.name, "300", "0.50", "1.00", "", ""]
    assert calls.cells(results, bound)[2:] == ["0.20", "0.30", "", "0.30"]
    results.absent["torch"] = "No module"
    assert "had to serve: 0. Absent: torch (No module)." in calls.note(results)
