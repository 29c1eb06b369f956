"""What a workload's time is made of: the call, memory, transcendental gates, matrix products.

All of it is measured in graphc's own process, with its threads.

Each part is predicted from something measured on this machine: the same graph on two rows of data,
a copy of as many bytes, each gate alone on data in cache, a matrix product of the compiler's own
kernel. How often a gate is called is counted in the loop IR. The largest part is what limits the
workload; where none is large, it is all the operations of the loops: where they run in lanes, one
takes some hundredths of a nanosecond; one after the other, some tenths.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np

import graphc
from bench.cases.case import Case, nbytes
from graphc.gates.gate import registry
from graphc.ir.types import DTYPES, DType, evaluate
from graphc.lower.loops import Add, Contract, Let, Load, Program, Scatter, Store, walk
from graphc.lower.work import works

LARGE = 0.4  # a part from which on it is named as the limit
OUTSIDE = 1e5  # bytes that a cache next to the core does not hold; copies of less are all call


@dataclass(frozen=True)
class Limit:
    """What limits a workload, and which share of its time that explains."""

    share: float
    sentence: str


def limited_by(
    case: Case, program: Program, both: Callable[..., Any], seconds: float, copy: float
) -> Limit:
    """One sentence on what the time of value and gradient is spent on."""
    size = moved(case)
    memory = f"memory: {_bytes(size)} in and out, at {copy / seconds:.0%} of copy speed"
    parts = [
        _call(case, both, seconds),
        (copy / seconds if size >= OUTSIDE else 0.0, memory),
        _gates(program, case.n, seconds),
        _products(program, case.n, seconds),
    ]
    share, sentence = max(parts)
    if share >= LARGE:
        return Limit(share, sentence)
    count = operations(program, case.n)
    return Limit(
        share,
        f"the loops: {count:,} operations at {seconds / count * 1e9:.2f} ns; {_known(parts)}",
    )


def moved(case: Case) -> int:
    """Bytes of the arguments and of the gradients."""
    args = case.arguments()
    return nbytes(args, [args[i] for i in case.positions])


def _known(parts: list[tuple[float, str]]) -> str:
    names = ("the call", "memory", "gates", "matrix products")
    known = [f"{name} {share:.0%}" for name, (share, _) in zip(names, parts) if share >= 0.05]
    return f"of it {', '.join(known)}" if known else "no other part is large"


def _call(case: Case, both: Callable[..., Any], seconds: float) -> tuple[float, str]:
    args = case.arguments(2)
    least = median(lambda: both(*args))
    return min(
        least / seconds, 1.0
    ), f"the call: {least * 1e6:.0f} of {seconds * 1e6:.0f} us, whatever n"


def _gates(program: Program, n: int, seconds: float) -> tuple[float, str]:
    counts = gate_calls(program, n)
    costs = {key: count * gate_seconds(*key) for key, count in counts.items()}
    total, calls = sum(costs.values()), sum(counts.values())
    if not calls:
        return 0.0, ""
    names = ", ".join(dict.fromkeys(name for name, _ in sorted(costs, key=costs.get, reverse=True)))
    each = total / calls * 1e9
    share = min(total / seconds, 1.0)
    return share, f"{names}: {calls:,} calls at {each:.2f} ns are {share:.0%} of the time"


def _products(program: Program, n: int, seconds: float) -> tuple[float, str]:
    flops = product_flops(program, n)
    if not flops:
        return 0.0, ""
    least = sum(count / product_speed(dtype) for dtype, count in flops.items())
    share, total = min(least / seconds, 1.0), sum(flops.values())
    return share, (
        f"matrix products: {total / 1e6:.1f} MFLOP are {share:.0%} of the time "
        f"at the kernel's best, {total / least / 1e9:.0f} GFLOP/s"
    )


# -- counting -------------------------------------------------------------------------------------


def gate_calls(program: Program, n: int) -> Counter[tuple[str, DType]]:
    """How often each gate that is a function of its own is called, by name and dtype."""
    counts: Counter[tuple[str, DType]] = Counter()
    for work in works(program, {"n": n}):
        for name, count in work.operations().items():
            words = name.removeprefix("scalar ").split()
            if words[0] == "call":
                counts[words[1], DTYPES[words[-1]]] += count
    return counts


def operations(program: Program, n: int) -> int:
    """Loads, stores and arithmetic of one element each, calls of gates counted as one."""
    return sum(
        prod(evaluate(f.size, {"n": n}) for f in loops)
        for kernel in program.kernels
        for s, loops in walk(kernel.body)
        if isinstance(s, (Load, Store, Add, Scatter)) or (isinstance(s, Let) and s.op != "const")
    )


def product_flops(program: Program, n: int) -> Counter[DType]:
    """Operations in matrix products that are calls."""
    counts: Counter[DType] = Counter()
    for kernel in program.kernels:
        for s, _ in walk(kernel.body):
            if isinstance(s, Contract):
                counts[s.dtype] += 2 * prod(evaluate(size, {"n": n}) for _, size in s.sizes)
    return counts


# -- measuring ------------------------------------------------------------------------------------


@cache
def gate_seconds(name: str, dtype: DType) -> float:
    """Seconds per element of a gate alone, on data in cache, without the call."""
    gate = registry()[name]
    g = graphc.Graph(name)
    operands = [g.input(f"x{i}", dtype["n"]) for i in range(len(gate.params))]
    g.output("y", gate(*operands))
    kernel = graphc.compile(g)
    low, high = getattr(gate, "domain", (-4.0, 4.0))
    times = {}
    for n in (64, 16384):
        data = [
            np.random.default_rng(0).uniform(low, high, n).astype(dtype.numpy) for _ in operands
        ]
        times[n] = median(lambda data=data: kernel(*data))
    return max(times[16384] - times[64], 0.0) / (16384 - 64)


@cache
def product_speed(dtype: DType) -> float:
    """FLOP/s of a matrix product in cache, in the compiler's own kernel."""

    @graphc.graph
    def product(a: dtype["n", 256], b: dtype[256, 256]):
        return a @ b

    kernel = graphc.compile(product, deterministic=True)
    a, b = np.random.default_rng(0).normal(size=(2, 256, 256)).astype(dtype.numpy)
    return 2 * 256**3 / median(lambda: kernel(a, b))


def copying(size: int) -> Callable[[], None]:
    """Copy half as many bytes: as many are then read and written."""
    source = np.ones(max(size // 2, 1), np.uint8)
    target = np.zeros_like(source)
    return lambda: np.copyto(target, source)


def median(f: Callable[[], Any], seconds: float = 0.1) -> float:
    f()
    samples = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        f()
        samples.append(time.perf_counter() - began)
    return float(np.median(samples))


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
