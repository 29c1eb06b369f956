"""Save or recompute: which forward values the backward graph gets, and which it computes again.

In:   the joint graph of values and gradients.
Out:  a map {node: "save" | "recompute"} of the forward values that the gradients need.
Invariant: reductions, contractions and indexing are never recomputed; elementwise gates and
movements may be. Among these the bytes saved are the fewest: a minimum cut, as near to the
gradients as it gets. Constants, sizes and indices are free.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x, ct = b.input("x", f64["n"]), b.input("ct", f64["n", "n"])
>>> wide = (x * x).broadcast(ct.shape)
>>> joint = b.graph("f", {"y": wide, "grad": ct * wide})
>>> print(list(keep(joint, ("y",), ("ct",)).items()))
[(<mul : f64[n]>, 'save'), (<broadcast : f64[n,n]>, 'recompute')]
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from graphc.ir.graph import Graph, Node
from graphc.passes.partition import depends, needed, nominal_bytes

FREE = frozenset({"constant", "size", "iota"})
CHEAP = frozenset({"elementwise", "movement"})  # kinds that may be computed twice
LARGEST_CUT = 5000  # nodes; above, the frontier is saved


def keep(
    joint: Graph, forward_outputs: Collection[str], ct_inputs: Collection[str]
) -> dict[Node, str]:
    """What to save for the gradients, and what to compute again."""
    frontier = _frontier(joint, forward_outputs, ct_inputs)
    nodes = needed(frontier, ())
    saved = (
        _smallest_cut(nodes, frontier) if len(nodes) <= LARGEST_CUT else _near_frontier(frontier)
    )
    return {
        n: "save" if n in saved else "recompute"
        for n in needed(frontier, saved)
        if n.op not in FREE
    }


def _frontier(
    joint: Graph, forward_outputs: Collection[str], ct_inputs: Collection[str]
) -> list[Node]:
    """The forward values that gradients use at once."""
    backward = depends(joint, ct_inputs)
    gradients = [n for name, n in joint.outputs if name not in forward_outputs]
    used = [a for n in needed(gradients, ()) if n in backward for a in n.args]
    return [n for n in dict.fromkeys([*used, *gradients]) if n not in backward]


def _near_frontier(frontier: Sequence[Node]) -> frozenset[Node]:
    """The frontier, with movements that make no smaller values undone."""
    saved: dict[Node, None] = {}
    for node in frontier:
        while (
            node.gate.kind == "movement"
            and len(node.args) == 1
            and nominal_bytes(node.args[0]) <= nominal_bytes(node)
        ):
            node = node.args[0]
        if node.op not in FREE:
            saved[node] = None
    return frozenset(saved)


def _smallest_cut(nodes: Sequence[Node], frontier: Sequence[Node]) -> frozenset[Node]:
    """The minimum cut between what is computed and what the gradients use, nearest to the latter.

    Each value is an edge with the capacity of its bytes; all other edges have no limit.
    """
    import networkx

    network = networkx.DiGraph()
    network.add_nodes_from(("forward", "gradients"))
    place = {n: i for i, n in enumerate(nodes)}
    for n, i in place.items():
        network.add_edge((i, "before"), (i, "after"), **_capacity(n))
        if n.op not in FREE and (n.op == "input" or n.gate.kind not in CHEAP):
            network.add_edge("forward", (i, "before"))
        for a in n.args:
            network.add_edge((place[a], "after"), (i, "before"))
    for n in frontier:
        network.add_edge((place[n], "after"), "gradients")
    search = networkx.algorithms.flow.boykov_kolmogorov
    _, (_, behind) = networkx.minimum_cut(network, "forward", "gradients", flow_func=search)
    return frozenset(
        n for n, i in place.items() if (i, "after") in behind and (i, "before") not in behind
    )


def _capacity(node: Node) -> dict[str, Any]:
    return {} if node.op in FREE else {"capacity": nominal_bytes(node)}
