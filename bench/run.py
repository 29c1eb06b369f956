"""Measure: graphc and NumPy in turns, medians, after both have been seen to agree."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import graphc
from bench import limits
from bench.cases import CASES, Case
from graphc.dsl.tree import flatten

Thunk = Callable[[], Any]


@dataclass(frozen=True)
class Result:
    """Medians, in seconds."""

    name: str
    bytes: int  # of the arguments and the results
    value: float
    numpy_value: float
    gradient: float  # value and gradient
    numpy_gradient: float
    copy: float  # of as many bytes
    compile: float  # the first call of value_and_grad
    largest_error: float  # between the two sides, relative to the largest element
    limited_by: str

    @property
    def value_ratio(self) -> float:
        return self.numpy_value / self.value

    @property
    def gradient_ratio(self) -> float:
        return self.numpy_gradient / self.gradient

    @property
    def gradient_cost(self) -> float:
        """What value and gradient together cost, in values."""
        return self.gradient / self.value

    @property
    def copy_share(self) -> float:
        """The part of the time in which memory could have been copied."""
        return self.copy / self.gradient


def medians(thunks: Sequence[Thunk], seconds: float) -> list[float]:
    """The median seconds of each call, measured in turns."""
    repeats = [max(1, int(1e-3 / _once(f, 1))) for f in thunks]
    samples: list[list[float]] = [[] for _ in thunks]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples[0]) < 5:
        for f, repeat, kept in zip(thunks, repeats, samples):
            kept.append(_once(f, repeat))
    return [float(np.median(kept)) for kept in samples]


def _once(f: Thunk, repeat: int) -> float:
    f()
    began = time.perf_counter()
    for _ in range(repeat):
        f()
    return (time.perf_counter() - began) / repeat


def run_all(cases: Sequence[Case], seconds: float) -> list[Result]:
    keep_memory()
    results = []
    with progress() as show:
        for case in cases:
            show(case.name)
            results.append(run(case, seconds))
    return results


def keep_memory() -> None:
    """Let the C library keep freed memory, as it does in programs that have run for a while.

    glibc maps fresh pages for large arrays until it has seen one freed; before that, both sides,
    and NumPy with its many arrays most, mainly measure the kernel clearing pages.
    """
    np.ones(31 * 2**20, np.uint8)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("")
        yield lambda name: progress.update(task, description=name)


def run(case: Case, seconds: float) -> Result:
    args = case.data(np.random.default_rng(0), case.n)
    kernels = graphc.compile(case.graph, wrt=case.wrt)
    began = time.perf_counter()
    outputs = kernels.value_and_grad(*args)
    compile_seconds = time.perf_counter() - began
    error = check(case, kernels, args)
    size = sum(np.asarray(a).nbytes for a in flatten((args, outputs))[0])
    thunks = [
        lambda: kernels(*args),
        lambda: case.value(*args),
        lambda: kernels.value_and_grad(*args),
        lambda: case.gradient(*args),
        _copying(size),
    ]
    times = medians(thunks, seconds)
    why = limits.limited_by(case, kernels, times[2], times[4], size)
    return Result(case.name, size, *times, compile_seconds, error, why)


def check(case: Case, kernels: Any, args: Sequence[Any]) -> float:
    """The largest relative difference between the two sides; too large a one is an error."""
    ours = flatten([kernels(*args), kernels.value_and_grad(*args)])[0]
    theirs = flatten([case.value(*args), case.gradient(*args)])[0]
    worst = max(_apart(a, b) for a, b in zip(ours, theirs, strict=True))
    if not worst <= case.rtol:
        raise AssertionError(f"{case.name}: graphc and NumPy are {worst:.1e} apart")
    return worst


def _apart(a: Any, b: Any) -> float:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300))


def _copying(size: int) -> Thunk:
    """Copy half as many bytes: as many are then read and written."""
    source = np.ones(max(size // 2, 1), np.uint8)
    target = np.zeros_like(source)
    return lambda: np.copyto(target, source)


def against_sum(seconds: float) -> tuple[float, float]:
    """Seconds of value and gradient of the large logistic regression, and of a sum of its X."""
    case = next(c for c in CASES if c.name == "logistic 100000x50")
    X, *others = case.data(np.random.default_rng(0), case.n)
    kernels = graphc.compile(case.graph, wrt=case.wrt)

    @graphc.graph
    def total(X: graphc.f64["n", 50]):
        return X.sum()

    plain = graphc.compile(total)
    loss, sums = medians([lambda: kernels.value_and_grad(X, *others), lambda: plain(X)], seconds)
    return loss, sums
