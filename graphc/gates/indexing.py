"""Indexing: the Jacobian of `take` is a selection; its transpose adds up, index after index.

An index may be negative down to -n. One that is out of bounds is an IndexError, and no output is
touched.

>>> checked(np.array([-1, 2]), 3)
array([2, 2])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import DTypeError, IndexOutOfBounds, ShapeError
from graphc.gates.gate import Attrs, Gate, caller, register
from graphc.ir.types import Size, TensorType, evaluate

if TYPE_CHECKING:
    from graphc.ir.graph import Node, Value


@dataclass(frozen=True, eq=False)
class Take(Gate):
    """x[..., index, ...] along one axis: the axes of the index take the place of that axis."""

    kind: ClassVar[str] = "indexing"
    structure: ClassVar[str] = "selection"

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        x, index, axis = types[0], types[1], attrs["axis"]
        _check_index(self.name, index)
        if not 0 <= axis < x.rank:
            raise ShapeError(f"take: axis {axis} of {x}")
        return x.with_shape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))

    def reference(
        self, node: Node, args: Sequence[np.ndarray], sizes: Mapping[str, int]
    ) -> np.ndarray:
        x, index = args
        return np.take(x, checked(index, x.shape[node["axis"]]), node["axis"])

    def tangent(
        self, node: Node, values: Sequence[Value], out: Value, tangents: Sequence[Value | None]
    ) -> Value | None:
        if tangents[0] is None:
            return None
        return out.builder.apply("take", tangents[0], values[1], axis=node["axis"])

    def transpose(
        self, node: Node, values: Sequence[Value], ct: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        shape = node.args[0].type.shape
        return [
            ct.builder.apply("scatter_add", ct, values[1], axis=node["axis"], shape=shape),
            None,
        ]


@dataclass(frozen=True, eq=False)
class ScatterAdd(Gate):
    """Zeros of a shape, to which updates are added at the indices, in the order of the indices."""

    kind: ClassVar[str] = "indexing"
    structure: ClassVar[str] = "selection, transposed"

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        updates, index, axis = types[0], types[1], attrs["axis"]
        shape: tuple[Size, ...] = tuple(attrs["shape"])
        _check_index(self.name, index)
        if updates.dtype.is_bool:
            raise DTypeError(
                "scatter_add: updates are bool, which has no sum; cast them to an integer"
            )
        if updates.shape != (*shape[:axis], *index.shape, *shape[axis + 1 :]):
            of = f"axis {axis} of ({', '.join(map(str, shape))})"
            raise ShapeError(f"scatter_add: updates {updates} at {index} along {of}")
        return updates.with_shape(shape)

    def reference(
        self, node: Node, args: Sequence[np.ndarray], sizes: Mapping[str, int]
    ) -> np.ndarray:
        updates, index = args
        axis, shape = node["axis"], tuple(evaluate(s, sizes) for s in node["shape"])
        out = np.zeros(shape, updates.dtype)
        rows = np.moveaxis(out, axis, 0)
        places = checked(index, shape[axis]).reshape(-1)
        parts = updates.reshape(*shape[:axis], places.size, *shape[axis + 1 :])
        with np.errstate(all="ignore"):
            for i, part in zip(places, np.moveaxis(parts, axis, 0), strict=True):
                rows[i] += part
        return out

    def tangent(
        self, node: Node, values: Sequence[Value], out: Value, tangents: Sequence[Value | None]
    ) -> Value | None:
        if tangents[0] is None:
            return None
        return out.builder.apply("scatter_add", tangents[0], values[1], **dict(node.attrs))

    def transpose(
        self, node: Node, values: Sequence[Value], ct: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        return [ct.builder.apply("take", ct, values[1], axis=node["axis"]), None]


def _check_index(name: str, index: TensorType) -> None:
    if not index.dtype.is_int:
        raise DTypeError(f"{name}: the index is {index.dtype}; use int64 or int32")


def checked(index: np.ndarray, n: int) -> np.ndarray:
    """Indices with negatives wrapped once; an IndexError names the first that is out of bounds."""
    wrong = (index < -n) | (index >= n)
    if wrong.any():
        first = int(np.asarray(index)[wrong].reshape(-1)[0])
        raise IndexOutOfBounds(f"index {first} is out of bounds for an axis of size {n}")
    return np.where(index < 0, index + n, index)


take = register(
    Take(
        name="take", doc="Elements at integer indices along an axis.",
        params=("x", "index"), attrs=("axis",), source=caller(1),
    )
)  # fmt: skip
scatter_add = register(
    ScatterAdd(
        name="scatter_add", doc="Updates added at integer indices along an axis of zeros.",
        params=("updates", "index"), attrs=("axis", "shape"), source=caller(1),
    )
)  # fmt: skip
