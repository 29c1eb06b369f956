"""Small graphs in which every gate with a derivative stands at least once: name -> graph with float
inputs.
"""

from __future__ import annotations

import numpy as np

from graphc.gates.contraction import contract_values
from graphc.gates.elementwise import lt, where
from graphc.gates.exponential import exp, log
from graphc.gates.gate import registry
from graphc.gates.hyperbolic import tanh
from graphc.gates.trigonometric import sin
from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph
from graphc.ir.types import Dim, TensorType, f32, f64, i64

SIZES = {"n": 5}


LAST = ("tetragamma", "tetragamma_negative")  # to differentiate them is an error
NOT_TWICE = ("trigamma", "trigamma_negative")  # whose derivatives those are


def elementwise_gates():
    """Gates of floats with a derivative that is not zero by structure."""
    return [
        g for g in registry().values()
        if g.kind == "elementwise"
        and g.structure == "diagonal"
        and not g.attrs
        and not g.choice
        and g.name not in ("stop_gradient", *LAST)
    ]  # fmt: skip


def graph_of(make, **types):
    builder = Builder()
    inputs = [builder.input(name, ty) for name, ty in types.items()]
    return builder.graph("case", {"y": make(*inputs)})


def apply(op, *args, **attrs):
    return args[0].builder.apply(op, *args, **attrs)


def prod(x, axis):
    return apply("prod", x, axis=axis, order="lanes" if axis == x.type.rank - 1 else "rows")


def index_of(x, *numbers):
    return x.builder.array(np.array(numbers), TensorType(i64, (len(numbers),)))


def user_gate(backward):
    """A gate of its own: x * sin(y), with or without a backward."""
    builder = Builder()
    x, y = builder.input("x", f64["n"]), builder.input("y", f64["n"])
    forward = builder.graph("forward", {"out": x * sin(y)})
    builder = Builder()
    ct, x, y = (builder.input(name, f64["n"]) for name in ("ct", "x", "y"))
    cos = registry()["cos"]
    back = builder.graph("backward", {"dx": ct * sin(y), "dy": ct * (x * cos(y))})
    return lambda x, y: apply(
        "call", x, y, forward=forward, backward=back if backward else None, label="mine"
    )


M = f64["n", 3]
CASES = {
    **{f"{g.name}": graph_of(g, **{p: f64["n"] for p in g.params}) for g in elementwise_gates()},
    "where": graph_of(lambda x, y: where(lt(x, y), sin(x), y * y), x=f64["n"], y=f64["n"]),
    "cast": graph_of(lambda x: sin(x.cast(f32).cast(f64)), x=f64["n"]),
    "cast-wide": graph_of(lambda x: sin(x.cast(f64)), x=f32["n"]),
    "broadcast": graph_of(
        lambda x, y: (
            sin(x.broadcast((4, 3))) * sin(y.broadcast((2, 1, 3))).sum(0).broadcast((4, 3))
        ),
        x=f64[3],
        y=f64[1, 1],
    ),
    "broadcast-sizes": graph_of(lambda x, y: sin(x.broadcast(y.shape)) * y, x=f64[3], y=M),
    "transpose": graph_of(lambda x: sin(x.transposed((2, 0, 1))), x=f64["n", 3, 2]),
    "expand_dims": graph_of(lambda x: sin(x.expand(1)), x=M),
    "squeeze": graph_of(lambda x: sin(apply("squeeze", x, axes=(1,))), x=f64["n", 1]),
    "reshape": graph_of(lambda x: sin(x.reshape((3, Dim.symbol("n")))), x=M),
    "slice": graph_of(
        lambda x: sin(apply("slice", x, starts=(1, 2), steps=(2, -1), shape=(2, 3))), x=f64[5, 3]
    ),
    "place": graph_of(
        lambda x: exp(apply("place", x, fill=0, starts=(1, 2), steps=(2, -1), shape=(5, 3))),
        x=f64[2, 3],
    ),
    "concat": graph_of(lambda x, y: sin(apply("concat", x, y * y, x, axis=1)), x=M, y=f64["n", 2]),
    "sum": graph_of(lambda x: sin(x.sum(0)), x=M),
    "sum0": graph_of(lambda x: sin(apply("sum0", x, axis=0, order="lanes")), x=M),
    "prod": graph_of(lambda x: sin(prod(x, 0)), x=M),
    "prod-last": graph_of(lambda x: prod(x, 1), x=M),
    "cumsum": graph_of(lambda x: sin(apply("cumsum", x, axis=0, reverse=False)), x=M),
    "cumsum-reverse": graph_of(lambda x: sin(apply("cumsum", x, axis=1, reverse=True)), x=M),
    "cumprod": graph_of(lambda x: sin(apply("cumprod", x, axis=0, reverse=False)), x=M),
    "cumprod-reverse": graph_of(lambda x: apply("cumprod", x, axis=1, reverse=True), x=M),
    "recurrence": graph_of(
        lambda a, b: sin(apply("recurrence", a, b, axis=0, reverse=False)), a=M, b=M
    ),
    "recurrence-reverse": graph_of(
        lambda a, b: apply("recurrence", a, sin(b), axis=0, reverse=True), a=f64["n"], b=f64["n"]
    ),
    "max": graph_of(lambda x: sin(apply("max", x, axis=0, order="any")), x=M),
    "min": graph_of(lambda x: sin(apply("min", x, axis=1, order="any")), x=M),
    "matmul": graph_of(lambda x, y: tanh(contract_values(x, y, "ij,jk->ik")), x=M, y=f64[3, 4]),
    "matvec": graph_of(lambda x, y: tanh(contract_values(x, y, "ij,j->i")), x=M, y=f64[3]),
    "dot": graph_of(lambda x, y: tanh(contract_values(x, y, "i,i->")), x=f64["n"], y=f64["n"]),
    "gram": graph_of(lambda x: tanh(contract_values(x, x, "ij,ik->jk")), x=M),
    "batched": graph_of(
        lambda x, y: contract_values(x, y, "bij,bkj->bik"), x=f64[2, 4, 3], y=f64[2, 5, 3]
    ),
    "two-letters": graph_of(
        lambda x, y: contract_values(x, y, "ijk,jki->i"), x=f64[4, 2, 3], y=f64[2, 3, 4]
    ),
    "outer": graph_of(lambda x, y: contract_values(x, y, "i,j->ij"), x=f64["n"], y=f64[3]),
    "take": graph_of(lambda x: sin(apply("take", x, index_of(x, 0, 2, 2, -1), axis=1)), x=M),
    "scatter_add": graph_of(
        lambda x: sin(
            apply("scatter_add", x, index_of(x, 0, 2, 2), axis=1, shape=(Dim.symbol("n"), 4))
        ),
        x=M,
    ),
    "logsumexp": graph_of(lambda x: sin(apply("logsumexp", x, axis=1)), x=M),
    "softmax": graph_of(lambda x: sin(apply("softmax", x, axis=0)), x=M),
    "log_softmax": graph_of(lambda x: sin(apply("log_softmax", x, axis=1)), x=M),
    "call": graph_of(lambda x, y: exp(user_gate(True)(x, y)), x=f64["n"], y=f64["n"]),
    "call-forward": graph_of(lambda x, y: exp(user_gate(False)(x, y)), x=f64["n"], y=f64["n"]),
    "shared": graph_of(lambda x: (lambda y: y * y + log(y) * y)(exp(x)), x=f64["n"]),
}
WITHOUT = {
    "argmax", "argmin", "any", "all",  # of no derivative
    "input", "constant", "size", "iota",  # sources
    *LAST,
    "stop_gradient",  # whose derivative is none by intention
    "jacobian",  # stands for a composite's, in forward mode
}  # fmt: skip

# Their domain begins where difference quotients have too few digits; it is enough to be above 2^6.
FOR_LARGE = ("sin_huge", "tan_huge")


def shape_of(node):
    return tuple(s if isinstance(s, int) else SIZES["n"] for s in node.type.shape)


def arguments(graph, seed=0):
    """Numbers inside of every gate's domain and away from kinks."""
    rng = np.random.default_rng(seed)
    low, high = (1.0, 2.0) if graph.inputs[0]["name"] == "ct" else (0.15, 0.85)
    if graph.output_nodes[0].op in FOR_LARGE:
        low, high = low + 32 * np.pi, high + 32 * np.pi
    domain = getattr(graph.output_nodes[0].gate, "domain", (low, high))
    if not (domain[0] < high and low < domain[1]) and abs(domain[0]) < 10:
        low, high = domain
    return [rng.uniform(low, high, shape_of(n)).astype(n.type.dtype.numpy) for n in graph.inputs]


def normals(nodes, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape_of(n)).astype(n.type.dtype.numpy) for n in nodes]


def run(graph, args):
    return dict(zip([name for name, _ in graph.outputs], run_graph(graph, args), strict=True))
