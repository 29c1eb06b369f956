"""A value with two of its axes exchanged, written out: no array is transposed.

In:   a value, and which two axes.
Out:  the same operations on operands with exchanged axes, down to vectors along one of them, which
      are broadcast along the other one instead; or None, where an array has both axes, or where a
      long computation would be there twice.
Invariant: each element is what it was, to the bit, for it is made of the same numbers.

What is the same with its axes exchanged, as a distance between two points, stays as it is.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> m = b.input("m", f64["n"])
>>> row, column = (m.expand(axis).broadcast(f64["n", "n"].shape) for axis in (1, 0))
>>> Mirror(b, 0, 1).of((row / column).node).op
'div'
>>> Mirror(b, 0, 1).of((row * column).node) is (row * column).node
True
"""

from __future__ import annotations

from graphc.gates.movement import IndexMap, Movement
from graphc.gates.reduction import Reduction
from graphc.ir.graph import Builder, Node, Value, reachable
from graphc.ir.types import Size
from graphc.transforms.likeness import Axes, Comparison, core

SHORT = 8  # operations of a gate that may be there twice
MOST = 64  # operations on arrays, likewise


class Mirror:
    """Values with the axes i and j exchanged."""

    def __init__(self, builder: Builder, i: int, j: int) -> None:
        self.builder, self.axes = builder, (i, j)
        self.comparison = Comparison()
        self.made: dict[tuple[Node, int, int], Node | None] = {}

    def of(self, node: Node) -> Node | None:
        return self._of(node, *self.axes)

    def _of(self, node: Node, i: int, j: int) -> Node | None:
        key = node, i, j
        if key not in self.made:
            if len(self.made) >= MOST:
                return None
            self.made[key] = None
            self.made[key] = self._written(node, i, j)
        return self.made[key]

    def _written(self, node: Node, i: int, j: int) -> Node | None:
        shape, gate = node.type.shape, node.gate
        if shape[i] != shape[j]:
            return None
        alike = self.comparison.compare(node, node, _exchanged(len(shape), i, j))
        if alike is not None and alike.exact and alike.sign >= 0:
            return node
        if isinstance(gate, Movement) and gate.view is not None:
            return self._seen(node, gate.view(node), i, j)
        if isinstance(gate, Reduction):
            axis = node["axis"]
            of = self._of(node.args[0], i + (i >= axis), j + (j >= axis))
            return None if of is None else self.builder.copy(node, (of,), None)
        if gate.kind != "elementwise" or not node.args:
            return None
        if len(gate.body_graph(tuple(a.type.dtype for a in node.args)).code) > SHORT:
            return None
        made = [self._of(arg, i, j) for arg in node.args]
        args = tuple(a for a in made if a is not None)
        return self.builder.copy(node, args, None) if len(args) == len(made) else None

    def _seen(self, node: Node, along: IndexMap, i: int, j: int) -> Node | None:
        """A view of what it shows, if that has both axes; else along the other of the two."""
        (source,) = node.args
        first, second = (
            next((k for k, e in enumerate(along) if e.axis == axis), None) for axis in (i, j)
        )
        if first is None or second is None:
            if self._waits(node, node.type.shape[i]):
                return None
            perm = _exchanged(len(node.type.shape), i, j)
            return self.builder.apply("transpose", Value(self.builder, node), perm=perm).node
        if along[first]._replace(axis=None) != along[second]._replace(axis=None):
            return None
        of = self._of(source, first, second)
        return None if of is None else self.builder.copy(node, (of,), None)

    def _waits(self, node: Node, size: Size) -> bool:
        """Is it known only after a pass over pairs?"""
        _, source, _ = core(node)
        return any(n.type.shape.count(size) > 1 for n in reachable([source]))


def _exchanged(rank: int, i: int, j: int) -> Axes:
    perm = list(range(rank))
    perm[i], perm[j] = j, i
    return tuple(perm)


__all__ = ["Mirror"]
