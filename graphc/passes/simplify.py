"""The simplify stage: composites expanded, rules applied, constants folded, equal nodes shared,
dead ones dropped.

In:   a graph.
Out:  a graph with the same inputs and outputs, without composite gates.
Invariant: exact rules alone run, so no bit of any output changes, whatever is skipped. Expansion is
not optional.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> print(simplify(b.graph("f", {"y": -(-(x * 1.0)) - 0.0})))
graph f(x: f64[n])
return y=%x
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from graphc.ir.graph import Graph, open_graph
from graphc.passes.expand import expand, is_composite
from graphc.passes.rewrite import Index, Rewriter
from graphc.passes.rules import RULES


def simplify(
    graph: Graph, skip: Collection[str] = frozenset(), fired: dict[str, int] | None = None
) -> Graph:
    """The graph in normal form.

    `skip` leaves out rules by name, all of them ("rules") or the folding of constants ("fold");
    `fired` receives how often each rule fired.
    """
    builder, fresh = open_graph(graph)
    here = builder.inline(graph, [fresh[n] for n in graph.inputs])
    outputs = expand(builder, [here[n] for n in graph.output_nodes], is_composite)
    rewriter = Rewriter(builder, rules_without(frozenset(skip)), fold="fold" not in skip)
    if fired is not None:
        rewriter.fired = fired
    outputs = rewriter.settle(outputs)
    names = [name for name, _ in graph.outputs]
    return builder.graph(graph.name, dict(zip(names, outputs, strict=True)))


@cache
def rules_without(skip: frozenset[str]) -> Index:
    """The exact rules that are not left out, by root."""
    if "rules" in skip:
        return Index()
    return Index(rule for rule in RULES if rule.exact and rule.name not in skip)
