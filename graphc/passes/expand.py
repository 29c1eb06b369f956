"""Put what composite gates stand for in their place.

In:   values of one builder, and which nodes to expand.
Out:  the same values, computed without those nodes.
Invariant: the meaning of a composite gate is its expansion, so no bit changes.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64[3])
>>> y, = expand(b, [b.apply("softmax", x, axis=0)], is_composite)
>>> print(y.node.op)
div
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphc.gates.gate import registry
from graphc.ir.graph import Builder, Node, Value, reachable


def is_composite(node: Node) -> bool:
    return node.gate.kind == "composite"


def has_no_derivative(node: Node) -> bool:
    """A composite whose own derivative is that of its parts: it must be expanded to be
    differentiated.
    """
    gate: Any = node.gate
    if gate.kind != "composite" or not node.type.dtype.is_float:
        return False
    return node.op == "jacobian" or not gate.has_backward(node)


def expand(
    builder: Builder,
    values: Sequence[Value],
    wanted: Callable[[Node], bool],
    kept: Iterable[Node] = (),
) -> list[Value]:
    """The values without wanted nodes, those that expansions bring along included; `kept` nodes
    stay.
    """
    values, kept = list(values), frozenset(kept)
    gates = registry()
    composites = {name for name, gate in gates.items() if gate.kind == "composite"}
    while True:
        nodes = reachable(v.node for v in values)
        found = {n for n in nodes if n.op in composites and n not in kept and wanted(n)}
        if not found:
            return values
        mapping = _expand_once(builder, nodes, found, kept)
        values = [Value(builder, mapping[v.node]) for v in values]


def _expand_once(
    builder: Builder, nodes: Sequence[Node], found: set[Node], kept: frozenset[Node]
) -> dict[Node, Node]:
    mapping: dict[Node, Node] = {}
    for node in nodes:
        args = node.args if node in kept else tuple(mapping[a] for a in node.args)
        if node in found:
            operands = [Value(builder, a) for a in args]
            with builder.made_by("", builder.origins.get(node)):
                gate: Any = node.gate
                mapping[node] = gate.expand(node, operands).node
        elif args == node.args:
            mapping[node] = node
        else:
            mapping[node] = builder.copy(node, args, builder.origins.get(node))
    return mapping
