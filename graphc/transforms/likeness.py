"""How two values are alike whose axes have other numbers, seen on their graphs.

A value may be another one to the bit, or its opposite, or either up to the sign of zeros. An
operand of anything but sums and products counts as alike only if it is so to the bit: no infinity,
no branch and no comparison depends on which of the two is computed.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> left, right = (x.expand(axis).broadcast(f64["n", "n"].shape) for axis in (1, 0))
>>> apart = (left - right).node
>>> Comparison().compare(apart, apart, (1, 0))
Likeness(sign=-1, exact=False)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphc.gates.movement import IndexMap, Movement, compose, identity_map
from graphc.gates.reduction import SUMS
from graphc.ir.graph import Node, is_splat

EXCHANGEABLE = frozenset(("add", "mul", "sub", "eq", "ne", "logical_and", "logical_or"))  # operands
PRODUCTS = frozenset(("mul", "mul0", "div"))  # their sign is the product of their operands' signs
EVEN = frozenset((
    "abs", "asinh_partial", "atan_partial", "cos", "cosh", "erf_partial", "erfinv_partial",
    "ndtr_partial", "sigmoid_partial", "sinc", "square", "tanh_partial",
))  # fmt: skip
ODD = frozenset((  # and 0 at 0
    "asin", "asinh", "atan", "atanh", "cbrt", "erf", "erfinv", "round", "sign", "sin",
    "sinc_partial", "sinh", "stop_gradient", "tan", "tanh", "trunc",
))  # fmt: skip
COMPARISONS = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))
REDUCTIONS = frozenset((*SUMS, "prod", "max", "min", "all", "any"))
VISITS = 1000  # pairs of nodes that a comparison looks at, at most,
DEPTH = 100  # and how far from where it begins

Axes = tuple[int, ...]  # for each axis of one value the axis of the other


class Likeness(NamedTuple):
    """One value is `sign` times another: to the bit, or up to the sign of zeros.

    A zero everywhere has the sign 0, for it is either.
    """

    sign: int
    exact: bool


SAME = Likeness(1, True)


class Comparison:
    """Two values, operand by operand, as far down as they may differ."""

    def __init__(self) -> None:
        self.known: dict[tuple[Node, Node, Axes], Likeness | None] = {}
        self.depth = 0

    def compare(self, a: Node, b: Node, axes: Axes) -> Likeness | None:
        """How b, its axes numbered as `axes` says, is like a."""
        if a is b and axes == tuple(range(len(axes))):
            return SAME
        key = a, b, axes
        if key not in self.known:
            if len(self.known) >= VISITS or self.depth >= DEPTH:
                return None
            self.known[key] = None  # operands never lead back here
            self.depth += 1
            self.known[key] = self._compared(a, b, axes)
            self.depth -= 1
        return self.known[key]

    def _compared(self, a: Node, b: Node, axes: Axes) -> Likeness | None:
        if any(s != b.type.shape[k] for s, k in zip(a.type.shape, axes, strict=True)):
            return None
        (sign, x, along), (other, y, beyond) = core(a), core(b)
        if x is not a or y is not b:
            below = matched(along, beyond, axes)
            likeness = None if below is None else self.compare(x, y, below)
            return likeness and Likeness(sign * other * likeness.sign, likeness.exact)
        if x.op != y.op or x.type.dtype is not y.type.dtype or len(x.args) != len(y.args):
            return None
        if is_splat(x) and is_splat(y):
            return _of_numbers(x, y)
        if not x.args:
            return None
        if x.op in REDUCTIONS:
            return self._reduced(x, y, axes)
        if x.gate.kind != "elementwise" or x.attrs != y.attrs:
            return None
        op = "square" if _is_square(x) and _is_square(y) else x.op
        likeness = _combined(op, [self.compare(p, q, axes) for p, q in zip(x.args, y.args)])
        if likeness is None and x.op in EXCHANGEABLE:
            likeness = _combined(
                x.op, [self.compare(p, q, axes) for p, q in zip(x.args, y.args[::-1])]
            )
            if likeness is not None and x.op == "sub":
                likeness = Likeness(-likeness.sign, False)  # a - a is +0 either way
        return likeness

    def _reduced(self, a: Node, b: Node, axes: Axes) -> Likeness | None:
        if dict(a.attrs).get("order") != dict(b.attrs).get("order"):
            return None
        likeness = self.compare(a.args[0], b.args[0], with_axis(axes, a["axis"], b["axis"]))
        return likeness if likeness is None or a.op in SUMS else _strictly([likeness])


def _is_square(node: Node) -> bool:
    return node.op == "mul" and node.args[0] is node.args[1]


def _of_numbers(a: Node, b: Node) -> Likeness | None:
    if a["data"] != b["data"]:
        return None
    return Likeness(1 if any(a["data"]) else 0, True)


def _combined(op: str, operands: Sequence[Likeness | None]) -> Likeness | None:
    """How two results of a gate are alike, if their operands are as said."""
    known = [o for o in operands if o is not None]
    if len(known) < len(operands):
        return None
    if op in ("add", "sub") or op in ODD:
        return _in_common(known)
    if op == "where":
        return _in_common(known[1:]) if _strictly(known[:1]) else None
    if op in PRODUCTS and (op != "div" or _strictly(known[1:])):
        first, second = known
        exact = first.exact and second.exact and first.sign * second.sign == 1
        return Likeness(first.sign * second.sign, exact)
    if op in EVEN:
        return SAME
    if op in COMPARISONS:
        common = _in_common(known)
        return SAME if common and (common.sign >= 0 or op in ("eq", "ne")) else None
    return _strictly(known)


def _in_common(operands: Sequence[Likeness]) -> Likeness | None:
    """All have one sign, and so has what is linear in them."""
    signs = {o.sign for o in operands if o.sign}
    if len(signs) > 1:
        return None
    sign = signs.pop() if signs else 0
    return Likeness(sign, sign >= 0 and all(o.exact for o in operands))


def _strictly(operands: Sequence[Likeness]) -> Likeness | None:
    """Any function of operands that are the same to the bit is."""
    return SAME if all(o.exact and o.sign >= 0 for o in operands) else None


# -- axes ------------------------------------------------------------------------------------------


def core(node: Node) -> tuple[int, Node, IndexMap]:
    """A value below its views and changes of sign: its sign, and where its axes are now."""
    sign, along = 1, identity_map(node.type.rank)
    while True:
        gate = node.gate
        if node.op == "neg":
            sign = -sign
        elif isinstance(gate, Movement) and gate.view is not None:
            along = compose(gate.view(node), along)
        else:
            return sign, node, along
        node = node.args[0]


def matched(a: IndexMap, b: IndexMap, axes: Sequence[int]) -> Axes | None:
    """Two sources seen through maps: for each axis of one the axis of the other, where `axes` says
    the same of what they are seen as.
    """
    if len(a) != len(b):
        return None
    free, found = list(range(len(b))), []
    for entry in a:
        there = entry if entry.axis is None else entry._replace(axis=axes[entry.axis])
        place = next((k for k in free if b[k] == there), None)
        if place is None:
            return None
        free.remove(place)
        found.append(place)
    return tuple(found)


def with_axis(axes: Axes, a: int, b: int) -> Axes:
    """The same of the operands of reductions over the axes a and b."""
    moved = [k + (k >= b) for k in axes]
    return (*moved[:a], b, *moved[a:])


__all__ = ["Axes", "Comparison", "Likeness", "core", "matched", "with_axis"]
