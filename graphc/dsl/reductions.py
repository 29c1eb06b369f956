"""Reductions: over no, one, several or all axes, with NumPy's dtypes.

Several axes are one after the other, the last first, so that the order of every sum is fixed at the
trace.

>>> from graphc.dsl.trace import trace
>>> from graphc.ir.types import f64
>>> graph = trace(lambda x: sum_(x), (f64["n", 3],), ("x",)).graph
>>> [(n["axis"], n["order"]) for n in graph.nodes if n.op == "sum"]
[(1, 'lanes'), (0, 'lanes')]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dsl.apply import lifted
from graphc.dsl.pointwise import as_dtype
from graphc.dsl.public import public
from graphc.dsl.recorder import place_text, user_place
from graphc.dsl.tensor import Tensor
from graphc.errors import ShapeError
from graphc.ir.graph import Value, sum_order
from graphc.ir.types import Size, f64, i32, i64, product, size_max

Axis = Any  # None, an int, or a tuple of ints


def axes_of(axis: Axis, rank: int) -> tuple[int, ...]:
    """Axes from 0 on, sorted; None is all."""
    if axis is None:
        return tuple(range(rank))
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = sorted(one_axis(a, rank) for a in given)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"an axis twice in {tuple(given)} at {place_text(user_place())}")
    return tuple(axes)


def one_axis(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    axis = axis.__index__()
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} of an array of rank {rank} at {place_text(user_place())}")
    return axis % rank


def _reduced(x: Value, op: str, axes: Sequence[int], keepdims: bool) -> Value:
    for axis in reversed(axes):
        order = sum_order(x.type, axis) if op in ("sum", "prod") else "any"
        x = x.builder.apply(op, x, axis=axis, order=order)
    return _kept(x, axes, keepdims)


def _kept(x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    return x.builder.apply("expand_dims", x, axes=tuple(axes)) if keepdims and axes else x


def _accumulated(x: Tensor, dtype: Any) -> Value:
    """Sums and products of bools and small integers are of int64."""
    if dtype is not None:
        return x.value.cast(as_dtype(dtype))
    return x.value if x.value.dtype.is_float else x.value.cast(i64)


@public("x")
def sum_(x: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """The sum over axes; of bools and integers an int64."""
    x = lifted(x)
    return Tensor(_reduced(_accumulated(x, dtype), "sum", axes_of(axis, x.ndim), keepdims))


@public("x")
def prod(x: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """The product over axes; of bools and integers an int64."""
    x = lifted(x)
    return Tensor(_reduced(_accumulated(x, dtype), "prod", axes_of(axis, x.ndim), keepdims))


def _extreme(x: Any, axis: Axis, keepdims: bool, op: str, of_bools: str) -> Tensor:
    x = lifted(x)
    _need_elements(x, axes_of(axis, x.ndim), op)
    op = of_bools if x.value.dtype.is_bool else op
    return Tensor(_reduced(x.value, op, axes_of(axis, x.ndim), keepdims))


def _need_elements(x: Tensor, axes: Sequence[int], op: str) -> None:
    if any(x.shape[a] == 0 for a in axes):
        x.recorder.fail(
            ShapeError,
            f"{op} over axes {tuple(axes)} of {x.type}: nothing to choose from",
            of=x.value,
        )


@public("x")
def max_(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The largest over axes; NaN if any is; ties share the gradient."""
    return _extreme(x, axis, keepdims, "max", "any")


@public("x")
def min_(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The smallest over axes; NaN if any is; ties share the gradient."""
    return _extreme(x, axis, keepdims, "min", "all")


@public("x")
def any_(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether any element over axes is true, or other than 0."""
    x = astype_bool(lifted(x))
    return Tensor(_reduced(x.value, "any", axes_of(axis, x.ndim), keepdims))


@public("x")
def all_(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether all elements over axes are true, or other than 0."""
    x = astype_bool(lifted(x))
    return Tensor(_reduced(x.value, "all", axes_of(axis, x.ndim), keepdims))


def astype_bool(x: Tensor) -> Tensor:
    return x if x.value.dtype.is_bool else x.astype(bool)


def _argument(x: Any, axis: int | None, keepdims: bool, op: str) -> Tensor:
    x = lifted(x)
    rank = x.ndim
    x = x.reshape(-1) if axis is None else x
    at = 0 if axis is None else one_axis(axis, rank)
    if x.shape[at] == 0:
        x.recorder.fail(
            ShapeError, f"{op} over axis {at} of {x.type}: nothing to choose from", of=x.value
        )
    value = x.value.cast(i32) if x.value.dtype.is_bool else x.value
    found = value.builder.apply(op, value, axis=at)
    return Tensor(_kept(found, tuple(range(rank)) if axis is None else (at,), keepdims))


@public("x")
def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """The first index of the largest, or of a NaN; of the flattened array without an axis."""
    return _argument(x, axis, keepdims, "argmax")


@public("x")
def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """The first index of the smallest, or of a NaN; of the flattened array without an axis."""
    return _argument(x, axis, keepdims, "argmin")


# -- running values -------------------------------------------------------------------------------


def _running(x: Any, axis: int | None, dtype: Any, op: str) -> Tensor:
    x = lifted(x)
    x = x.reshape(-1) if axis is None or not x.ndim else x
    at = 0 if axis is None else one_axis(axis, x.ndim)
    value = _accumulated(x, dtype)
    return Tensor(value.builder.apply(op, value, axis=at, reverse=False))


@public("x")
def cumsum(x: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """The running sum along an axis, in sequence; of the flattened array without an axis."""
    return _running(x, axis, dtype, "cumsum")


@public("x")
def cumprod(x: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """The running product along an axis, in sequence; of the flattened array without an axis."""
    return _running(x, axis, dtype, "cumprod")


# -- moments --------------------------------------------------------------------------------------


def as_float(x: Any) -> Tensor:
    """Integers and bools become float64."""
    x = lifted(x)
    return x if x.value.dtype.is_float else x.astype(f64)


def _divided(total: Value, count: Size) -> Value:
    """total / count, by a division."""
    number = (
        total.constant(count)
        if isinstance(count, int)
        else total.builder.size(count).cast(total.dtype)
    )
    return total / number.broadcast(total.shape)


@public("x")
def mean(x: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """The sum over axes divided by the count; of integers a float64."""
    x = as_float(x) if dtype is None else lifted(x).astype(dtype)
    axes = axes_of(axis, x.ndim)
    total = _reduced(x.value, "sum", axes, keepdims)
    return Tensor(_divided(total, product(x.shape[a] for a in axes)))


@public("x")
def var(x: Any, axis: Axis = None, dtype: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
    """The mean squared distance from the mean over axes, with the divisor max(count - ddof, 0)."""
    x = as_float(x) if dtype is None else lifted(x).astype(dtype)
    axes = axes_of(axis, x.ndim)
    centred = x.value - mean(x, axes, keepdims=True).value.broadcast(x.shape)
    total = _reduced(x.value.builder.apply("square", centred), "sum", axes, keepdims)
    return Tensor(_divided(total, size_max(product(x.shape[a] for a in axes) - ddof, 0)))


# -- rows as distributions ------------------------------------------------------------------------


@public("x")
def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over axes without overflow; -inf where all are."""
    x = as_float(x)
    axes, value = axes_of(axis, x.ndim), x.value
    _need_elements(x, axes, "logsumexp")
    for a in reversed(axes):
        value = value.builder.apply("logsumexp", value, axis=a)
    return Tensor(_kept(value, axes, keepdims))


def _rows(x: Any, axis: Axis, op: str) -> Tensor:
    """A composite of one axis; several axes are moved to the end and taken as one."""
    x = as_float(x)
    axes = axes_of(axis, x.ndim)
    _need_elements(x, axes, op)
    if len(axes) == 1:
        return Tensor(x.value.builder.apply(op, x.value, axis=axes[0]))
    if not axes:
        return _rows(x.reshape(1), 0, op).reshape(())
    perm = (*(i for i in range(x.ndim) if i not in axes), *axes)
    moved = x.value.transposed(perm)
    kept = moved.shape[: x.ndim - len(axes)]
    flat = moved.reshape((*kept, product(moved.shape[len(kept) :])))
    rows = flat.builder.apply(op, flat, axis=len(kept)).reshape(moved.shape)
    return Tensor(rows.transposed(tuple(np.argsort(perm).tolist())))


@public("x")
def softmax(x: Any, axis: Axis = -1) -> Any:
    """exp(x) / sum(exp(x)) over axes."""
    return _rows(x, axis, "softmax")


@public("x")
def log_softmax(x: Any, axis: Axis = -1) -> Any:
    """x - logsumexp(x) over axes."""
    return _rows(x, axis, "log_softmax")


@public("x")
def count_nonzero(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """How many elements over axes are true, or other than 0."""
    return sum_(astype_bool(lifted(x)), axis, keepdims=keepdims)
