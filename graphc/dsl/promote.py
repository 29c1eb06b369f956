"""NEP 50 and broadcasting: operands of any kind -> values of one dtype and one shape.

In:   traced arrays, captured arrays and Python numbers.
Out:  `Value`s that an elementwise gate takes: casts and broadcasts are nodes, numbers are
      constants.
Invariant: dtypes are NumPy's, for every pair of array, NumPy scalar and Python scalar.

>>> result_dtype(("f32", "~f64")), result_dtype(("f32", "f64")), result_dtype(("i32", "~f64"))
(f32, f64, f64)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dsl.recorder import Recorder, place_text, user_place
from graphc.errors import ShapeError, TraceError
from graphc.ir.graph import Value
from graphc.ir.types import DTYPES, Dim, DType, Size, TensorType, bool_, f64, from_numpy, i64

if TYPE_CHECKING:
    from graphc.dsl.tensor import Tensor

Literal = bool | int | float
LITERALS = (bool, int, float)
_OF_LITERAL = {bool: bool_, int: i64, float: f64}
_WEAK = {"~f64": 0.0, "~i64": 0, "~bool": False}
_WEAK_KINDS = {d: f"~{d}" for d in DTYPES.values()}


class Operand:
    """A value or a Python number, and whether it is weak."""

    __slots__ = ("literal", "value", "weak")

    def __init__(self, value: Value | None, weak: bool, literal: Literal | None = None) -> None:
        self.value, self.weak, self.literal = value, weak, literal

    @property
    def dtype(self) -> DType:
        return self.value.dtype if self.value is not None else _OF_LITERAL[type(self.literal)]

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.value.shape if self.value is not None else ()

    @property
    def kind(self) -> str:
        return _WEAK_KINDS[self.dtype] if self.weak else self.dtype.name

    def lifted(self, recorder: Recorder) -> Value:
        if self.value is not None:
            return self.value
        return literal(recorder, self.literal, TensorType(self.dtype))


def operand(recorder: Recorder, value: Any) -> Operand:
    """What the user gave, as an operand of this recorder."""
    from graphc.dsl.tensor import Tensor

    if isinstance(value, Tensor):
        if value.value.builder is not recorder:
            raise _foreign(recorder, value)
        return Operand(value.value, value.weak)
    if type(value) in LITERALS:
        return Operand(None, True, value)
    if isinstance(value, Dim):
        return Operand(recorder.size(value), True)
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    return Operand(recorder.lift(array), False)


def _foreign(recorder: Recorder, value: Tensor) -> TraceError:
    """The error for a value of another trace; one that has ended raises its own."""
    other = value.recorder
    return TraceError(
        f"values of two traces, {other.name!r} and {recorder.name!r}, meet at "
        f"{place_text(user_place())}: "
        "pass one as an argument of the other's function"
    )


@cache
def result_dtype(kinds: tuple[str, ...]) -> DType:
    """numpy.result_type; a Python number's kind is written ~f64, ~i64."""
    parts = [_WEAK[k] if k in _WEAK else DTYPES[k].numpy for k in kinds]
    return from_numpy(np.result_type(*parts))


def literal(recorder: Recorder, value: Any, ty: TensorType) -> Value:
    """A Python number in a type; NumPy's OverflowError where an integer does not fit."""
    if ty.dtype.is_int and not -(2 ** (8 * ty.dtype.itemsize - 1)) <= value < 2 ** (
        8 * ty.dtype.itemsize - 1
    ):
        raise OverflowError(f"Python integer {value} out of bounds for {ty.dtype.numpy.name}")
    return recorder.constant(value, ty)


def fit(recorder: Recorder, given: Operand, ty: TensorType) -> Value:
    """An operand as a value of a type: a constant, or cast and broadcast."""
    if given.value is None:
        return literal(recorder, given.literal, ty)
    value = given.value
    if value.is_splat() and (value.dtype is ty.dtype or given.weak):
        return recorder.constant(value.splat(), ty)
    return value.cast(ty.dtype).broadcast(ty.shape)


def common_float(operands: Sequence[Operand]) -> TensorType | None:
    """The one float type of operands that are arrays of it or Python numbers; else None."""
    found: TensorType | None = None
    for given in operands:
        if given.value is not None:
            ty = given.value.node.type
            if given.weak or not ty.dtype.is_float or (found is not None and ty is not found):
                return None
            found = ty
    return found


def broadcast_shape(recorder: Recorder, what: str, operands: Sequence[Operand]) -> tuple[Size, ...]:
    """NumPy's rule for shapes; two different named sizes do not fit."""
    shape: tuple[Size, ...] = ()
    for i, given in enumerate(operands):
        if given.shape == shape or not given.shape:
            continue
        shape = _broadcast_two(recorder, what, shape, given.shape, operands[: i + 1])
    return shape


def _broadcast_two(
    recorder: Recorder,
    what: str,
    a: tuple[Size, ...],
    b: tuple[Size, ...],
    operands: Sequence[Operand],
) -> tuple[Size, ...]:
    rank = max(len(a), len(b))
    wide_a, wide_b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    sizes = []
    for s, t in zip(wide_a, wide_b):
        if s != t and s != 1 and t != 1:
            raise cannot_broadcast(recorder, what, operands, s, t)
        sizes.append(t if s == 1 else s)
    return tuple(sizes)


def cannot_broadcast(
    recorder: Recorder, what: str, operands: Sequence[Operand], s: Size, t: Size
) -> ShapeError:
    values = [o.lifted(recorder) for o in operands if o.shape]
    labels = (
        ("left", "right") if len(values) == 2 else tuple(f"arg {i}" for i in range(len(values)))
    )
    types = " with ".join(str(v.type) for v in values)
    return mismatch(recorder, f"{what}: cannot broadcast {types}", dict(zip(labels, values)), s, t)


def mismatch(
    recorder: Recorder, message: str, values: dict[str, Value], s: Size, t: Size
) -> ShapeError:
    """A ShapeError that knows which two sizes differ, so that a specialisation can unify them."""
    lines = [message, *recorder.describe(values), f"  at     {place_text(user_place())}"]
    error = ShapeError("\n".join(lines))
    error.sizes = (s, t)  # type: ignore[attr-defined]
    return error
