"""What graphc's compilations take and keep as graphs grow: `python -m bench.growth` prints JSON."""

import gc
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphc
import graphc.numpy as gnp
from bench import compilers
from graphc.ir.graph import Builder, Graph
from graphc.ir.types import f64
from graphc.pipeline import Options, run_stages

README = {
    "neuron": (
        lambda x, w, b: graphc.sigmoid(x @ w + b).sum(),
        (graphc.f64["n", 3], graphc.f64[3], graphc.f64),
        ("w", "b"),
    ),
    "logistic regression": (
        lambda x, w, b: (graphc.softplus(x @ w) - b * (x @ w)).mean(),
        (graphc.f64["n", 50], graphc.f64[50], graphc.f64["n"]),
        ("w",),
    ),
    "softmax": (
        lambda x, w, b: (gnp.log(gnp.exp(x @ w + b).sum(axis=1))).mean(),
        (graphc.f64["n", 8], graphc.f64[8, 10], graphc.f64[10]),
        ("w", "b"),
    ),
    "pairwise energy": (
        lambda x, w, b: (w / gnp.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2) + b)).sum(),
        (graphc.f64["n", 3], graphc.f64, graphc.f64),
        ("x",),
    ),
}


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def readme() -> dict[str, float]:
    """To machine code of the value and gradient: the best of three."""
    return {name: min(seconds(_compiled(*case)) for _ in range(3)) for name, case in README.items()}


def _compiled(body: Callable[..., Any], types: tuple[Any, ...], wrt: tuple[str, ...]) -> Any:
    def f(x, w, b):  # type: ignore[no-untyped-def]
        return body(x, w, b)

    f.__annotations__ = dict(zip("xwb", types, strict=True))
    return lambda: graphc.compile(graphc.graph(f), wrt=wrt).gradient_kernel


def kept(kernels: int = 30, count: int = 500) -> float:
    """Bytes for each node of kernels that stay alive, machine code included."""
    alive, nodes, before = [], 0, 0
    for seed in range(kernels + 10):
        if seed == 10:
            gc.collect()
            before = resident()
        kernel = compilers.of_graphc("scalars", count, seed)
        alive.append(_function(kernel))
        if seed >= 10:
            nodes += len(alive[-1].gradient_kernel.graph.nodes)
    gc.collect()
    return (resident() - before) / nodes


def _function(run: Callable[[], Any]) -> Any:
    """The compiled function, which its first value and gradient keeps."""
    made: list[Any] = []
    original = graphc.compile

    def noted(*args: Any, **options: Any) -> Any:
        made.append(original(*args, **options))
        return made[-1]

    graphc.compile = noted
    try:
        run()
    finally:
        graphc.compile = original
    return made[0]


def given_back(cycles: int = 600) -> float:
    """Bytes that a cycle of compiling and deleting leaves behind, after the first third."""
    x = np.ones(4)
    marks = []
    for i in range(cycles):

        @graphc.graph
        def f(x: graphc.f64["n"]):
            return (x * float(i)).sum()  # noqa: B023

        graphc.compile(f, wrt="x").value_and_grad(x)
        if i in (cycles // 3, cycles - 1):
            gc.collect()
            marks.append(resident())
    return (marks[1] - marks[0]) / (cycles - cycles // 3)


def chain(count: int) -> Graph:
    b = Builder()
    x = v = b.input("x", f64[()])
    for i in range(count):
        v = b.apply(("tanh", "sin", "neg")[i % 3], v) if i % 4 else v + x
    return b.graph("chain", {"y": v})


def diamond(count: int) -> Graph:
    b = Builder()
    v = b.input("x", f64[()])
    for _ in range(count // 2):
        v = b.apply("sin", v) * v
    return b.graph("diamond", {"y": v})


def wide(count: int) -> Graph:
    b = Builder()
    x = b.input("x", f64[()])
    level = [x * float(i) for i in range(count // 2)]
    while len(level) > 1:
        pairs = [p + q for p, q in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return b.graph("wide", {"y": level[0]})


def inputs(count: int) -> Graph:
    b = Builder()
    v = b.input("x", f64[()])
    for i in range(count // 2):
        v = v + b.input(f"x{i}", f64[()]) * float(i)
    return b.graph("inputs", {"y": v})


SHAPES: Mapping[str, Callable[[int], Graph]] = {
    "chain": chain, "diamond": diamond, "wide": wide, "inputs": inputs,
}  # fmt: skip


def slope(name: str, small: int = 10_000, large: int = 100_000) -> dict[str, float]:
    """The exponent of the seconds, and the nodes of value and gradient for one of the value.

    Through all stages up to LLVM text; LLVM's own time is linear in it, as functions are bounded.
    """
    taken, ratio = [], 0.0
    for count in (small, large):
        graph = SHAPES[name](count)
        seen: dict[str, Any] = {}
        options = Options(wrt=("x",))
        taken.append(seconds(lambda: run_stages(graph, options, seen.__setitem__, last="emit")))  # noqa: B023
        ratio = max(ratio, len(seen["adjoint"].nodes) / len(graph.nodes))
    exponent = math.log(taken[1] / taken[0]) / math.log(large / small)
    return {"exponent": exponent, "nodes": ratio, "seconds": taken[1]}


def imports(times: int = 7) -> float:
    """Seconds of `import graphc` beyond those of `import numpy`."""
    code = (
        "import time, numpy; s = time.perf_counter(); import graphc; print(time.perf_counter() - s)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
            for _ in range(times)]  # fmt: skip
    return min(float(r.stdout) for r in runs)


TASKS: Mapping[str, Callable[[], Any]] = {
    "readme": readme, "kept": kept, "given_back": given_back, "imports": imports,
    **{f"slope {name}": (lambda name=name: slope(name)) for name in SHAPES},
}  # fmt: skip

if __name__ == "__main__":
    compilers.of_graphc("vectors", 4, 99)()
    print(json.dumps(TASKS[sys.argv[1]]()))
