"""One contestant's calls on small arrays, timed in a process of its own: `-m bench.callers NAME`.

Each gives the value and gradients of two functions, compiled and warm: of two arrays, the sum of
exp(-x) y, and of a dict of six, the sum of their squares. What they take is compared with
`np.add(x, y)` on NumPy arrays of the same size, timed in turns in the same process.
"""

import gc
import importlib
import json
import sys
import timeit
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np

N = 10  # elements of an array
SIZES = (10, 11, 3, 20)
MANY = range(1, 65)
ROUNDS = 150
TURN = 1e-4  # seconds of a turn
NAMES = "abcdef"
ADD = "add(x, y)"

Calls = dict[str, Any]  # what the statements of the rows name


def arrays(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(0.1, 1.0, n)
    return x, np.cos(x)


def parameters() -> dict[str, np.ndarray]:
    return {name: np.linspace(i, i + 1.0, N) for i, name in enumerate(NAMES)}


def graphc() -> Calls:
    import graphc

    @graphc.graph
    def two(x: graphc.f64["n"], y: graphc.f64["n"]):
        return (np.exp(-x) * y).sum()

    @graphc.graph
    def matrix(a: graphc.f64["n", "m"]):
        return (a * a).sum()

    @graphc.graph
    def scalars(a: graphc.f64, b: graphc.f64):
        return a * b

    x, y = arrays()
    k = graphc.compile(two, wrt=("x", "y"))
    free = graphc.value_and_grad(lambda x, y: (np.exp(-x) * y).sum(), argnums=(0, 1))
    c = np.ones((2, 5))
    return {
        "f": k.value_and_grad,
        "g": graphc.value_and_grad(lambda p: sum((v * v).sum() for v in p.values())),
        "bound": k.bind(x, y),
        "value": k,
        "free": free,
        "matrix": graphc.compile(matrix, wrt="a").value_and_grad,
        "scalars": graphc.compile(scalars, wrt=("a", "b")).value_and_grad,
        "strided": np.repeat(x, 2)[::2],
        "fortran": np.asfortranarray(c),
        "zero": np.array(1.5),
        "filled": (np.empty(()), (np.empty(N), np.empty(N))),
        "big": [np.linspace(0.0, 1.0, n) for n in MANY],
    }


def numpy() -> Calls:
    """The gradients by hand."""

    def two(x, y):
        e = np.exp(-x)
        d = e * y
        return d.sum(), (-d, e)

    return {
        "f": two,
        "g": lambda p: (sum((v * v).sum() for v in p.values()), {k: 2 * v for k, v in p.items()}),
    }


def jax() -> Calls:
    """On arrays of its own, awaited."""
    from bench.contestants import jax as contestant  # before JAX itself: it says on what

    contestant.start(1, "sync")
    import jax
    import jax.numpy as jnp

    two = jax.jit(jax.value_and_grad(lambda x, y: (jnp.exp(-x) * y).sum(), (0, 1)))
    six = jax.jit(jax.value_and_grad(lambda p: sum((v * v).sum() for v in p.values())))
    wait = jax.block_until_ready
    return {
        "f": lambda x, y: wait(two(x, y)), "g": lambda p: wait(six(p)),
        "own": lambda a: wait(jnp.asarray(a)),
    }  # fmt: skip


def torch() -> Calls:
    """Eager, on tensors of its own."""
    import torch

    torch.set_num_threads(1)

    def two(x, y):
        value = (torch.exp(-x) * y).sum()
        return value.detach(), torch.autograd.grad(value, (x, y))

    def six(p):
        value = sum((v * v).sum() for v in p.values())
        return value.detach(), dict(zip(p, torch.autograd.grad(value, tuple(p.values()))))

    return {"f": two, "g": six, "own": lambda a: torch.from_numpy(a).requires_grad_()}


def autograd() -> Calls:
    import autograd.numpy as anp
    from autograd import value_and_grad

    return {
        "f": value_and_grad(lambda x, y: anp.sum(anp.exp(-x) * y), argnum=(0, 1)),
        "g": value_and_grad(lambda p: sum(anp.sum(v * v) for v in p.values())),
    }


def pytensor() -> Calls:
    """Trusted inputs, borrowed; of a dict, the caller passes the values."""
    from bench.contestants import pytensor as contestant

    contestant.start(1, "")
    import pytensor
    import pytensor.tensor as pt

    def made(symbols, value):
        outputs = [value, *pt.grad(value, symbols)]
        f = pytensor.function(
            [pytensor.In(s, borrow=True) for s in symbols],
            [pytensor.Out(o, borrow=True) for o in outputs],
            mode=contestant.MODE,
        )
        f.trust_input = True
        return f

    x, y = pt.vector(dtype="float64"), pt.vector(dtype="float64")
    two = made([x, y], (pt.exp(-x) * y).sum())
    symbols = [pt.vector(name, dtype="float64") for name in NAMES]
    six = made(symbols, sum((s * s).sum() for s in symbols))

    def split(results):
        value, *grads = results
        return value, grads

    def both(p):
        value, *grads = six(*p.values())
        return value, dict(zip(p, grads))

    return {"f": lambda x, y: split(two(x, y)), "g": both}


def numba() -> Calls:
    """The loops and their gradients by hand."""
    import numba

    @numba.njit
    def two(x, y):
        value, dx, dy = 0.0, np.empty_like(x), np.empty_like(y)
        for i in range(x.size):
            dy[i] = np.exp(-x[i])
            dx[i] = -dy[i] * y[i]
            value -= dx[i]
        return value, (dx, dy)

    @numba.njit
    def six(a, b, c, d, e, f):
        value = 0.0
        for v in (a, b, c, d, e, f):
            for i in range(v.size):
                value += v[i] * v[i]
        return value, (2 * a, 2 * b, 2 * c, 2 * d, 2 * e, 2 * f)

    def of_dict(p):
        value, grads = six(*p.values())
        return value, dict(zip(p, grads))

    return {"f": two, "g": of_dict}


def casadi() -> Calls:
    """Generated C, compiled; `bound` on buffers fixed beforehand, else on its own matrices."""
    import casadi as ca

    from bench.contestants.casadi import compiled

    x, y = ca.SX.sym("x", N), ca.SX.sym("y", N)
    value = ca.sum1(ca.exp(-x) * y)
    outputs = [value, ca.gradient(value, x), ca.gradient(value, y)]
    f = compiled(ca.Function("two", [x, y], outputs))
    buffer, evaluate = f.buffer()
    kept = [*arrays(), np.zeros(()), np.zeros(N), np.zeros(N)]
    for i, array in enumerate(kept):
        (buffer.set_arg if i < 2 else buffer.set_res)(i % 2 if i < 2 else i - 2,
                                                      memoryview(array.reshape(-1)))  # fmt: skip

    def two(x, y):
        value, *grads = f.call([x, y])
        return value, grads

    return {"f": two, "bound": evaluate, "own": ca.DM, "kept": (buffer, kept), "fixed": N}


CALLERS: dict[str, Callable[[], Calls]] = {
    c.__name__: c for c in (graphc, numpy, jax, torch, autograd, pytensor, casadi, numba)
}


def checked(calls: Calls) -> None:
    """The numbers are right, or nothing is timed."""
    x, y = arrays()
    value, grads = calls["f"](calls["x"], calls["y"])
    found = [float(value), *(plain(g) for g in grads)]
    for a, b in zip(found, (np.sum(np.exp(-x) * y), -np.exp(-x) * y, np.exp(-x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    if "g" in calls:
        value, grads = calls["g"](calls["p"])
        np.testing.assert_allclose(float(value), sum((v * v).sum() for v in parameters().values()))
        for name, v in parameters().items():
            np.testing.assert_allclose(plain(grads[name]), 2 * v, rtol=1e-12)


def plain(a: Any) -> np.ndarray:
    return np.asarray(a.detach() if hasattr(a, "detach") else a, dtype=np.float64).reshape(-1)


def surroundings(name: str) -> Calls:
    """What statements name: functions, and arguments as this contestant likes them."""
    calls = CALLERS[name]()
    own = calls.get("own", lambda a: a)
    x, y = map(own, arrays())
    found = calls | {"x": x, "y": y, "p": {k: own(v) for k, v in parameters().items()}}
    if "fixed" not in calls:
        found["pairs"] = [tuple(map(own, arrays(n))) for n in SIZES]
        found["many"] = [tuple(map(own, arrays(n))) for n in MANY]
    return found


def timed(calls: Calls, rows: Mapping[str, tuple[str, int]]) -> dict[str, tuple[float, float]]:
    """For each row, seconds of a call, and how many times those of `np.add` in the same turn."""
    x, y = arrays()
    timers = [timeit.Timer(ADD, globals={"add": np.add, "x": x, "y": y})]
    timers += [timeit.Timer(statement, globals=calls) for statement, _ in rows.values()]
    counts = [1] + [count for _, count in rows.values()]
    repeats = []
    for t in timers:
        t.timeit(3)
        once = min(t.timeit(2) / 2 for _ in range(3))
        repeats.append(max(1, int(TURN / once)))
    samples: list[list[float]] = []
    gc.collect()
    for _ in range(ROUNDS):
        samples.append([t.timeit(n) / n / count for t, n, count in zip(timers, repeats, counts)])
    found = {}
    for i, name in enumerate(rows, 1):
        ratios = [round_[i] / round_[0] for round_ in samples]
        found[name] = (median(r[i] for r in samples), median(ratios))
    found[ADD] = (median(r[0] for r in samples), 1.0)
    return found


def slow_calls(calls: Calls) -> int:
    return sum(getattr(f, "slow_calls", 0) for f in calls.values())


def main() -> None:
    name, rows = sys.argv[1], json.loads(sys.argv[2])
    try:
        calls = surroundings(name)
    except ImportError as error:
        print(json.dumps({"absent": str(error)}))
        return
    checked(calls)
    possible = {
        row: (statement, count)
        for row, (statement, count, needs) in rows.items()
        if all(n in calls for n in needs)
    }
    for statement, _ in possible.values():
        timeit.Timer(statement, globals=calls).timeit(3)
    before = slow_calls(calls)
    found: dict[str, Any] = {
        "rows": timed(calls, possible),
        "slow_calls": slow_calls(calls) - before,
    }
    if name in sys.modules:
        found["version"] = getattr(importlib.import_module(name), "__version__", "")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
