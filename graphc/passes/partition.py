"""Cut a graph of values and gradients into a forward and a backward graph.

In:   the joint graph, the names of its forward outputs and of its cotangent inputs, and what to
      keep.
Out:  a forward graph, whose further outputs `saved_0`, `saved_1`, ... are residuals; and a backward
      graph from those and the cotangents to the gradients.
Invariant: backward after forward gives the bits of the joint graph, whatever is saved and whatever
is recomputed.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x, ct = b.input("x", f64[()]), b.input("ct_y", f64[()])
>>> joint = b.graph("f", {"y": x * x, "grad_x": ct * (x + x)})
>>> forward, backward = partition(joint, ("y",), ("ct_y",), {x.node: "save"})
>>> print(backward)
graph f_backward(saved_0: f64[], ct_y: f64[])
  %2 = add %saved_0, %saved_0 : f64[]
  %3 = mul %ct_y, %2 : f64[]
return grad_x=%3
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from graphc.ir.graph import Builder, Graph, Node, Value
from graphc.ir.types import Dim, evaluate

NOMINAL = 1024  # what a named size counts for where sizes are weighed


def partition(
    joint: Graph,
    forward_outputs: Collection[str],
    ct_inputs: Collection[str],
    keep: Mapping[Node, str],
) -> tuple[Graph, Graph]:
    """The forward and the backward graph; `keep` maps nodes to "save" or "recompute"."""
    gradients = [(name, n) for name, n in joint.outputs if name not in forward_outputs]
    values = [(name, n) for name, n in joint.outputs if name in forward_outputs]
    cts = [n for n in joint.inputs if n["name"] in ct_inputs]
    primals = [n for n in joint.inputs if n["name"] not in ct_inputs]
    saved = _saved(joint, [n for _, n in gradients], cts, primals, keep)
    residuals = [(f"saved_{i}", n) for i, n in enumerate(saved)]
    named = [(n["name"], n) for n in primals]
    forward = _cut(joint, f"{joint.name}_forward", named, [*values, *residuals])
    starts = [*residuals, *((n["name"], n) for n in cts)]
    return forward, _cut(joint, f"{joint.name}_backward", starts, gradients)


def depends(joint: Graph, inputs: Collection[str]) -> frozenset[Node]:
    """The nodes that depend on inputs of these names, those inputs included."""
    found = {n for n in joint.inputs if n["name"] in inputs}
    for n in joint.nodes:
        if not found.isdisjoint(n.args):
            found.add(n)
    return frozenset(found)


def needed(roots: Iterable[Node], stops: Collection[Node]) -> list[Node]:
    """The roots and what they need, operands first; operands of `stops` are not followed."""
    pending = list(dict.fromkeys(roots))
    seen = set(pending)
    for node in pending:  # grows while it runs
        for a in () if node in stops else node.args:
            if a not in seen:
                seen.add(a)
                pending.append(a)
    return sorted(pending, key=lambda n: n.serial)


def nominal_bytes(node: Node) -> int:
    """The bytes of a value when every named size is 1024."""
    size = node.type.bytes_expr()
    return evaluate(size, dict.fromkeys(size.symbols(), NOMINAL)) if isinstance(size, Dim) else size


def _saved(
    joint: Graph,
    gradients: Sequence[Node],
    cts: Sequence[Node],
    primals: Sequence[Node],
    keep: Mapping[Node, str],
) -> list[Node]:
    """The residuals: what the map says, inputs that are reached, and an input for each size that is
    left unknown.
    """
    stops = {*cts, *primals, *(n for n, what in keep.items() if what == "save")}
    stops -= depends(joint, [n["name"] for n in cts]) - set(cts)
    inside = needed(gradients, stops)
    saved = [n for n in inside if n in stops and n not in cts]
    known = _plain_sizes([*saved, *cts])
    for name in dict.fromkeys(
        s for n in inside if n not in stops or n in gradients for s in _sizes(n)
    ):
        if name not in known:
            carriers = [n for n in primals if name in _plain_sizes([n])]
            saved.append(min(carriers, key=nominal_bytes))
            known = _plain_sizes([*saved, *cts])
    return saved


def _plain_sizes(nodes: Iterable[Node]) -> frozenset[str]:
    return frozenset(
        d.text for n in nodes for d in n.type.shape if isinstance(d, Dim) and d.text.isidentifier()
    )


def _sizes(node: Node) -> Iterable[str]:
    """The named sizes in a node's type and attributes."""
    for value in (*node.type.shape, *(v for _, v in node.attrs)):
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Dim):
                yield from part.symbols()


def _cut(
    joint: Graph, name: str, inputs: Sequence[tuple[str, Node]], outputs: Sequence[tuple[str, Node]]
) -> Graph:
    """The part of the joint graph from some of its nodes, which become inputs, to others."""
    builder = Builder()
    mapping: dict[Node, Node] = {}
    for label, node in inputs:
        builder.at = joint.origins.get(node, ())
        mapping[node] = builder.input(label, node.type).node
    builder.at = ()
    for node in needed((n for _, n in outputs), mapping):
        if node not in mapping:
            mapping[node] = builder.copy(
                node, tuple(mapping[a] for a in node.args), joint.origins.get(node)
            )
    return builder.graph(name, {label: Value(builder, mapping[n]) for label, n in outputs})
