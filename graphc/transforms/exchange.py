"""Cotangents that are one array, computed along exchanged axes: computed once.

In:   the cotangents of a value.
Out:  as many or fewer with the same sum, up to the order of sums, the sign of zeros, and a factor
      that products have in common.
Invariant: what counts as alike is so to the bit but below sums and products (`likeness`).

The energy of pairs of points is a sum over i and j of e(x_i - x_j). By the chain rule x_k takes the
forces F_kj, summed over j, less the forces F_ik, summed over i. But F_ik is -F_ki: the second sum
is the first. Seen on its graph, F is what it was, with another sign, when i and j are exchanged.
So it is without a sum: the gradient of a function of a - a.T is twice one array, not that and its
transpose. Where F_ik is no more than like -F_ki, as with a mass on one side, x_k takes F_kj - F_jk,
in one sum over j, in which F_jk is written out (`mirror`): a distance is still there once.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> left, right = (x.expand(axis).broadcast(f64["n", "n"].shape) for axis in (1, 0))
>>> force = (left - right) * 2.0
>>> one, other = shared([force.sum(1), (-force).sum(0)])
>>> one.node is other.node
True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphc.gates.movement import IndexMap, identity_map
from graphc.gates.reduction import SUMS
from graphc.ir.graph import Builder, Node, Value
from graphc.transforms.likeness import Axes, Comparison, core, matched, with_axis
from graphc.transforms.mirror import Mirror

KNOWN = 4  # sums with which another one is compared


class _Term(NamedTuple):
    """A cotangent, seen through movements that select nothing twice: a sum, or made by elements."""

    value: Value
    sign: int
    node: Node
    map: IndexMap  # where the cotangent's axes are among the node's

    @property
    def is_sum(self) -> bool:
        return self.node.op in SUMS

    @property
    def is_moved(self) -> bool:
        return self.map != identity_map(len(self.map))


def shared(cotangents: Sequence[Value]) -> list[Value]:
    """The cotangents, with those that equal others replaced by these, and sums over exchanged axes
    that do not put into one."""
    if len(cotangents) < 2:
        return list(cotangents)
    found = {i: t for i, ct in enumerate(cotangents) if (t := _as_term(ct)) is not None}
    if len(found) < 2:
        return list(cotangents)
    made, entered = list(cotangents), set()
    known: list[tuple[int, _Term]] = []
    for i, t in sorted(found.items(), key=lambda item: (*_preference(item[1]), item[0])):
        signs = ((k, other, _sign_between(other, t)) for k, other in known)
        k, other, sign = next((s for s in signs if s[2]), (i, t, 0))
        if sign:
            if t.is_sum and t.node is not other.node:
                made[k] = _summed_instead(made[k])
            made[i] = made[k] if sign == 1 else -made[k]
            continue
        both = ((k, other, _in_one(made[k], other, t)) for k, other in known)
        k, other, total = next((s for s in both if s[2] is not None), (i, t, None))
        if total is not None:
            made[k] = total
            known.remove((k, other))
            entered.add(i)
        elif len(known) < KNOWN:
            known.append((i, t))
    return [ct for i, ct in enumerate(made) if i not in entered]


def _in_one(ct: Value, a: _Term, b: _Term) -> Value | None:
    """Two sums over exchanged axes that are not alike, as one: its terms are a's, and with each of
    them that of b, written out along a's axes.
    """
    if not a.is_sum or not b.is_sum or a.node.type.dtype is not b.node.type.dtype:
        return None
    kept = matched(a.map, b.map, range(a.value.type.rank))
    if kept is None:
        return None
    axes = with_axis(kept, a.node["axis"], b.node["axis"])
    of_a, of_b, sign = a.node.args[0], b.node.args[0], b.sign * a.sign
    exchanged = [k for k, axis in enumerate(axes) if k != axis]
    if len(exchanged) != 2 or of_a.type.shape != of_b.type.shape:
        return None
    if of_b.op == "neg":
        sign, of_b = -sign, of_b.args[0]
    terms = _with_mirrored(Mirror(ct.builder, *exchanged), of_a, of_b, sign, axes)
    return None if terms is None else _summed_instead(ct, terms)


def _with_mirrored(mirror: Mirror, a: Node, b: Node, sign: int, axes: Axes) -> Value | None:
    """a, and `sign` times b with its axes exchanged; of one product, the factor that is alike is
    taken once.
    """
    builder = mirror.builder
    if a is b and a.op in ("mul", "mul0"):
        for place in (1, 0):
            likeness = mirror.comparison.compare(a.args[place], a.args[place], axes)
            other = a.args[1 - place]
            mirrored = mirror.of(other) if likeness else None
            if likeness and mirrored is not None:
                factor = _added(builder, other, mirrored, sign * (likeness.sign or 1))
                factors = [factor, Value(builder, a.args[1])]
                if place == 0:
                    factors = [Value(builder, a.args[0]), factor]
                return builder.apply(a.op, *factors)
    mirrored = mirror.of(b)
    return None if mirrored is None else _added(builder, a, mirrored, sign)


def _added(builder: Builder, a: Node, b: Node, sign: int) -> Value:
    one, other = Value(builder, a), Value(builder, b)
    return one + other if sign == 1 else one - other


def _summed_instead(ct: Value, terms: Value | None = None) -> Value:
    """A sum, below its views, of other terms, or of its own: its zeros may have either sign. It
    runs in the order `lanes`, whatever axis it is over: in that, what a pair of points adds to one
    of them lies as it does for the other (see `lower.pairs`).
    """
    above, node = [], ct.node
    while node.op not in SUMS:
        above.append(node)
        (node,) = node.args
    terms = terms or Value(ct.builder, node.args[0])
    made = ct.builder.apply("sum0", terms, axis=node["axis"], order="lanes").node
    for view in reversed(above):
        made = ct.builder.copy(view, (made,), None)
    return Value(ct.builder, made)


def _as_term(ct: Value) -> _Term | None:
    sign, node, along = core(ct.node)
    if not ct.dtype.is_float or not (node.op in SUMS or node.gate.kind == "elementwise"):
        return None
    return _Term(ct, sign, node, along)


def _preference(t: _Term) -> tuple[int, bool]:
    """Sums over the last axes first: they stay in registers. Of others, those that lie as made."""
    return (-t.node["axis"], False) if t.is_sum else (1, t.is_moved)


def _sign_between(a: _Term, b: _Term) -> int:
    """s where b is s times a; 0 where it is not known to be either."""
    kept = matched(a.map, b.map, range(a.value.type.rank))
    if kept is None or a.node.type.dtype is not b.node.type.dtype or a.is_sum != b.is_sum:
        return 0
    if a.is_sum:
        axes = with_axis(kept, a.node["axis"], b.node["axis"])
        likeness = Comparison().compare(a.node.args[0], b.node.args[0], axes)
    else:  # along the same axes they would be one node
        likeness = Comparison().compare(a.node, b.node, kept) if a.map != b.map else None
    return 0 if likeness is None else a.sign * b.sign * (likeness.sign or 1)
