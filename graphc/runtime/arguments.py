"""Arguments of a call: what a user passes -> what a kernel reads.

In:   a number, an array, or something that NumPy makes an array of; the type that the kernel
      expects.
Out:  a C-contiguous, aligned `ndarray` in native byte order of exactly that dtype and rank.
Invariant: nothing is dropped in silence: masks, units, byte order, precision and imaginary parts
either survive or are an error that names the argument.

>>> from graphc.ir.types import f64, i64
>>> prepare(np.arange(3, dtype=">i4"), f64["n"], "x")
array([0., 1., 2.])
>>> prepare(0.5, i64[()], "k")
Traceback (most recent call last):
graphc.errors.DTypeError: argument k is i64[], got the Python float 0.5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError, SignatureError
from graphc.ir.types import Dim, DType, TensorType, bool_, evaluate, f64, from_numpy, i64

PYTHON_SCALARS = {bool: bool_, int: i64, float: f64}
_SUPPORTED = "use float64, float32, int64, int32 or bool"


def as_plain_array(value: Any, what: str) -> np.ndarray:
    """An ndarray with a dtype that numbers can have, in native byte order."""
    if isinstance(value, np.ndarray) and type(value) not in (np.ndarray, np.memmap):
        raise DTypeError(
            f"{what} is a {type(value).__name__}, whose meaning would be lost: pass "
            "numpy.asarray(x), or x.filled(...)"
        )
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise SignatureError(f"{what} does not make an array: {error}") from error
    if array.dtype.kind not in "biuf" or array.dtype.fields is not None or array.dtype.itemsize > 8:
        raise DTypeError(f"{what}: dtype {array.dtype} is not supported: {_SUPPORTED}")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def prepare(value: Any, ty: TensorType, name: str) -> np.ndarray:
    """The array that a kernel reads for an argument."""
    if type(value) in PYTHON_SCALARS:
        return _prepare_scalar(value, ty, name)
    array = as_plain_array(value, f"argument {name}")
    check_shape(array.shape, ty, name)
    if array.dtype != ty.dtype.numpy and not np.can_cast(array.dtype, ty.dtype.numpy, "safe"):
        raise DTypeError(
            f"argument {name} is {ty}, got {array.dtype}, which {ty.dtype} does not hold exactly: "
            f"convert it with .astype({ty.dtype.numpy.name!r})"
        )
    return np.require(array, ty.dtype.numpy, ("C", "A"))


def check_shape(shape: tuple[int, ...], ty: TensorType, name: str) -> None:
    """Rank and static sizes; sizes that have names are checked together, at the call."""
    if len(shape) != ty.rank:
        raise SignatureError(
            f"argument {name} is {ty}, of rank {ty.rank}; got the shape {shape}, of rank "
            f"{len(shape)}"
        )
    if any(isinstance(s, int) and s != n for s, n in zip(ty.shape, shape)):
        raise ShapeError(f"argument {name} is {ty}, got the shape {shape}")


def _prepare_scalar(value: bool | int | float, ty: TensorType, name: str) -> np.ndarray:
    """A Python number is weak: it takes the parameter's dtype, as far as its kind allows."""
    check_shape((), ty, name)
    if not _kind_fits(value, ty.dtype):
        raise DTypeError(
            f"argument {name} is {ty}, got the Python {type(value).__name__} {value!r}"
        )
    try:
        with np.errstate(over="ignore"):
            return np.asarray(ty.dtype.numpy.type(value))
    except OverflowError as error:
        raise DTypeError(f"argument {name} is {ty}, and {value!r} does not fit into it") from error


def _kind_fits(value: bool | int | float, dtype: DType) -> bool:
    order = "bif"
    return order.index(PYTHON_SCALARS[type(value)].kind) <= order.index(dtype.kind)


def as_result(array: np.ndarray) -> Any:
    """A result of rank 0 is a NumPy scalar, as from a ufunc."""
    return array[()] if array.ndim == 0 else array


@dataclass(frozen=True)
class Given:
    """An argument of a function without annotations, and whether it was a Python number."""

    array: np.ndarray
    dtype: DType
    weak: bool


def plain_leaf(value: Any, name: str) -> Given:
    """An argument in the dtype it has; Python numbers are weak."""
    if type(value) in PYTHON_SCALARS:
        dtype = PYTHON_SCALARS[type(value)]
        return Given(_prepare_scalar(value, TensorType(dtype), name), dtype, True)
    array = as_plain_array(value, f"argument {name}")
    try:
        dtype = from_numpy(array.dtype)
    except DTypeError as error:
        raise DTypeError(f"argument {name}: {error}") from None
    return Given(np.require(array, requirements=("C", "A")), dtype, False)


def bind_sizes(
    types: Sequence[TensorType], shapes: Sequence[tuple[int, ...]], names: Sequence[str]
) -> dict[str, int]:
    """The values of named sizes; a ShapeError names two arguments that disagree."""
    sizes: dict[str, tuple[int, str]] = {}
    for ty, shape, name in zip(types, shapes, names):
        for s, n in zip(ty.shape, shape):
            if isinstance(s, Dim) and s.text.isidentifier():
                first, where = sizes.setdefault(s.text, (n, name))
                if first != n:
                    raise ShapeError(
                        f"argument {name} is {ty}, got the shape {shape}: size {s} is {first} in "
                        f"argument {where}"
                    )
    found = {s: n for s, (n, _) in sizes.items()}
    for ty, shape, name in zip(types, shapes, names):
        expected = tuple(evaluate(s, found) for s in ty.shape)
        if expected != shape:
            raise ShapeError(
                f"argument {name} is {ty}, here of the shape {expected}; got the shape {shape}"
            )
    return found
