"""Graphs by hand that between them use every statement of the loop IR, over sizes that are names or
numbers.
"""

from collections.abc import Callable

import numpy as np

from graphc.gates import elementwise as gates
from graphc.gates import exponential, hyperbolic
from graphc.gates.contraction import contract_values
from graphc.ir.graph import Builder, Graph, Value
from graphc.ir.types import Size, bool_, evaluate, f32, f64, i32, i64

GRAPHS: dict[str, Callable[[Builder, Size, Size], dict[str, Value]]] = {}


def graph(name: str, n: Size = "n", k: Size = "k") -> Graph:
    """The graph of a case, its sizes symbolic unless given."""
    builder = Builder()
    return builder.graph(name, GRAPHS[name](builder, n, k))


def arguments(made: Graph, n: int, k: int, seed: int = 0) -> list[np.ndarray]:
    """Numbers for its inputs; integers are indices that fit into an axis of size k, negatives
    included.
    """
    rng = np.random.default_rng(seed)
    values = []
    for node in made.inputs:
        shape = tuple(evaluate(s, {"n": n, "k": k}) for s in node.type.shape)
        dtype = node.type.dtype
        if dtype.is_float:
            x = rng.normal(size=shape)
        elif dtype.is_bool:
            x = rng.integers(0, 2, shape)
        else:
            x = rng.integers(-k, k, shape) if k else np.zeros(shape)
        values.append(np.asarray(x).astype(dtype.numpy))
    return values


def case(function):
    GRAPHS[function.__name__] = function
    return function


def column(x: Value, like: Value) -> Value:
    """A vector over the first axis, repeated along the second."""
    return x.along(1, like)


def row(x: Value, like: Value) -> Value:
    return x.broadcast(like.shape)


@case
def logistic(b, n, k):
    X, w, y = b.input("X", f64[n, k]), b.input("w", f64[k]), b.input("y", f64[n])
    z = contract_values(X, w, "ij,j->i")
    loss = (hyperbolic.softplus(z) - y * z).sum(0)
    return {"loss": loss, "grad_w": contract_values(hyperbolic.sigmoid(z) - y, X, "i,ij->j")}


@case
def softmax(b, n, k):
    """Cross-entropy of logits, and its gradient."""
    X, y = b.input("X", f64[n, k]), b.input("y", i64[n])
    m = b.apply("max", X, axis=1, order="any")
    e = exponential.exp(X - column(m, X))
    s = e.sum(1)
    chosen = gates.eq(b.apply("iota", axis=1, shape=X.shape), column(y, X))
    picked = gates.where(chosen, X, X.zeros_like()).sum(1)
    loss = (exponential.log(s) + m - picked).sum(0)
    return {"loss": loss, "grad_X": e / column(s, X) - chosen.cast(f64)}


@case
def pointwise(b, n, k):
    x, y, c = b.input("x", f64[n, k]), b.input("y", f64[k]), b.input("c", f64[()])
    z = hyperbolic.tanh(x * row(y, x) + c.broadcast(x.shape)) * 2.0
    return {"z": z, "again": z, "x": x, "one": b.constant(1.5, f64[n]), "y2": y * y}


@case
def float32(b, n, k):
    x, w = b.input("x", f32[n, k]), b.input("w", f32[k])
    z = contract_values(x, w, "ij,j->i")
    wide = x.cast(f64).sum(1)
    return {
        "z": z,
        "rows": exponential.exp(x).sum(0),
        "lanes": x.sum(1),
        "wide": wide,
        "mixed": wide.sum(0),
    }


@case
def layer_norm(b, n, k):
    x, g = b.input("x", f64[n, k]), b.input("g", f64[k])
    centred = x - column(x.sum(1), x) * 0.25
    scale = gates.sqrt((centred * centred).sum(1) + 1e-5)
    hat = centred / column(scale, x)
    out = hat * row(g, x)
    return {"out": out, "grad_g": (hat * out).sum(0), "total": out.sum(1).sum(0)}


@case
def cube(b, n, k):
    """Array accumulators inside of loops, and over more than one axis."""
    x = b.input("x", f64[n, k, 3])
    middle = x.sum(1)
    return {
        "middle": middle,
        "front": x.sum(0),
        "last": x.sum(2),
        "twice": exponential.exp(middle).sum(0),
        "all": x.sum(2).sum(1).sum(0),
    }


@case
def middle_scratch(b, n, k):
    """An array accumulator that is scratch of an outer loop."""
    x = b.input("x", f64[n, k, 3])
    m = x.sum(1)
    centred = x - m.expand(1).broadcast(x.shape)
    return {"v": (centred * centred).sum(2).sum(1), "w": hyperbolic.tanh(centred).sum(1).sum(1)}


@case
def network(b, n, k):
    X, W, v = b.input("X", f64[n, k]), b.input("W", f64[k, 4]), b.input("v", f64[4])
    h = hyperbolic.tanh(contract_values(X, W, "ij,jl->il"))
    out = contract_values(h, v, "il,l->i")
    back = contract_values(out, v, "i,l->il") * (1.0 - h * h)
    return {
        "out": out,
        "grad_W": contract_values(X, back, "ij,il->jl"),
        "gram": contract_values(X, X, "ij,lj->il"),
    }


@case
def integers(b, n, k):
    x, m, u = b.input("x", i64[n, k]), b.input("m", bool_[n, k]), b.input("u", i32[k])
    reduce = lambda op, v, axis: b.apply(op, v, axis=axis, order="any")
    return {
        "sum": x.sum(0), "rows": x.sum(1), "prod": reduce("prod", x, 1), "any": reduce("any", m, 0),
        "all": reduce("all", m, 1), "dot": contract_values(u, u, "i,i->"),
        "product": contract_values(x, x, "ij,lj->il"),
        "count": m.cast(i64).sum(1), "place": b.apply("iota", axis=0, shape=x.shape) + x,
        "size": b.size(x.shape[0]),
    }  # fmt: skip


@case
def extremes(b, n, k):
    x = b.input("x", f64[n, k])
    top, low = (b.apply(op, x, axis=1, order="any") for op in ("max", "min"))
    return {
        "spread": top - low,
        "prod": b.apply("prod", x, axis=1, order="lanes"),
        "column": b.apply("prod", x, axis=0, order="rows"),
    }


@case
def moved(b, n, k):
    x, y = b.input("x", f64[n, k]), b.input("y", f64[k, n])
    swapped = y.transposed((1, 0))
    backwards = b.apply("slice", x, starts=(x.shape[0] - 1, 0), shape=x.shape, steps=(-1, 1))
    joined = b.apply("concat", x * 2.0, swapped, axis=0)
    padded = b.apply(
        "place",
        x + 1.0,
        starts=(1, 2),
        shape=(x.shape[0] + 2, x.shape[1] * 2 + 3),
        steps=(1, 2),
        fill=1 << 62,
    )
    flat = (x + swapped).reshape((x.shape[0] * x.shape[1],))
    return {
        "swapped": x + swapped, "backwards": backwards * x, "joined": joined.sum(1),
        "concat": joined, "padded": padded,
        "flat": flat, "used": flat * flat, "sums": (x * 3.0).transposed((1, 0)).sum(1),
        "copy": swapped, "cube": padded.sum(0),
    }  # fmt: skip


@case
def gathered(b, n, k):
    table, i, u = b.input("table", f64[k, 3]), b.input("i", i64[n]), b.input("u", i32[n])
    rows = b.apply("take", table, i, axis=0)
    columns = b.apply("take", table.transposed((1, 0)) * 2.0, u, axis=1)
    spread = b.apply("scatter_add", exponential.exp(rows), i, axis=0, shape=table.shape)
    wide = b.apply("scatter_add", columns, u, axis=1, shape=(3, table.shape[0]))
    return {
        "rows": rows,
        "columns": columns,
        "spread": spread,
        "wide": wide,
        "after": spread.sum(0),
        "dot": rows.sum(1).sum(0),
    }


@case
def pairs(b, n, k):
    x = b.input("x", f64[n])
    wide = (x.shape[0], x.shape[0])
    d = x.expand(1).broadcast(wide) - x.broadcast(wide)
    near = exponential.exp(-(d * d))
    return {"energy": near.sum(1).sum(0), "pull": (near * d).sum(1), "push": (near * d).sum(0)}


@case
def sinkhorn(b, n, k):
    """Rows and columns in turn: many kernels, whose memory is used again."""
    x = exponential.exp(b.input("x", f64[n, k]))
    for _ in range(4):
        x = x / column(x.sum(1), x)
        x = x / row(x.sum(0), x)
    return {"x": x, "trace": (x * x).sum(1).sum(0)}


@case
def scalars(b, n, k):
    x, y = b.input("x", f64[()]), b.input("y", f64[n])
    for i in range(450):
        x = x * 0.99 + (i % 7) * 0.01
    total = y.sum(0) * x
    return {"x": x, "scaled": y * total.broadcast(y.shape), "total": total}


@case
def constants(b, n, k):
    x = b.input("x", f64[n, 3])
    c = b.array(np.array([1.0, -2.0, 0.5]), f64[3])
    i = b.array(np.array([0, 2, -1, 1]), i64[4])
    picked = b.apply("take", x, i, axis=1)
    return {
        "scaled": x * row(c, x),
        "c": c,
        "picked": picked,
        "z": contract_values(x, c, "ij,j->i"),
        "taken": b.apply("take", c, i, axis=0),
    }


@case
def reused(b, n, k):
    """Values read at other places than they are made: nothing may fuse wrongly."""
    x = b.input("x", f64[n, n])
    e = exponential.exp(x)
    sym = e + e.transposed((1, 0))
    back = b.apply("slice", e, starts=(x.shape[0] - 1, 0), shape=x.shape, steps=(-1, 1))
    s = sym.sum(1)
    return {
        "sym": sym,
        "back": back - e,
        "scaled": sym / s.broadcast(x.shape),
        "diag": (sym * column(s, x)).sum(0),
    }


@case
def repeated_rows(b, n, k):
    """A broadcast of a computed value is reshaped and read as memory."""
    x = b.input("x", f64[k])
    e = exponential.exp(x).broadcast(
        (n, k) if isinstance(n, int) else (b.input("y", f64[n]).shape[0], x.shape[0])
    )
    flat = e.reshape((e.shape[0] * e.shape[1],))
    return {"flat": flat, "sum": flat.sum(0), "double": e.sum(0)}
