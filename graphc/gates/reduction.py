"""Reductions over one axis, which disappears. Several axes are several nodes, the last axis first.

The order of a float sum or product is an attribute of the node (`lanes` over the last axis, `rows`
over another; see `tree_reduce`), so that schedules, threads and sizes cannot change a bit. Maximum,
minimum, any, all and integer sums give the same bits in any order.

`partial` is the diagonal by which the tangent is multiplied before it is summed: a selection for
max and min.

>>> float(tree_reduce(np.arange(5.0), 0, "lanes", np.add, -0.0))
10.0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.gates.elementwise import (
    _ACCEPTS,
    add,
    eq,
    logical_and,
    logical_or,
    maximum,
    minimum,
    mul,
    mul0,
    where,
)
from graphc.gates.gate import Attrs, Gate, caller, register
from graphc.gates.scan import moved_on
from graphc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from graphc.ir.graph import Node, Value

LEAF = 4  # vectors, or rows, added in sequence before the tree begins
VECTOR_BYTES = 64  # a logical vector
SUMS = ("sum", "sum0")
FEW_FACTORS = 7  # of which each has all others multiplied anew, for a product's derivative


def lanes_of(dtype: DType | np.dtype[Any]) -> int:
    """The elements of a logical vector; of bools, as many as of numbers of 4 bytes."""
    return VECTOR_BYTES // max(dtype.itemsize, 4)


@dataclass(frozen=True, eq=False)
class Reduction(Gate):
    """A monoid folded along an axis."""

    combine: Gate | None = None  # the monoid's elementwise gate
    identity: Callable[[DType], float | int | bool] | None = None
    # (out along the axis, x, axis) -> diagonal
    partial: Callable[[Value, Value, int], Value] | None = None
    accepts: str = "number"
    needs_elements: bool = False  # max and min of nothing are errors
    jacobian: str = "dense row"

    kind: ClassVar[str] = "reduction"

    @property
    def structure(self) -> str:  # type: ignore[override]
        return self.jacobian

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        x, axis = types[0], attrs["axis"]
        if not 0 <= axis < x.rank:
            raise ShapeError(f"{self.name}: axis {axis} of {x}")
        if not _ACCEPTS[self.accepts](x.dtype):
            raise DTypeError(f"{self.name} is not defined on {x.dtype}")
        if self.needs_elements and x.shape[axis] == 0:
            raise ShapeError(f"{self.name} over axis {axis} of {x}: nothing to choose from")
        return x.with_shape(s for i, s in enumerate(x.shape) if i != axis)

    def reference(
        self, node: Node, args: Sequence[np.ndarray], sizes: Mapping[str, int]
    ) -> np.ndarray:
        x, axis = args[0], node["axis"]
        if (
            self.needs_elements
            and x.shape[axis] == 0
            and x.size == 0
            and 0 not in np.delete(x.shape, axis)
        ):
            of = f"axis {axis} of an array of shape {x.shape}"
            raise ShapeError(f"{self.name} over {of}: nothing to choose from")
        assert self.identity is not None and self.combine is not None
        dtype = node.args[0].type.dtype
        fold = _combine(self.combine, dtype)
        return tree_reduce(x, axis, node["order"], fold, self.identity(dtype))

    def tangent(
        self, node: Node, values: Sequence[Value], out: Value, tangents: Sequence[Value | None]
    ) -> Value | None:
        t, x, axis = tangents[0], values[0], node["axis"]
        if t is None:
            return None
        if self.name in SUMS:
            return t.builder.apply(self.name, t, axis=axis, order=node["order"])
        if self.partial is None:
            return None
        return mul0(t, self.partial(out.along(axis, x), x, axis)).sum(axis)

    def transpose(
        self, node: Node, values: Sequence[Value], ct: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        if self.name not in SUMS:
            return super().transpose(node, values, ct, linear)
        return [ct.along(node["axis"], values[0])]


def _combine(gate: Gate, dtype: DType) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    from graphc.ir.reference import run_scalar

    graph = gate.body_graph((dtype, dtype))
    return lambda a, b: run_scalar(graph, a, b)


def tree_reduce(
    x: np.ndarray,
    axis: int,
    order: str,
    fold: Callable[[np.ndarray, np.ndarray], np.ndarray],
    identity: float | int | bool,
) -> np.ndarray:
    """Fold along an axis in the order's tree.

    `rows`: elements in runs of 4, each run folded in sequence; runs meet in a binary counter (two
    of one size make one of twice the size), and what is left at the end is folded smallest first.
    `lanes`: the same over vectors of L = 64 / itemsize elements; then lane l takes lane l + L/2,
    l + L/4, ... 1. A ragged end is filled with the identity, which changes no bit. The error of a
    float sum over n elements is at most (ceil(log2 n) + 2) eps sum|x| (Higham, Accuracy and
    Stability of Numerical Algorithms, 4.2).
    """
    x = np.moveaxis(x, axis, 0)
    lanes = lanes_of(x.dtype) if order == "lanes" else 1
    n = x.shape[0]
    if n == 0:
        start = 0 if identity == 0 else identity
        return np.full(x.shape[1:], start, x.dtype)
    missing = -n % (LEAF * lanes)
    x = np.concatenate([x, np.full((missing, *x.shape[1:]), identity, x.dtype)]) if missing else x
    x = x.reshape(x.shape[0] // (LEAF * lanes), LEAF, lanes, *x.shape[1:])
    folded = x[:, 0]
    for i in range(1, LEAF):
        folded = fold(folded, x[:, i])
    total = _counter(folded, fold)
    while total.shape[0] > 1:
        half = total.shape[0] // 2
        total = fold(total[:half], total[half:])
    return total[0]


def _counter(
    leaves: np.ndarray, fold: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """A binary counter over all leaves, level by level; the odd one out waits for the end."""
    waiting = []
    while leaves.shape[0] > 1:
        if leaves.shape[0] % 2:
            waiting.append(leaves[-1])
        pairs = leaves.shape[0] // 2 * 2
        leaves = fold(leaves[0:pairs:2], leaves[1:pairs:2])
    waiting.append(leaves[0])
    total = waiting[0]
    for larger in waiting[1:]:
        total = fold(larger, total)
    return total


def reduction(name: str, doc: str, **fields: Any) -> Reduction:
    return register(
        Reduction(
            name=name, doc=doc, params=("x",), attrs=("axis", "order"), source=caller(), **fields
        )
    )


def _share(out: Value, x: Value, axis: int) -> Value:
    """1 / count where x is the extremum, else 0: ties share the gradient evenly."""
    chosen = eq(x, out).cast(x.dtype)
    return chosen / chosen.sum(axis).along(axis, x)


def _others(out: Value, x: Value, axis: int) -> Value:
    """For each element the product of those before it, times that of those behind it: exact at
    zeros, and differentiable again.
    """
    n = x.shape[axis]
    if isinstance(n, int) and n <= FEW_FACTORS and axis == len(x.shape) - 1:
        return _pairwise(x, axis)
    up, down = (x.builder.apply("cumprod", x, axis=axis, reverse=r) for r in (False, True))
    return moved_on(up, axis, 1, 1.0) * moved_on(down, axis, -1, 1.0)


def _pairwise(x: Value, axis: int) -> Value:
    """For each element, all others anew."""
    n = x.shape[axis]
    wide = (*x.shape[: axis + 1], n, *x.shape[axis + 1 :])
    repeated = x.expand(axis).broadcast(wide)
    index = x.builder.apply("iota", axis=axis, shape=wide)
    itself = eq(index, x.builder.apply("iota", axis=axis + 1, shape=wide))
    others = where(itself, repeated.constant(1), repeated)
    return x.builder.apply("prod", others, axis=axis + 1, order=_order(others, axis + 1))


def _order(x: Value, axis: int) -> str:
    return "lanes" if axis == len(x.shape) - 1 else "rows"


def _lowest(dtype: DType) -> float | int:
    return float("-inf") if dtype.is_float else np.iinfo(dtype.numpy).min


def _highest(dtype: DType) -> float | int:
    return float("inf") if dtype.is_float else np.iinfo(dtype.numpy).max


sum_ = reduction(
    "sum", "The sum along an axis.", combine=add, identity=lambda d: -0.0 if d.is_float else 0,
    jacobian="dense row of ones",
)  # fmt: skip
sum0 = reduction(
    "sum0", "The sum along an axis, +0 where it is 0: of terms whose zeros may have either sign.",
    combine=add, identity=lambda d: 0, jacobian="dense row of ones",
)  # fmt: skip
prod = reduction(
    "prod", "The product along an axis.", combine=mul, identity=lambda d: 1, partial=_others
)
max_ = reduction(
    "max", "The largest along an axis; NaN if any is; ties share the gradient.",
    combine=maximum, identity=_lowest, partial=_share, needs_elements=True, jacobian="selection",
)  # fmt: skip
min_ = reduction(
    "min", "The smallest along an axis; NaN if any is; ties share the gradient.",
    combine=minimum, identity=_highest, partial=_share, needs_elements=True, jacobian="selection",
)  # fmt: skip
any_ = reduction(
    "any", "Any true along an axis.", combine=logical_or, identity=lambda d: False,
    accepts="bool", jacobian="zero",
)  # fmt: skip
all_ = reduction(
    "all", "All true along an axis.", combine=logical_and, identity=lambda d: True,
    accepts="bool", jacobian="zero",
)  # fmt: skip
