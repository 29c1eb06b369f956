"""The adjoint stage: reverse mode, which is forward mode transposed.

In:   a graph and the names of inputs.
Out:  the graph with gradients `grad_x` as further outputs.
Invariant: the linearisation's tangent inputs do not survive, each cotangent has its primal's type,
products of a cotangent with a partial are `mul0`, and an input that no output needs has the
gradient zero.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x, y = b.input("x", f64[()]), b.input("y", f64[()])
>>> print(adjoint(b.graph("product", {"p": x * y}), ("x",)))
graph product(x: f64[], y: f64[])
  %2 = mul %x, %y : f64[]
  %3 = constant 1.0 : f64[]
  %4 = mul0 %3, %y : f64[]
return p=%2, grad_x=%4
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import DifferentiationError, SignatureError, VerifyError
from graphc.ir.graph import Builder, Graph, Node, Value, open_graph, reachable
from graphc.transforms.tangent import check_alike, check_free, float_inputs, push_forward
from graphc.transforms.transpose import transpose_linear


def pull_back(
    builder: Builder, outputs: Sequence[Value], cts: Sequence[Value], wrt: Sequence[Value]
) -> list[Value]:
    """The gradients by `wrt` of the outputs, weighted with their cotangents."""
    for out, ct in zip(outputs, cts, strict=True):
        check_alike("cotangent", out, ct)
    nominal = {w.node: _nominal(builder, w) for w in wrt}
    directions = list(nominal.values())
    moved = push_forward(
        builder, outputs, [Value(builder, n) for n in nominal], directions, "adjoint"
    )
    found = transpose_linear(builder, moved, cts, directions)
    _check_gone(found, directions)
    gradients = dict(zip(nominal, found, strict=True))
    for w in wrt:
        check_alike("cotangent", w, gradients[w.node])
    return [gradients[w.node] for w in wrt]


def _nominal(builder: Builder, like: Value) -> Value:
    """A tangent input that belongs to no graph."""
    return Value(builder, Node("input", (), (("name", "tangent"),), like.type))


def _check_gone(gradients: Sequence[Value], directions: Sequence[Value]) -> None:
    left = frozenset(d.node for d in directions)
    for node in reachable(g.node for g in gradients):
        if node in left:
            raise VerifyError(
                "a gradient still depends on a tangent: "
                "some gate's transpose uses its linear operand"
            )


def adjoint(graph: Graph, wrt: Sequence[str], seeds: str = "one") -> Graph:
    """The graph's outputs, followed by `grad_x` for each name in `wrt`.

    With the seeds "one" the first output is a float of rank 0, whose gradient is taken; the other
    outputs are passed through. With the seeds "input" each float output y has its cotangent as the
    further input `ct_y`.
    """
    nodes = float_inputs(graph, wrt)
    check_free(
        graph, "output", [name for name, _ in graph.outputs], [f"grad_{name}" for name in wrt]
    )
    builder, fresh = open_graph(graph)
    here = builder.inline(graph, [fresh[n] for n in graph.inputs])
    outputs = {name: here[n] for name, n in graph.outputs}
    ends, cts = _seeded(graph, builder, outputs, seeds)
    gradients = pull_back(builder, ends, cts, [fresh[n] for n in nodes])
    outputs.update((f"grad_{name}", g) for name, g in zip(wrt, gradients, strict=True))
    return builder.graph(graph.name, outputs)


def _seeded(
    graph: Graph, builder: Builder, outputs: dict[str, Value], seeds: str
) -> tuple[list[Value], list[Value]]:
    """The outputs to differentiate, and their cotangents."""
    if seeds == "one":
        name, first = next(iter(outputs.items()))
        if not first.dtype.is_float or first.shape:
            raise DifferentiationError(
                f"graph {graph.name}: the gradient of the output {name!r}"
                f"{graph.place(graph.output_nodes[0])} is asked for, which is {first.type}; "
                "it must be one float number: sum it, or give cotangents"
            )
        return [first], [first.constant(1)]
    if seeds != "input":
        raise SignatureError(f"seeds are 'one' or 'input', not {seeds!r}")
    floats = [name for name, v in outputs.items() if v.dtype.is_float]
    if not floats:
        raise DifferentiationError(f"graph {graph.name} has no float output to differentiate")
    check_free(graph, "input", [n["name"] for n in graph.inputs], [f"ct_{name}" for name in floats])
    return [outputs[name] for name in floats], [
        builder.input(f"ct_{name}", outputs[name].type) for name in floats
    ]
