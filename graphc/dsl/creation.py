"""Arrays out of nothing: zeros, ones, full, arange, eye.

Inside of a trace they are constants of the graph, of sizes with names, too; outside they are
NumPy's arrays.

>>> zeros(3)
array([0., 0., 0.])
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dsl.apply import find_recorder, lifted
from graphc.dsl.pointwise import as_dtype
from graphc.dsl.shapes import Shape, as_shape
from graphc.dsl.tensor import Tensor
from graphc.ir.types import Dim, DType, TensorType, f64


def _numpy_dtype(dtype: Any) -> Any:
    return dtype.numpy if isinstance(dtype, DType) else dtype


def full(shape: Shape, value: Any, dtype: Any = None) -> Any:
    """One number everywhere."""
    recorder = find_recorder((value,))
    if recorder is None:
        return np.full(shape, value, _numpy_dtype(dtype))
    recorder.enter_line()
    x = lifted(value)
    to = x.value.dtype if dtype is None else as_dtype(dtype)
    if x.value.is_splat():
        return Tensor(
            recorder.constant(x.value.splat(), TensorType(x.value.dtype, as_shape(shape))).cast(to)
        )
    return Tensor(x.value.cast(to).broadcast(as_shape(shape)))


def zeros(shape: Shape, dtype: Any = None) -> Any:
    """0 everywhere; float64 by default."""
    return _splat(shape, 0, dtype)


def ones(shape: Shape, dtype: Any = None) -> Any:
    """1 everywhere; float64 by default."""
    return _splat(shape, 1, dtype)


empty = zeros


def _splat(shape: Shape, value: int, dtype: Any) -> Any:
    to = f64 if dtype is None else as_dtype(dtype)
    recorder = find_recorder(())
    if recorder is None:
        return np.full(shape, value, to.numpy)
    recorder.enter_line()
    return Tensor(recorder.constant(to.numpy.type(value).item(), TensorType(to, as_shape(shape))))


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    """start, start + step, ... below stop; `arange(n)` also for a size with a name."""
    recorder = find_recorder(())
    size = start if stop is None else stop
    if recorder is None or not isinstance(size, Dim):
        bounds: Any = (start,) if stop is None else (start, stop, step)
        values = np.arange(*bounds, dtype=_numpy_dtype(dtype))
        if recorder is None:
            return values
        return _counted(values)
    recorder.enter_line()
    first = 0 if stop is None else start
    if step != 1:
        raise TypeError("arange over a size with a name takes no step: multiply the result")
    index = Tensor(recorder.apply("iota", axis=0, shape=as_shape(size - first)))
    shifted = index + first if isinstance(first, Dim) or first != 0 else index
    return shifted if dtype is None else shifted.astype(dtype)


def _counted(values: np.ndarray) -> Tensor:
    """A known range of integers as an index, which needs no memory; other ranges as they are."""
    x = find_recorder(())
    assert x is not None
    x.enter_line()
    if values.dtype.kind != "i" or values.size < 2:
        return lifted(values)
    index = Tensor(x.apply("iota", axis=0, shape=(values.size,)))
    step, first = int(values[1]) - int(values[0]), int(values[0])
    index = index * step if step != 1 else index
    return (index + first if first else index).astype(values.dtype)


def eye(rows: Any, columns: Any = None, k: int = 0, dtype: Any = None) -> Any:
    """1 on the k-th diagonal, else 0."""
    to = f64 if dtype is None else as_dtype(dtype)
    recorder = find_recorder(())
    columns = rows if columns is None else columns
    if recorder is None:
        return np.eye(rows, columns, k, to.numpy)
    recorder.enter_line()
    shape = as_shape((rows, columns))
    i, j = (Tensor(recorder.apply("iota", axis=a, shape=shape)) for a in (0, 1))
    return (i + k == j).astype(to)


identity = eye


def linspace(
    start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: Any = None
) -> Any:
    """`num` numbers from start to stop, as NumPy's; the bounds are Python numbers."""
    values = np.linspace(start, stop, num, endpoint, dtype=_numpy_dtype(dtype))
    return values if find_recorder(()) is None else lifted(values)
