"""Indexing: x[i, 1:, None, ..., indices] -> slices, new axes and one take.

In:   a traced array and what stands between the brackets.
Out:  a traced array of NumPy's shape for the same index.
Invariant: an index that a kernel reads is checked, and one that is known here is checked here.
Sizes with names stay exact: bounds become max and min of sizes, so that sizes 0 and 1 need no
variant.

>>> from graphc.dsl.trace import trace
>>> from graphc.ir.types import f64
>>> trace(lambda x: x[1:, ::-2], (f64["n", 5],), ("x",)).graph.outputs[0][1].type
f64[max(0,n-1),3]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from graphc.dsl.apply import lifted
from graphc.dsl.recorder import place_text, user_place
from graphc.dsl.tensor import Tensor
from graphc.errors import DTypeError, IndexOutOfBounds, TraceError
from graphc.ir.graph import Value
from graphc.ir.types import Dim, Size, at_least, size_floordiv, size_max, size_min


def get(x: Tensor, index: Any) -> Tensor:
    """x[index]."""
    x.recorder.enter_line()
    parts = _expanded(x, index if isinstance(index, tuple) else (index,))
    if any(isinstance(p, Tensor) for p in parts):
        return _with_arrays(x, parts)
    value, axis = x.value, 0
    slices: list[tuple[Size, Size, int]] = []
    for p in parts:
        if p is not None:
            slices.append(_along(p, x.shape[axis]))
            axis += 1
    dropped = [p for p in parts if p is not None]
    value = _sliced(value, slices)
    value = _without(value, [i for i, p in enumerate(dropped) if not isinstance(p, slice)])
    kept = [p for p in parts if p is None or isinstance(p, slice)]
    return Tensor(_with_new(value, [i for i, p in enumerate(kept) if p is None]))


def _expanded(x: Tensor, index: tuple[Any, ...]) -> list[Any]:
    """Ellipsis spelled out, masks as indices, and what `take` has to check as tensors."""
    parts: list[Any] = []
    for p in index:
        parts.extend(_as_parts(x, p))
    given = sum(p is not None and p is not Ellipsis for p in parts)
    if sum(p is Ellipsis for p in parts) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if given > x.ndim:
        raise IndexError(
            f"too many indices for {x.type} at {place_text(user_place())}: {given} were given"
        )
    if not any(p is Ellipsis for p in parts):
        parts.append(Ellipsis)
    at = next(i for i, p in enumerate(parts) if p is Ellipsis)
    parts[at : at + 1] = [slice(None)] * (x.ndim - given)
    axes = accumulate((p is not None for p in parts), initial=-1)
    next(axes)
    return [_checked(x, p, axis) for p, axis in zip(parts, axes, strict=True)]


def _as_parts(x: Tensor, p: Any) -> list[Any]:
    if p is None or p is Ellipsis or isinstance(p, (slice, Dim)):
        return [p]
    if isinstance(p, (int, np.integer)) and not isinstance(p, (bool, np.bool_)):
        return [int(p)]
    if isinstance(p, Tensor):
        return [_index_tensor(p)]
    array = np.asarray(p)
    if array.size == 0 and not isinstance(p, np.ndarray):
        array = array.astype(np.int64)
    if array.dtype.kind == "b":
        return [lifted(i) for i in np.nonzero(array)] if array.ndim else _no_mask()
    if array.dtype.kind not in "iu":
        raise IndexError(
            f"an index at {place_text(user_place())} is {array.dtype}: use integers, slices, None "
            "or ..."
        )
    return [array.astype(np.int64)]


def _index_tensor(p: Tensor) -> Tensor:
    if p.value.dtype.is_bool:
        _no_mask()
    if not p.value.dtype.is_int:
        raise DTypeError(f"an index at {place_text(user_place())} is {p.type}: use integers")
    return p


def _no_mask() -> Any:
    raise TraceError(
        f"a boolean mask as an index at {place_text(user_place())}: the size of the result would "
        "depend on data. "
        "Instead: graphc.where(mask, x, 0), or integer indices"
    )


def _checked(x: Tensor, p: Any, axis: int) -> Any:
    """Known indices are checked now; what only the call knows becomes a tensor, for `take`."""
    if isinstance(p, Dim):
        return Tensor(x.recorder.size(p))
    if isinstance(p, int) and isinstance(x.shape[axis], Dim):
        return lifted(np.asarray(p))
    if not isinstance(p, (int, np.ndarray)):
        return p
    n = x.shape[axis]
    if isinstance(p, int) and isinstance(n, int) and -n <= p < n:
        return p
    if isinstance(n, int):
        wrong = np.extract((np.asarray(p) < -n) | (np.asarray(p) >= n), p)
        if wrong.size:
            raise IndexOutOfBounds(
                f"index {wrong[0]} is out of bounds for axis {axis} with size {n} at "
                f"{place_text(user_place())}"
            )
    return p if isinstance(p, int) else lifted(p)


# -- slices ---------------------------------------------------------------------------------------


def _along(p: int | slice, n: Size) -> tuple[Size, Size, int]:
    """Start, count and step along an axis of size n."""
    if not isinstance(p, slice):
        assert isinstance(n, int)
        return p % n if n else 0, 1, 1
    step = 1 if p.step is None else int(p.step)
    if step == 0:
        raise ValueError("slice step cannot be zero")
    if all(isinstance(v, (int, np.integer, type(None))) for v in (p.start, p.stop, n)):
        r = range(*p.indices(n))  # type: ignore[arg-type]
        return (r.start if len(r) else 0), len(r), step
    for v in (p.start, p.stop):
        _certain_sign(v)
    return _forward(p, n, step) if step > 0 else _backward(p, n, step)


def _certain_sign(v: Any) -> None:
    if isinstance(v, Tensor):
        v._unknown(
            "a slice with a traced bound",
            "graphc.numpy.take with indices, or a bound known to Python",
        )
    if isinstance(v, Dim) and not at_least(v, 0):
        raise TraceError(
            f"the slice bound {v} at {place_text(user_place())} may be negative: count from the "
            "end, as in x[:-1]"
        )


def _clamped(v: Size, n: Size) -> Size:
    """A bound of Python as a position from 0 to n."""
    if isinstance(v, int) and v < 0:
        return size_max(n + v, 0)
    return size_min(v, n)


def _forward(p: slice, n: Size, step: int) -> tuple[Size, Size, int]:
    start, stop = 0 if p.start is None else p.start, p.stop
    if stop is None and isinstance(start, int) and start < 0:
        first, count = size_max(n + start, 0), size_min(-start, n)
    elif stop is None or (
        isinstance(stop, int) and stop < 0 and not (isinstance(start, int) and start < 0)
    ):
        first, count = start, size_max(n + (stop or 0) - start, 0)
    else:
        first = _clamped(start, n)
        count = _clamped(stop, n) if first == 0 else size_max(_clamped(stop, n) - first, 0)
    return first, count if step == 1 else size_floordiv(count + (step - 1), step), step


def _backward(p: slice, n: Size, step: int) -> tuple[Size, Size, int]:
    """From the end down: `above` elements stand up to the start, `below` up to the stop."""
    above: Size = n
    if p.start is not None:
        above = (
            size_max(n + p.start + 1, 0)
            if isinstance(p.start, int) and p.start < 0
            else size_min(p.start + 1, n)
        )
    count = above
    if p.stop is not None:
        below = (
            size_max(n + p.stop + 1, 0)
            if isinstance(p.stop, int) and p.stop < 0
            else size_min(p.stop + 1, n)
        )
        count = size_max(above - below, 0)
    return above - 1, count if step == -1 else size_floordiv(count - step - 1, -step), step


def _sliced(value: Value, along: Sequence[tuple[Size, Size, int]]) -> Value:
    starts, shape, steps = ([a[i] for a in along] for i in range(3))
    if all(s == 0 and t == 1 for s, t in zip(starts, steps)) and tuple(shape) == value.shape:
        return value
    return value.builder.apply(
        "slice", value, starts=tuple(starts), shape=tuple(shape), steps=tuple(steps)
    )


def _without(value: Value, axes: Sequence[int]) -> Value:
    return value.builder.apply("squeeze", value, axes=tuple(axes)) if axes else value


def _with_new(value: Value, axes: Sequence[int]) -> Value:
    return value.builder.apply("expand_dims", value, axes=tuple(axes)) if axes else value


# -- arrays of indices ----------------------------------------------------------------------------


def _with_arrays(x: Tensor, parts: list[Any]) -> Tensor:
    """Slices first; then one take from the indexed axes, side by side and flattened."""
    arrays = [p if isinstance(p, Tensor) or not isinstance(p, int) else p for p in parts]
    advanced = [i for i, p in enumerate(arrays) if isinstance(p, (int, Tensor))]
    together = advanced[-1] - advanced[0] + 1 == len(advanced)
    only_scalars = all(isinstance(parts[i], int) or parts[i].ndim == 0 for i in advanced)
    rest: list[Any] = [p if p is None or isinstance(p, slice) else slice(None) for p in parts]
    sliced = get(x, tuple(rest))
    indices = [_as_index(parts[i]) for i in advanced]
    front = advanced[0] if together or only_scalars else 0
    return _taken(sliced, advanced, indices, front)


def _as_index(p: Any) -> Tensor:
    return lifted(np.asarray(p)) if isinstance(p, int) else p


def _taken(x: Tensor, axes: list[int], indices: list[Tensor], front: int) -> Tensor:
    """x at indices along axes; the axes of the indices come to stand at `front`."""
    rest = [i for i in range(x.ndim) if i not in axes]
    value = x.value.transposed((*rest[:front], *axes, *rest[front:]))
    if len(axes) > 1:
        merged: Size = 1
        for a in axes:
            merged = merged * x.shape[a]
        value = value.reshape((*value.shape[:front], merged, *value.shape[front + len(axes) :]))
        index = _linear(indices, [x.shape[a] for a in axes], merged).value
    else:
        index = indices[0].value
    return Tensor(x.recorder.apply("take", value, index, axis=front))


def _linear(indices: list[Tensor], sizes: list[Size], total: Size) -> Tensor:
    """One index into the flattened axes; `total`, too large, where any is out of bounds."""
    from graphc.dsl.functions import logical_and, where

    linear: Any = None
    legal: Any = None
    for i, n in zip(indices, sizes):
        i = i.astype(np.int64)
        wrapped = where(i < 0, i + n, i)
        inside = logical_and(wrapped >= 0, wrapped < n)
        legal = inside if legal is None else logical_and(legal, inside)
        linear = wrapped if linear is None else linear * n + wrapped
    return where(legal, linear, total)
