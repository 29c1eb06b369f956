"""The seconds that a library takes from a new function to its first value and gradient.

    python -m bench.compilers jax gates 500

prints them as JSON: the median of a few functions that differ, in a process that has compiled
another before. In a process of its own for each library and function.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench import formulas

ROWS = 1000  # elements of the vectors
Compile = Callable[[], Any]  # compiles one function and runs it


def arrays(kind: str, count: int) -> tuple[np.ndarray, ...]:
    if kind == "terms":
        return (np.linspace(-1.0, 1.0, count),)
    if kind == "scalars":
        return np.array(0.3), np.array(0.4)
    return np.linspace(-1.0, 1.0, ROWS), np.linspace(0.0, 1.0, ROWS)


def formula(xp: Any, kind: str, count: int, seed: int) -> Callable[..., Any]:
    """Of the arrays, a number."""
    if kind == "terms":
        return lambda x: formulas.terms(xp, [x[i] for i in range(count)], seed)
    if kind == "scalars":
        return lambda x, y: formulas.gates(xp, x, y, count, seed)
    return lambda x, y: xp.sum(formulas.gates(xp, x, y, count - 1, seed))


def of_graphc(kind: str, count: int, seed: int) -> Compile:
    import graphc
    import graphc.numpy as gnp

    made = formula(gnp, kind, count, seed)
    if kind == "terms":

        @graphc.graph
        def f(x: graphc.f64[count]):  # type: ignore[valid-type]
            return made(x)

    elif kind == "scalars":

        @graphc.graph
        def f(x: graphc.f64, y: graphc.f64):
            return made(x, y)

    else:

        @graphc.graph
        def f(x: graphc.f64["n"], y: graphc.f64["n"]):
            return made(x, y)

    wrt = tuple(f.__signature__.parameters)
    return lambda: graphc.compile(f, wrt=wrt).value_and_grad(*arrays(kind, count))


def of_jax(kind: str, count: int, seed: int) -> Compile:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    made, given = formula(jnp, kind, count, seed), arrays(kind, count)
    argnums = tuple(range(len(given)))
    return lambda: jax.block_until_ready(jax.jit(jax.value_and_grad(made, argnums))(*given))


def of_torch(kind: str, count: int, seed: int) -> Compile:
    import torch

    made = formula(torch, kind, count, seed)
    given = [torch.tensor(a, requires_grad=True) for a in arrays(kind, count)]

    def run() -> Any:
        torch._dynamo.reset()
        value = torch.compile(made)(*given)
        return value, torch.autograd.grad(value, given, allow_unused=True)

    return run


def of_pytensor(kind: str, count: int, seed: int) -> Compile:
    import pytensor
    import pytensor.tensor as pt

    given = arrays(kind, count)

    def run() -> Any:
        symbols = [pt.dscalar() if a.ndim == 0 else pt.dvector() for a in given]
        value = formula(pt, kind, count, seed)(*symbols)
        return pytensor.function(symbols, [value, *pytensor.grad(value, symbols)])(*given)

    return run


def of_casadi(kind: str, count: int, seed: int) -> Compile:
    import casadi

    class Names:
        tanh, sin, exp, log = casadi.tanh, casadi.sin, casadi.exp, casadi.log
        sum = staticmethod(casadi.sum1)

    given = arrays(kind, count)

    def run() -> Any:
        symbols = [casadi.SX.sym(f"x{i}", a.size) for i, a in enumerate(given)]
        if kind == "vectors":
            symbols = [casadi.MX.sym(f"x{i}", a.size) for i, a in enumerate(given)]
        value = formula(Names, kind, count, seed)(*symbols)
        gradients = [casadi.gradient(value, s) for s in symbols]
        return casadi.Function("f", symbols, [value, *gradients])(*given)

    return run


COMPILERS = {
    "graphc": of_graphc, "jax": of_jax, "torch": of_torch, "pytensor": of_pytensor,
    "casadi": of_casadi,
}  # fmt: skip


def seconds(name: str, kind: str, count: int, patience: float = 20.0) -> list[float]:
    """Of some functions, one after the other, while there is time."""
    compiler = COMPILERS[name]
    compiler("vectors" if kind == "terms" else kind, 4, 99)()  # what is imported, and set up, once
    found: list[float] = []
    end = time.perf_counter() + patience
    for seed in range(5):
        run = compiler(kind, count, seed)
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
        if time.perf_counter() + found[-1] > end:
            break
    return found


if __name__ == "__main__":
    os.environ["GRAPHC_CACHE_DIR"] = "off"
    library, what, size = sys.argv[1:]
    taken = seconds(library, what, int(size))
    print(json.dumps({"median": statistics.median(taken), "all": taken}))
