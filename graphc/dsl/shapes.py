"""Shapes: reshape, transpose, broadcast, join, pad, flip, take. Nothing is computed, elements move.

>>> from graphc.dsl.trace import trace
>>> from graphc.ir.types import f64
>>> trace(lambda x: reshape(x, (-1, 2)), (f64["n", 4],), ("x",)).graph.outputs[0][1].type
f64[2*n,2]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dsl.apply import lifted, need_recorder
from graphc.dsl.promote import fit, mismatch, operand, result_dtype
from graphc.dsl.public import public
from graphc.dsl.recorder import place_text, user_place
from graphc.dsl.reductions import axes_of, one_axis
from graphc.dsl.tensor import Tensor
from graphc.errors import DTypeError, ShapeError
from graphc.ir.graph import Value
from graphc.ir.scalar import to_bits
from graphc.ir.types import Dim, Size, TensorType, as_size, product, size_floordiv

Shape = Any  # an int or a tuple of ints, of sizes with names, and of at most one -1


def as_shape(shape: Shape) -> tuple[Size, ...]:
    if isinstance(shape, (int, np.integer, Dim)):
        shape = (shape,)
    return tuple(
        as_size(s) if not isinstance(s, (np.ndarray, np.generic)) else as_size(int(s))
        for s in shape
    )


@public("x")
def reshape(x: Any, shape: Shape) -> Any:
    """The same elements, in the same order, under another shape; one size may be -1."""
    x = lifted(x)
    sizes = list(shape) if isinstance(shape, (tuple, list, np.ndarray)) else [shape]
    unknown = [i for i, s in enumerate(sizes) if not isinstance(s, Dim) and s == -1]
    if len(unknown) > 1:
        x.recorder.fail(ShapeError, "reshape: only one size may be -1", of=x.value)
    for i in unknown:
        sizes[i] = _missing(
            x, product(as_shape([s for s in sizes if isinstance(s, Dim) or s != -1]))
        )
    if product(as_shape(sizes)) != x.size:
        text = ", ".join(map(str, shape if isinstance(shape, (tuple, list)) else [shape]))
        x.recorder.fail(
            ShapeError,
            f"reshape: {x.type} has {x.size} elements, which ({text}) does not hold",
            of=x.value,
        )
    return Tensor(x.value.reshape(as_shape(sizes)))


def _missing(x: Tensor, known: Size) -> Size:
    """The size that -1 stands for."""
    if isinstance(known, int) and isinstance(x.size, int):
        return x.size // known if known else 0
    found = _quotient(x.shape, known)
    return size_floordiv(x.size, known) if found is None else found


def _quotient(shape: Sequence[Size], known: Size) -> Size | None:
    """product(shape) / known where leaving out some of the sizes says it."""
    kept = list(shape)
    for factor in [s for s in shape if isinstance(s, Dim)]:
        if product(kept) == known:
            return 1
        rest = [s for s in kept if s != factor] + [factor] * (kept.count(factor) - 1)
        if isinstance(known, Dim) and product(rest) * known == product(shape):
            return product(rest)
        quotient = size_floordiv(known, factor)
        if quotient * factor == known:
            kept, known = rest, quotient
    quotient = size_floordiv(product(kept), known)
    return quotient if quotient * known == product(kept) else None


@public("x")
def ravel(x: Any) -> Any:
    """All elements in one axis."""
    x = lifted(x)
    return Tensor(x.value.reshape((x.size,)))


flatten = ravel


@public("x")
def transpose(x: Any, axes: Any = None) -> Any:
    """The axes in another order, by default reversed."""
    x = lifted(x)
    if axes is None:
        return Tensor(x.value.transposed(tuple(reversed(range(x.ndim)))))
    perm = tuple(one_axis(a, x.ndim) for a in axes)
    if sorted(perm) != list(range(x.ndim)):
        x.recorder.fail(
            ShapeError,
            f"transpose: {tuple(axes)} is not a permutation of the axes of {x.type}",
            of=x.value,
        )
    return Tensor(x.value.transposed(perm))


@public("x")
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged."""
    x = lifted(x)
    perm = list(range(x.ndim))
    a, b = one_axis(axis1, x.ndim), one_axis(axis2, x.ndim)
    perm[a], perm[b] = perm[b], perm[a]
    return Tensor(x.value.transposed(tuple(perm)))


@public("x")
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """Axes moved to other positions, the rest in order."""
    x = lifted(x)
    pair = [v if isinstance(v, (tuple, list)) else (v,) for v in (source, destination)]
    from_, to = ([one_axis(a, x.ndim) for a in v] for v in pair)
    perm = [i for i in range(x.ndim) if i not in from_]
    for d, s in sorted(zip(to, from_)):
        perm.insert(d, s)
    return Tensor(x.value.transposed(tuple(perm)))


@public("x")
def broadcast_to(x: Any, shape: Shape) -> Any:
    """Repeated along new leading axes and along axes of size 1."""
    x = lifted(x)
    to = as_shape(shape)
    offset = len(to) - x.ndim
    for i, s in enumerate(x.shape):
        if offset < 0 or s not in (1, to[offset + i]):
            text = f"broadcast_to: {x.type} does not broadcast to ({', '.join(map(str, to))})"
            raise mismatch(
                x.recorder, text, {"of": x.value}, s, to[offset + i] if offset >= 0 else 0
            )
    return Tensor(x.value.broadcast(to))


@public("x")
def expand_dims(x: Any, axis: Any) -> Any:
    """Axes of size 1 at these positions of the result."""
    x = lifted(x)
    axes = axes_of(axis, x.ndim + (len(axis) if isinstance(axis, (tuple, list)) else 1))
    return Tensor(x.value.builder.apply("expand_dims", x.value, axes=axes)) if axes else x


@public("x")
def squeeze(x: Any, axis: Any = None) -> Any:
    """Without axes of size 1: all of them, or these."""
    x = lifted(x)
    axes = (
        tuple(i for i, s in enumerate(x.shape) if s == 1) if axis is None else axes_of(axis, x.ndim)
    )
    for a in axes:
        if x.shape[a] != 1:
            x.recorder.fail(
                ShapeError, f"squeeze: axis {a} of {x.type} is not of size 1", of=x.value
            )
    return Tensor(x.value.builder.apply("squeeze", x.value, axes=axes)) if axes else x


# -- joining --------------------------------------------------------------------------------------


def _common(arrays: Sequence[Any], what: str) -> list[Value]:
    """Values of one dtype."""
    recorder = need_recorder((arrays,))
    if isinstance(arrays, Tensor):
        arrays = list(arrays)
    operands = [operand(recorder, a) for a in arrays]
    if not operands:
        raise ShapeError(
            f"{what} of nothing at {place_text(user_place())}: give at least one array"
        )
    dtype = result_dtype(tuple(o.dtype.name for o in operands))
    return [fit(recorder, o, TensorType(dtype, o.shape)) for o in operands]


@public("arrays")
def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    """Joined along an axis that they have; flattened first where the axis is None."""
    values = _common(arrays, "concatenate")
    if axis is None:
        values, axis = [v.reshape((v.type.size,)) for v in values], 0
    return Tensor(_joined(values, axis))


def _joined(values: list[Value], axis: int) -> Value:
    first = values[0]
    if any(v.type.rank == 0 for v in values):
        raise ShapeError(f"concatenate of numbers at {place_text(user_place())}: use stack")
    axis = one_axis(axis, first.type.rank)
    for v in values[1:]:
        _check_joint(first, v, axis)
    return first if len(values) == 1 else first.builder.apply("concat", *values, axis=axis)


def _check_joint(a: Value, b: Value, axis: int) -> None:
    recorder = lifted(Tensor(a)).recorder
    text = f"concatenate along axis {axis}: {a.type} with {b.type}"
    if a.type.rank != b.type.rank:
        recorder.fail(ShapeError, text, left=a, right=b)
    for i, (s, t) in enumerate(zip(a.shape, b.shape)):
        if i != axis and s != t:
            raise mismatch(recorder, text, {"left": a, "right": b}, s, t)


@public("arrays")
def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Joined along a new axis."""
    values = _common(arrays, "stack")
    at = one_axis(axis, values[0].type.rank + 1)
    for v in values[1:]:
        _check_same(values[0], v)
    return Tensor(_joined([v.expand(at) for v in values], at))


def _check_same(a: Value, b: Value) -> None:
    recorder = lifted(Tensor(a)).recorder
    text = f"stack: {a.type} with {b.type}"
    if a.type.rank != b.type.rank:
        recorder.fail(ShapeError, text, left=a, right=b)
    for s, t in zip(a.shape, b.shape):
        if s != t:
            raise mismatch(recorder, text, {"left": a, "right": b}, s, t)


@public("arrays")
def vstack(arrays: Sequence[Any]) -> Any:
    """Joined as rows: vectors become rows first."""
    return concatenate([_at_least_2d(lifted(a)) for a in arrays], 0)


@public("arrays")
def hstack(arrays: Sequence[Any]) -> Any:
    """Joined along the second axis, vectors along the first."""
    parts = [lifted(a) if lifted(a).ndim else lifted(a).reshape(1) for a in arrays]
    return concatenate(parts, 0 if parts[0].ndim == 1 else 1)


def _at_least_2d(x: Tensor) -> Tensor:
    return x if x.ndim >= 2 else x.reshape((1, x.size))


# -- padding, order, selection --------------------------------------------------------------------


@public("x")
def pad(
    x: Any, pad_width: Any, mode: str = "constant", constant_values: bool | int | float = 0
) -> Any:
    """Surrounded by a number; `pad_width` is n, (before, after), or a pair for each axis."""
    x = lifted(x)
    if mode != "constant":
        raise ShapeError(
            f"pad at {place_text(user_place())}: mode {mode!r} is not supported, only 'constant'"
        )
    widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)).tolist()
    if any(w < 0 for pair in widths for w in pair):
        raise ShapeError(
            f"pad at {place_text(user_place())}: widths are at least 0, got {pad_width}"
        )
    if not any(w for pair in widths for w in pair):
        return x
    shape = tuple(s + before + after for s, (before, after) in zip(x.shape, widths))
    starts = tuple(before for before, _ in widths)
    fill = to_bits(x.value.dtype.numpy.type(constant_values).item(), x.value.dtype)
    place = x.value.builder.apply
    return Tensor(
        place("place", x.value, starts=starts, steps=(1,) * x.ndim, shape=shape, fill=fill)
    )


@public("x")
def flip(x: Any, axis: Any = None) -> Any:
    """The order of elements reversed along axes."""
    x = lifted(x)
    axes = axes_of(axis, x.ndim)
    return x[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim))]


@public("x")
def roll(x: Any, shift: int, axis: int | None = None) -> Any:
    """Elements moved along an axis of a known size, those that fall off come back in front."""
    x = lifted(x)
    if axis is None:
        return roll(x.reshape(-1), shift, 0).reshape(x.shape)
    at = one_axis(axis, x.ndim)
    n = x.shape[at]
    if not isinstance(n, int):
        x._unknown(f"roll along an axis of size {n}", "concatenate of two slices")
    cut = -shift % n if n else 0
    before = (slice(None),) * at
    if not cut:
        return x
    return concatenate([x[before + (slice(cut, None),)], x[before + (slice(0, cut),)]], at)


@public("x", "index")
def take(x: Any, index: Any, axis: int | None = None) -> Any:
    """Elements at integer indices along an axis, or of the flattened array."""
    x = lifted(x)
    x, axis = (x.reshape(-1), 0) if axis is None else (x, one_axis(axis, x.ndim))
    if type(index) in (list, tuple):
        index = np.asarray(index, dtype=np.int64 if not len(index) else None)
    at = lifted(index)
    if not at.value.dtype.is_int:
        raise DTypeError(
            f"take at {place_text(user_place())}: the index is {at.type}; use integers"
        )
    return x[(slice(None),) * axis + (index if isinstance(index, np.ndarray) else at,)]


@public("x")
def tile(x: Any, reps: Any) -> Any:
    """The whole repeated along each axis."""
    x = lifted(x)
    counts = tuple(reps) if isinstance(reps, (tuple, list)) else (reps,)
    rank = x.ndim if x.ndim > len(counts) else len(counts)
    counts = (1,) * (rank - len(counts)) + counts
    shape = (1,) * (rank - x.ndim) + x.shape
    wide = x.value.reshape(tuple(v for s in shape for v in (1, s)))
    wide = wide.broadcast(tuple(v for s, c in zip(shape, counts) for v in (c, s)))
    return Tensor(wide.reshape(tuple(s * c for s, c in zip(shape, counts))))


@public("x")
def repeat(x: Any, repeats: int, axis: int | None = None) -> Any:
    """Each element repeated along an axis, or of the flattened array."""
    x = lifted(x)
    if axis is None:
        return repeat(x.reshape(-1), repeats, 0)
    at = one_axis(axis, x.ndim)
    wide = x.value.expand(at + 1)
    wide = wide.broadcast((*x.shape[: at + 1], repeats, *x.shape[at + 1 :]))
    return Tensor(wide.reshape((*x.shape[:at], x.shape[at] * repeats, *x.shape[at + 1 :])))


@public("x")
def diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    """x[1:] - x[:-1] along an axis, n times."""
    x = lifted(x)
    before = (slice(None),) * one_axis(axis, x.ndim)
    for _ in range(n):
        x = x[before + (slice(1, None),)] - x[before + (slice(None, -1),)]
    return x
