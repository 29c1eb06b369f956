"""Graphs on which the rules that are not scalar are proven: name of the rule -> examples."""

from __future__ import annotations

import itertools

import numpy as np

from graphc.gates.gate import registry
from graphc.ir.graph import Builder
from graphc.ir.types import DTYPES, TensorType, bool_, f64, i64
from graphc.passes.rules import MOVES

SIZES = (0, 1, 2, 3)


def shapes(most=3):
    return [s for rank in range(most + 1) for s in itertools.product(SIZES, repeat=rank)]


def apply(op, x, **attrs):
    return x.builder.apply(op, x, **attrs)


def subsets(axes):
    return [c for k in range(len(axes) + 1) for c in itertools.combinations(axes, k)]


def expansions(shape):
    return [
        {"axes": axes}
        for k in (0, 1, 2)
        for axes in itertools.combinations(range(len(shape) + k), k)
    ]


def squeezes(shape):
    return [{"axes": axes} for axes in subsets([i for i, s in enumerate(shape) if s == 1])]


def transposes(shape):
    return [{"perm": perm} for perm in itertools.permutations(range(len(shape)))]


def reshapes(shape):
    count = int(np.prod(shape, dtype=int))
    return [{"shape": s} for s in {(count,): 0, (1, count): 0, (count, 1, 1): 0, shape: 0}]


def slices(shape):
    """A few ranges along each axis, taken together."""
    ranges = lambda n: [
        (0, 1, n),
        (n // 2, 1, n - n // 2),
        (0, 2, (n + 1) // 2),
        (max(n - 1, 0), -1, n),
    ]
    return [
        {
            "starts": tuple(p[0] for p in picks),
            "steps": tuple(p[1] for p in picks),
            "shape": tuple(p[2] for p in picks),
        }
        for k in range(4)
        for picks in [[ranges(n)[(k + i) % 4] for i, n in enumerate(shape)]]
    ]


def broadcasts(shape):
    """Shapes to which a shape broadcasts."""
    stretched = tuple(3 if s == 1 else s for s in shape)
    return [{"shape": s} for s in {shape: 0, stretched: 0, (2, *shape): 0, (1, *stretched): 0}]


ATTRIBUTES = {
    "broadcast": broadcasts, "expand_dims": expansions, "squeeze": squeezes,
    "transpose": transposes,
    "reshape": reshapes, "slice": slices,
}  # fmt: skip


def moved(op, ty):
    return ATTRIBUTES[op](ty.shape)


def twice(first, second, most=3):
    """One movement after another."""
    for shape in shapes(most):
        builder = Builder()
        x = builder.input("x", TensorType(f64, shape))
        outputs = {}
        for a in moved(first, x.type):
            y = apply(first, x, **a)
            for b in moved(second, y.type):
                outputs[f"y{len(outputs)}"] = apply(second, y, **b)
        yield builder.graph("example", outputs)


def once(op):
    for shape in shapes():
        builder = Builder()
        x = builder.input("x", TensorType(f64, shape))
        yield builder.graph(
            "example", {f"y{i}": apply(op, x, **a) for i, a in enumerate(moved(op, x.type))}
        )


def splat_moved():
    for shape, op, number in itertools.product(shapes(2), MOVES, (2.5, -0.0)):
        builder = Builder()
        x = builder.constant(number, TensorType(f64, shape))
        yield builder.graph(
            "example", {f"y{i}": apply(op, x, **a) for i, a in enumerate(moved(op, x.type))}
        )


def scalar_moved():
    for shape, op in itertools.product(shapes(), MOVES[1:]):
        builder = Builder()
        x = builder.input("x", f64[()]).broadcast(shape)
        yield builder.graph(
            "example", {f"y{i}": apply(op, x, **a) for i, a in enumerate(moved(op, x.type))}
        )


def slice_place():
    for shape in shapes():
        whole = tuple(2 * s + 1 for s in shape)
        for a in slices(whole):
            builder = Builder()
            x = builder.input("x", TensorType(f64, a["shape"]))
            where = {"starts": a["starts"], "steps": a["steps"]}
            placed = apply("place", x, fill=0, shape=whole, **where)
            outputs = {"out": apply("slice", placed, shape=a["shape"], **where)}
            yield builder.graph("example", outputs)


def reduced(name):
    dtypes = (bool_,) if name in ("any", "all") else (f64, i64)
    for shape, d in itertools.product(shapes(), dtypes):
        for axis in (i for i, n in enumerate(shape) if n == 1):
            builder = Builder()
            x = builder.input("x", TensorType(d, shape))
            last = "lanes" if axis == len(shape) - 1 else "rows"
            out = apply(name, x, axis=axis, order=last if d.is_float else "any")
            yield builder.graph("example", {"out": out})


def sums_of_constants():
    for shape, number in itertools.product(shapes(), (0.0, -0.0, 1.0)):
        builder = Builder()
        x = builder.constant(number, TensorType(f64, shape))
        if shape:
            yield builder.graph("example", {f"y{i}": x.sum(i) for i in range(len(shape))})


def casts():
    for a in DTYPES.values():
        builder = Builder()
        x = builder.input("x", a[12])
        outputs = {f"to_{d}": apply("cast", x, dtype=d) for d in DTYPES.values()}
        outputs |= {
            f"to_{d}_{e}": apply("cast", apply("cast", x, dtype=d), dtype=e)
            for d in DTYPES.values()
            for e in DTYPES.values()
        }
        yield builder.graph("example", outputs)


def of_broadcasts():
    """Every elementwise gate over broadcasts of smaller shapes, and over constants."""
    whole = (2, 3)
    picks = ((), (3,), (1, 3), (2, 1), (1,), (2, 3), None)
    for gate in registry().values():
        if gate.kind != "elementwise":
            continue
        for dtype in DTYPES.values():
            for chosen in itertools.product(picks, repeat=len(gate.params)):
                if len(chosen) < 3 or chosen[0] in ((), (3,)):
                    graph = _of_broadcasts(gate, dtype, chosen, whole)
                    if graph is not None:
                        yield graph


def _of_broadcasts(gate, dtype, chosen, whole):
    types = [bool_ if gate.choice and i == 0 else dtype for i in range(len(chosen))]
    try:
        gate.result_dtype(tuple(types))
    except TypeError:
        return None
    builder = Builder()
    operands = [
        builder.constant(1, d[whole])
        if s is None
        else builder.input(f"x{i}", TensorType(d, s)).broadcast(whole)
        for i, (d, s) in enumerate(zip(types, chosen, strict=True))
    ]
    attrs = {"dtype": f64} if gate.attrs else {}
    return builder.graph("example", {"out": builder.apply(gate.name, *operands, **attrs)})


EXAMPLES = {
    "splat-moved": splat_moved,
    "scalar-moved": scalar_moved,
    "broadcast-same": lambda: once("broadcast"),
    "broadcast-broadcast": lambda: twice("broadcast", "broadcast"),
    "broadcast-expand": lambda: twice("expand_dims", "broadcast", 2),
    "transpose-same": lambda: once("transpose"),
    "transpose-transpose": lambda: twice("transpose", "transpose"),
    "reshape-same": lambda: once("reshape"),
    "reshape-reshape": lambda: twice("reshape", "reshape"),
    "reshape-expand": lambda: twice("expand_dims", "reshape", 2),
    "reshape-squeeze": lambda: twice("squeeze", "reshape"),
    "expand-nothing": lambda: once("expand_dims"),
    "squeeze-nothing": lambda: once("squeeze"),
    "squeeze-expand": lambda: twice("expand_dims", "squeeze", 2),
    "expand-squeeze": lambda: twice("squeeze", "expand_dims", 2),
    "expand-expand": lambda: twice("expand_dims", "expand_dims", 2),
    "squeeze-squeeze": lambda: twice("squeeze", "squeeze"),
    "slice-whole": lambda: once("slice"),
    "slice-slice": lambda: twice("slice", "slice"),
    "slice-place": slice_place,
    "broadcasts-last": of_broadcasts,
    "cast-same": casts,
    "cast-cast": casts,
    "sum-of-zeros": sums_of_constants,
    **{
        f"{name}-of-one": (lambda name=name: reduced(name))
        for name in ("sum", "prod", "max", "min", "any", "all")
    },
}
