"""Transpose a linear graph: cotangents of its outputs become cotangents of its inputs.

In:   outputs that are linear in some values, and a cotangent for each output.
Out:  a cotangent for each of those values; zeros where no output depends on it.
Invariant: nodes are visited in reverse order of creation and cotangents are added in that order, so
the same graph always gives the same sums. Those of slices that lie side by side are joined first.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x, ct = b.input("x", f64[3]), b.input("ct", f64[()])
>>> back, = transpose_linear(b, [x.sum(0)], [ct], [x])
>>> print(b.graph("back", {"x": back}, [ct]))
graph back(ct: f64[])
  %1 = expand_dims %ct axes=(0) : f64[1]
  %2 = broadcast %1 shape=(3) : f64[3]
return x=%2
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.gates.gate import registry
from graphc.gates.movement import Movement
from graphc.ir.graph import Builder, Node, Value, is_splat, reachable
from graphc.ir.scalar import from_bits
from graphc.transforms.exchange import shared
from graphc.transforms.places import joined
from graphc.transforms.tangent import check_alike


def transpose_linear(
    builder: Builder,
    outputs: Sequence[Value | None],
    cts: Sequence[Value | None],
    linear_inputs: Sequence[Value],
    made_by: str = "adjoint",
) -> list[Value]:
    """The cotangents of `linear_inputs`; an output that is None does not depend on them."""
    order = _linear_nodes([o.node for o in outputs if o is not None], linear_inputs)
    linear = set(order)
    parts_of: dict[Node, list[Value]] = {}
    for out, ct in zip(outputs, cts, strict=True):
        if out is not None and ct is not None and out.node in linear:
            _contribute(parts_of, out.node, ct, builder)
    gates, origins, unknown = registry(), builder.origins, builder.at
    starts = frozenset(v.node for v in linear_inputs)
    with builder.made_by(made_by, None):
        for node in reversed(order):
            if node not in parts_of or node in starts:
                continue
            mask = [a in linear for a in node.args]
            values = [Value(builder, a) for a in node.args]
            builder.at = builder.through(made_by, origins.get(node), unknown)
            ct = _total(parts_of.pop(node))
            parts = gates[node.op].transpose(node, values, ct, mask)
            for a, part, wanted in zip(node.args, parts, mask, strict=True):
                if wanted and part is not None:
                    _contribute(parts_of, a, part, builder)
        builder.at = unknown
        return [
            _total(parts_of[v.node]) if v.node in parts_of else v.zeros_like()
            for v in linear_inputs
        ]


def _linear_nodes(outputs: Sequence[Node], linear_inputs: Sequence[Value]) -> list[Node]:
    """The nodes that depend on the linear inputs, operands before users."""
    linear = {v.node for v in linear_inputs}
    order = []
    for node in reachable(outputs):
        if node in linear:
            order.append(node)
        elif not linear.isdisjoint(node.args):
            linear.add(node)
            order.append(node)
    return order


def _contribute(parts_of: dict[Node, list[Value]], node: Node, ct: Value, builder: Builder) -> None:
    if node.type is not ct.node.type:
        check_alike("cotangent", Value(builder, node), ct)
    parts_of.setdefault(node, []).append(ct)


def _total(parts: Sequence[Value]) -> Value:
    if len(parts) == 1:
        return parts[0]
    first, *others = shared(joined(parts))
    for ct in others:
        first = _twice(first) if ct.node is first.node else first + ct
    return first


def _twice(ct: Value) -> Value:
    """ct + ct. Where ct is 2^-k of something, it is twice that much of it: the same number, or,
    where ct is subnormal, one nearer to the true one.
    """
    views, node = [], ct.node
    while isinstance(node.gate, Movement) and node.gate.view is not None:
        views.append(node)
        node = node.args[0]
    factor = _number(node.args[0]) if node.op in ("mul", "mul0") else None
    if factor is None or not 0 < abs(factor) < 1 or abs(math.frexp(factor)[0]) != 0.5:
        return ct + ct
    builder = ct.builder
    double = builder.constant(2 * factor, node.args[0].type).node
    made = builder.copy(node, (double, *node.args[1:]), None)
    for view in reversed(views):
        made = builder.copy(view, (made,), None)
    return Value(builder, made)


def _number(node: Node, depth: int = 4) -> float | None:
    """What it is everywhere, if it is made of a few numbers alone."""
    if is_splat(node):
        return float(from_bits(int.from_bytes(node["data"], "little"), node.type.dtype))
    if node.op == "mul" and depth:
        factors = [_number(a, depth - 1) for a in node.args]
        return None if None in factors else math.prod(factors)  # type: ignore[arg-type]
    if isinstance(node.gate, Movement) and node.gate.view is not None:
        return _number(node.args[0], depth)
    return None
