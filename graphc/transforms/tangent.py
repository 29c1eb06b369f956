"""Forward mode: the directional derivative of a graph, one gate after the other.

In:   values of one builder, those to differentiate by, and a tangent for each of these.
Out:  the tangents of the outputs; None where one is zero by structure.
Invariant: the result is linear in the tangents, and only nodes on a path from `wrt` to an output
are visited.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64[()])
>>> print(tangent(b.graph("double", {"y": x + x}), ("x",)))
graph double(x: f64[], d_x: f64[])
  %2 = add %x, %x : f64[]
  %3 = add %d_x, %d_x : f64[]
return y=%2, d_y=%3
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import DifferentiationError, SignatureError, VerifyError
from graphc.gates.gate import registry
from graphc.ir.graph import Builder, Graph, Node, Value, open_graph, reachable
from graphc.passes.expand import expand, has_no_derivative


def push_forward(
    builder: Builder,
    outputs: Sequence[Value],
    wrt: Sequence[Value],
    tangents: Sequence[Value | None],
    made_by: str = "tangent",
) -> list[Value | None]:
    """The tangents of `outputs` when `wrt` move along `tangents`."""
    known: dict[Node, Value] = {}
    for w, t in zip(wrt, tangents, strict=True):
        if t is not None:
            check_alike("tangent", w, t)
            known[w.node] = t
    starts = frozenset(w.node for w in wrt)
    outputs = expand(builder, outputs, has_no_derivative, starts)
    gates, origins, unknown = registry(), builder.origins, builder.at
    with builder.made_by(made_by, None):
        for node in reachable(o.node for o in outputs):
            if not node.type.dtype.is_float or node in starts or known.keys().isdisjoint(node.args):
                continue
            values = [Value(builder, a) for a in node.args]
            along = [known.get(a) for a in node.args]
            out = Value(builder, node)
            builder.at = builder.through(made_by, origins.get(node), unknown)
            t = gates[node.op].tangent(node, values, out, along)
            if t is not None:
                check_alike("tangent", out, t)
                known[node] = t
    return [known.get(o.node) for o in outputs]


def check_alike(what: str, primal: Value, other: Value) -> None:
    """A tangent, or a cotangent, has the type of its primal."""
    if primal.node.type is not other.node.type and primal.type != other.type:
        raise VerifyError(f"the {what} of {primal.node!r} is {other.node!r}: the types differ")


def float_inputs(graph: Graph, names: Sequence[str]) -> list[Node]:
    """The inputs of these names; an error where there is none, or where it has no derivative."""
    by_name = {n["name"]: n for n in graph.inputs}
    for name in names:
        if name not in by_name:
            raise SignatureError(
                f"graph {graph.name} has no input {name!r} to differentiate by; "
                f"it has {', '.join(by_name)}"
            )
        node = by_name[name]
        if not node.type.dtype.is_float:
            raise DifferentiationError(
                f"graph {graph.name}: the input {name!r}{graph.place(node)} is {node.type}; "
                "only float inputs have derivatives: leave it out of wrt, or cast it to f64"
            )
    return [by_name[name] for name in names]


def check_free(graph: Graph, what: str, taken: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if name in taken:
            raise SignatureError(
                f"graph {graph.name} already has an {what} {name!r}: give that another name"
            )


def tangent(graph: Graph, wrt: Sequence[str]) -> Graph:
    """The graph, with a further input `d_x` for each of `wrt` and a further output `d_y` for each
    float output.
    """
    nodes = float_inputs(graph, wrt)
    floats = [name for name, n in graph.outputs if n.type.dtype.is_float]
    check_free(graph, "input", [n["name"] for n in graph.inputs], [f"d_{name}" for name in wrt])
    check_free(
        graph, "output", [name for name, _ in graph.outputs], [f"d_{name}" for name in floats]
    )
    builder, fresh = open_graph(graph)
    here = builder.inline(graph, [fresh[n] for n in graph.inputs])
    directions = [builder.input(f"d_{name}", n.type) for name, n in zip(wrt, nodes, strict=True)]
    outputs = {name: here[n] for name, n in graph.outputs}
    ends = [outputs[name] for name in floats]
    moved = push_forward(builder, ends, [fresh[n] for n in nodes], directions)
    for name, end, t in zip(floats, ends, moved, strict=True):
        outputs[f"d_{name}"] = end.zeros_like() if t is None else t
    return builder.graph(graph.name, outputs)
