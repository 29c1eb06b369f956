"""Every workload at a small size: graphc agrees with NumPy and its gradient by hand."""

import subprocess
import time

import numpy as np
import pytest

from bench import contestants
from bench.cases import CASES, named
from bench.cases.case import dtype_and_shape, leaves
from bench.contestants import graphc as ours
from bench.contestants.contestant import done_within
from bench.worker import Worker, apart

TOLERANCE = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-9}
SMALL = {case.family: case for case in CASES}  # one of each family, the last: its sizes are enough
F32 = [
    case
    for case in CASES
    if "f32" in case.name and case.name not in {c.name for c in SMALL.values()}
]


@pytest.mark.parametrize("case", [*SMALL.values(), *F32[:2]], ids=lambda case: case.name)
def test_graphc_agrees_with_numpy(case):
    args = case.arguments(case.small)
    value, both = ours.compiled(case)
    found, expected = (
        [value(*args), *leaves(both(*args))],
        [case.value(*args), *case.expected(args)],
    )
    for a, b in zip(found, expected, strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert apart(a, b) <= TOLERANCE[np.asarray(b).dtype]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_arguments_have_the_types_that_are_declared(case):
    args = case.arguments(case.small)
    types = leaves(list(case.types.values()))
    assert len(leaves(list(args))) == len(types)
    for array, text in zip(leaves(list(args)), types):
        dtype, shape = dtype_and_shape(text)
        sizes = tuple(case.small if size == "n" else size for size in shape)
        assert (np.asarray(array).dtype.str[1:], np.shape(array)) == (KIND[dtype], sizes)


KIND = {"f32": "f4", "f64": "f8", "i64": "i8"}


def test_other_sizes_are_those_of_no_row():
    for case in CASES:
        taken = {other.n for other in CASES if other.family == case.family}
        assert not taken & set(case.other_sizes)
        assert all(n % 2 for n in case.other_sizes)


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(named(case.name) is case for case in CASES)


def test_a_wrong_result_is_seen(monkeypatch):
    """A contestant that differs from NumPy gets no time."""
    worker = Worker(contestants.named("numpy"), 1)
    worker.start()
    case = named("Rosenbrock n=2")
    assert worker.enter(case.name)["ways"]["gradient"]["error"] == 0.0
    enter = worker.module.enter
    monkeypatch.setattr(
        worker.module, "enter", lambda c, args, setting: enter(c, (args[0] + 1e-6,), setting)
    )
    answer = worker.answer({"do": "enter", "case": case.name})
    assert "from NumPy" in answer["failed"]


def test_a_process_answers_is_frozen_and_may_die():
    from bench.processes import Process

    process = Process(contestants.named("numpy"), 1)
    try:
        assert process.start()["versions"].startswith("NumPy")
        assert "gradient" in process.ask({"do": "enter", "case": "Rosenbrock n=2"})["ways"]
        assert process.ask({"do": "time", "way": "gradient", "calls": 2})["seconds"] > 0
        assert process.ask({"do": "time", "way": "nothing", "calls": 1})["failed"]
        assert process.ask({"do": "memory", "case": "pairwise energy n=2000"})["memory"] > 90e6
        late = process.ask({"do": "enter", "case": "pairwise energy n=2000"}, limit=0.01)
        assert late == {"failed": "no answer in 0 s"}
    finally:
        process.stop()


def test_a_command_that_takes_too_long_leaves_nothing_running(tmp_path):
    """gcc's compiler went on for minutes, beside the workloads that were measured then."""
    said = tmp_path / "said"
    child = f"sleep 0.7; touch {said}"
    assert not done_within(0.2, ["bash", "-c", f"({child}) & wait"])
    time.sleep(1.0)
    assert not said.exists()
    assert done_within(20, ["true"])
    with pytest.raises(subprocess.CalledProcessError):
        done_within(20, ["false"])
