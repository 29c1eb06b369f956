"""One gate, one dtype: everything that is measured of it, against its budgets.

In:   a gate's name, a dtype's name, how much to do (`Effort`).
Out:  a `Report`: worst errors of the value and of each partial, the faults found, the verdict.
Invariant: a report is plain data, so that processes can share the work; the same effort gives the
same report.

>>> report = measure_gate("exp", "f64", Effort(points=2000))
>>> report.ok, report.outputs[0].budget
(True, 1.0)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.errors import GateError
from graphc.gates.elementwise import Elementwise
from graphc.gates.gate import registry
from graphc.ir.types import DTYPES
from graphc.selftest import points
from graphc.selftest.exact import Exact, exact_of
from graphc.selftest.lanes import faults
from graphc.selftest.measure import SLACK, Judge, Tally, scan
from graphc.selftest.subjects import (
    Subject,
    compiled,
    inner_gates,
    interpreted,
    jax_peer,
    judged_gates,
    numpy_peer,
)
from graphc.selftest.validation import beyond

DERIVATIVE_BUDGET = 4.0  # contract, line 3
FULL_POINTS = 100_000_000  # of f64, and of pairs
PART = 500_000  # points between two looks at the breakpoints
GAP = 0.05  # the judges' difference from which on a report says so


@dataclass(frozen=True)
class Effort:
    """How much is tried."""

    points: int = 500_000  # arguments of f64; pairs of either dtype
    stride: int = 193  # of the patterns of f32
    sample: int = 100  # random points for mpmath, besides the worst
    slow_points: int = 60_000  # where the judge is slow
    slow_stride: int = 1931
    interpreter: bool = False
    peers: bool = False
    csv: bool = True
    lanes: bool = True

    @staticmethod
    def full(**others: Any) -> Effort:
        return Effort(FULL_POINTS, 1, 2000, 10_000_000, 1, **others)


@dataclass(frozen=True)
class Output:
    """The value of a gate, or one of its partials: its worst error, and where."""

    name: str
    worst: float
    place: str
    budget: float | None  # None: reported only
    slack: float
    count: int
    gap: float
    peers: dict[str, tuple[float, str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.budget is None or self.worst <= self.budget + self.slack


@dataclass(frozen=True)
class Report:
    """What was found of one gate in one dtype."""

    gate: str
    dtype: str
    outputs: tuple[Output, ...]
    faults: tuple[str, ...]  # of special values and lanes
    rows: int  # of NumPy's validation set
    beyond: tuple[str, ...]  # those of them that are beyond the budget
    seconds: float

    @property
    def ok(self) -> bool:
        return all(o.ok for o in self.outputs) and not self.faults and not self.beyond


def gates_to_judge(names: Sequence[str] = ()) -> list[str]:
    """The gates that are asked for, or all; a GateError names one that has no `Exact`."""
    known = [g.name for g in judged_gates()]
    for name in names:
        if name not in known:
            raise GateError(f"there is no elementwise gate of floats {name!r} with a budget")
    chosen = [n for n in known if not names or n in names]
    unknown = {n for n in chosen if exact_of(n) is None}
    if unknown and not names:  # what a body calls, its caller answers for
        inner = inner_gates()
        unknown -= inner
        chosen = [n for n in chosen if exact_of(n) is not None or n not in inner]
    if unknown:
        raise GateError(
            f"{', '.join(sorted(unknown))}: a budget in ULP, but no entry in "
            "graphc/selftest/exact.py that says what is computed"
        )
    return chosen


def measure_gate(
    name: str, dtype: str, effort: Effort, budgets: Sequence[float | None] | None = None
) -> Report:
    """Judge a gate. `budgets` of the value and each partial, in place of the contract's."""
    started = time.perf_counter()
    gate: Any = registry()[name]
    exact, ty = exact_of(name), DTYPES[dtype]
    assert exact is not None, name
    make = interpreted if effort.interpreter else compiled
    subjects = [make(gate, ty), *(_peers(gate) if effort.peers else [])]
    judge = Judge(exact, ty.numpy)
    chunks = _chunks(gate, exact, ty.numpy, effort)
    tallies = scan(judge, subjects, chunks, effort.sample)
    allowed = _budgets(gate, exact) if budgets is None else budgets
    outputs = tuple(
        _output(("value", *gate.params)[i], i, subjects, tallies, allowed[i], ty.numpy)
        for i, _ in enumerate(tallies[0])
        if tallies[0][i].count
    )
    wrong = faults(exact, len(gate.params), ty.numpy, subjects[0]) if effort.lanes else ()
    rows, bad = 0, list[str]()
    if effort.csv and len(gate.params) == 1:
        rows, bad = beyond(name, ty.numpy, subjects[0], gate.ulp)
    seconds = time.perf_counter() - started
    return Report(name, dtype, outputs, tuple(wrong), rows, tuple(bad), seconds)


def _peers(gate: Elementwise) -> list[Subject]:
    found = (numpy_peer(gate.name), jax_peer(gate.name, len(gate.params)))
    return [p for p in found if p is not None]


def _budgets(gate: Elementwise, exact: Exact) -> list[float | None]:
    """The record's, then the contract's for derivatives; none for second derivatives."""
    partials = None if exact.higher else DERIVATIVE_BUDGET
    return [gate.ulp, *[partials] * len(exact.partials)]


def _output(
    name: str, i: int, subjects: Sequence[Subject], tallies: Sequence[Sequence[Tally]],
    budget: float | None, dtype: Any,
) -> Output:  # fmt: skip
    ours = tallies[0][i]
    worst, place = _worst(ours)
    peers = {
        s.name: _worst(t[i]) for s, t in zip(subjects[1:], tallies[1:], strict=True) if t[i].count
    }
    return Output(name, worst, place, budget, SLACK[dtype], ours.count, ours.gap, peers)


def _worst(tally: Tally) -> tuple[float, str]:
    return (tally.worst.error, tally.worst.place) if tally.worst else (0.0, "")


def _chunks(
    gate: Elementwise, exact: Exact, dtype: Any, effort: Effort
) -> Iterator[tuple[np.ndarray, ...]]:
    count = effort.slow_points if exact.slow else effort.points
    arity = len(gate.params)
    if arity > 1:
        yield from points.several(exact, gate.edges, arity, dtype, count, seed=7)
        return
    if dtype == np.float32:
        yield from points.single(exact, gate.edges, dtype, min(count, PART), seed=7)
        yield from points.sweep(dtype, effort.slow_stride if exact.slow else effort.stride)
        return
    for i, start in enumerate(range(0, count, PART)):
        yield from points.single(exact, gate.edges, dtype, min(count - start, PART), seed=7 + i)


def measure_all(
    names: Sequence[str], dtypes: Sequence[str], effort: Effort, jobs: int,
    done: Callable[[Report], None] = lambda report: None,
) -> list[Report]:  # fmt: skip
    """All reports, in the order of the names; whatever the number of processes."""
    tasks = [(name, dtype) for name in names for dtype in dtypes]
    found: dict[tuple[str, str], Report] = {}
    if jobs <= 1:
        for name, dtype in tasks:
            found[name, dtype] = report = _caught(name, dtype, effort)
            done(report)
        return [found[t] for t in tasks]
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = {pool.submit(_caught, *task, effort): task for task in tasks}
        for future in as_completed(waiting):
            found[waiting[future]] = report = future.result()
            done(report)
    return [found[t] for t in tasks]


def _caught(name: str, dtype: str, effort: Effort) -> Report:
    """A gate that cannot be compiled or run is a fault of its own, and stops no other."""
    try:
        return measure_gate(name, dtype, effort)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        return Report(name, dtype, (), (said,), 0, (), 0.0)
