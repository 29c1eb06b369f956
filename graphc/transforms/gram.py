"""Products of points with each other, x @ x.T, whose points have few coordinates: sums, not arrays.

In:   a graph.
Out:  the same, with such a product as a sum over the coordinates of products of elements, where all
      that is made of it, pair by pair, is added up.
Invariant: a product of matrices stays one where what a pair needs is known only after a sum over
      pairs, as in a softmax: it would be computed again for each pass, or kept.

By |x_i|^2 + |x_j|^2 - 2 x_i x_j, distances of n points take an array of n x n numbers, two with a
gradient, and reading it takes longer than the products do. As sums they are computed where they are
needed, and what is known about pairs of points holds for them (`exchange`).

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n", 3])
>>> gram = b.apply("contract", x, x, spec="ik,jk->ij", order="chain")
>>> written = written_out(b.graph("energy", {"y": b.apply("exp", gram).sum(1).sum(0)}))
>>> [n.op for n in written.nodes if n.type.rank > 1 and n.args]
['expand_dims', 'expand_dims', 'broadcast', 'broadcast', 'mul', 'sum', 'exp']
"""

from __future__ import annotations

from graphc.gates.contraction import contracted_letters, parse_spec
from graphc.gates.reduction import SUMS
from graphc.ir.graph import Graph, Node, Value, open_graph

FEW = 4  # coordinates, up to which this is quicker for any number of points


def written_out(graph: Graph) -> Graph:
    found = {node for node in graph.nodes if _is_gram(node) and _is_summed(node, graph)}
    if not found:
        return graph
    builder, fresh = open_graph(graph)
    made = {n: v.node for n, v in fresh.items()}
    for node in graph.nodes:
        if node in made:
            continue
        args = tuple(made[a] for a in node.args)
        if node in found:
            builder.at = graph.origins.get(node, ())
            made[node] = _sums(Value(builder, args[0]), node["spec"]).node
            builder.at = ()
        else:
            made[node] = builder.copy(node, args, graph.origins.get(node))
    outputs = {name: Value(builder, made[n]) for name, n in graph.outputs}
    return builder.graph(graph.name, outputs)


def _is_gram(node: Node) -> bool:
    if node.op != "contract" or node.args[0] is not node.args[1] or not node.type.dtype.is_float:
        return False
    a, b, out = parse_spec(node["spec"])
    k = contracted_letters(node["spec"])
    few = node.args[0].type.shape[a.index(k)]
    return (
        len(out) == 2 and a.index(k) == b.index(k) and isinstance(few, int) and 0 < few <= FEW
    )  # fmt: skip


def _is_summed(gram: Node, graph: Graph) -> bool:
    """Is it seen by elementwise gates alone, until all is added up, and are these sums no more than
    added and scaled?"""
    size = gram.type.shape[0]
    pairs, sums = {gram}, set()
    for node in graph.nodes:
        known = [a for a in node.args if a in pairs]
        summed = [a for a in node.args if a in sums]
        if node is gram or not (known or summed):
            continue
        kind, shape = node.gate.kind, node.type.shape
        if summed:
            if known or shape.count(size) > 1 or not _is_linear(node, summed):
                return False
            sums.add(node)
        elif kind == "contraction" or (kind == "reduction" and node.op in SUMS):
            if shape.count(size) > 1 or len(known) > 1:
                return False
            sums.add(node)
        elif kind in ("elementwise", "movement"):
            pairs.add(node)
        else:
            return False
    return True


def _is_linear(node: Node, summed: list[Node]) -> bool:
    if node.gate.kind == "movement" or node.op in (*SUMS, "add", "sub", "neg"):
        return True
    if node.op == "contract" or node.op == "mul":
        return len(summed) == 1
    return node.op == "div" and summed == [node.args[0]]


def _sums(x: Value, spec: str) -> Value:
    a, b, out = parse_spec(spec)
    k = contracted_letters(spec)
    if a.index(k) == 0:
        x, a = x.transposed((1, 0)), a[::-1]
    rows, columns = x.expand(1), x.expand(0)
    if out[0] != a[0]:
        rows, columns = columns, rows
    n, few = x.shape
    left, right = (v.broadcast((n, n, few)) for v in (rows, columns))
    return (left * right).sum(2)


__all__ = ["written_out"]
