"""Bodies of comparisons and selections, with NaN and signed zeros decided."""

from __future__ import annotations

from graphc.ir import scalar as s
from graphc.ir.scalar import Scalar, bitcast, is_nan, select
from graphc.ir.types import bool_


def less(x: Scalar, y: Scalar) -> Scalar:
    return ~x & y if x.dtype is bool_ else x < y


def less_equal(x: Scalar, y: Scalar) -> Scalar:
    return ~x | y if x.dtype is bool_ else x <= y


def equal(x: Scalar, y: Scalar) -> Scalar:
    return ~(x ^ y) if x.dtype is bool_ else s.equal(x, y)


def sign(x: Scalar) -> Scalar:
    """-1, 0, 1; a NaN falls through every comparison and stays."""
    zero = select(s.equal(x, 0), 0, x)
    return select(x < 0, -1, select(x > 0, 1, zero))


def larger(x: Scalar, y: Scalar) -> Scalar:
    """Of two zeros the positive one; x where either is NaN."""
    if not x.dtype.is_float:
        return select(x < y, y, x)
    return select(x < y, y, select(s.equal(x, y), bitcast(bitcast(x) & bitcast(y)), x))


def smaller(x: Scalar, y: Scalar) -> Scalar:
    """Of two zeros the negative one; x where either is NaN."""
    if not x.dtype.is_float:
        return select(y < x, y, x)
    return select(y < x, y, select(s.equal(x, y), bitcast(bitcast(x) | bitcast(y)), x))


def maximum(x: Scalar, y: Scalar) -> Scalar:
    """IEEE 754-2019 maximum: NaN wins, and of two zeros the positive one."""
    return select(is_nan(y), y, larger(x, y)) if x.dtype.is_float else larger(x, y)


def minimum(x: Scalar, y: Scalar) -> Scalar:
    """IEEE 754-2019 minimum: NaN wins, and of two zeros the negative one."""
    return select(is_nan(y), y, smaller(x, y)) if x.dtype.is_float else smaller(x, y)


def fmax(x: Scalar, y: Scalar) -> Scalar:
    """As maximum, but a number wins over NaN."""
    return select(is_nan(x), y, larger(x, y)) if x.dtype.is_float else larger(x, y)


def fmin(x: Scalar, y: Scalar) -> Scalar:
    """As minimum, but a number wins over NaN."""
    return select(is_nan(x), y, smaller(x, y)) if x.dtype.is_float else smaller(x, y)


def clip(x: Scalar, low: Scalar, high: Scalar) -> Scalar:
    return minimum(maximum(x, low), high)


def where(condition: Scalar, x: Scalar, y: Scalar) -> Scalar:
    return (condition & x) | (~condition & y) if x.dtype is bool_ else select(condition, x, y)


def relu(x: Scalar) -> Scalar:
    """x above 0, NaN for NaN, else +0."""
    if not x.dtype.is_float:
        return select(x > 0, x, 0)
    return select(x <= 0.0, 0.0, x)


def heaviside(x: Scalar, middle: Scalar) -> Scalar:
    """0 below and 1 above 0, `middle` at 0; a NaN falls through every comparison and stays."""
    return select(x < 0.0, 0.0, select(x > 0.0, 1.0, select(s.equal(x, 0.0), middle, x)))


def copysign(x: Scalar, y: Scalar) -> Scalar:
    """The magnitude of x with the sign of y; a NaN has none, so that it counts as positive."""
    return select(is_nan(y), abs(x), with_sign(x, y))


def with_sign(x: Scalar, y: Scalar) -> Scalar:
    """The magnitude of x with the sign bit of y, where x is NaN if y is."""
    sign_bit = -(2 ** (8 * x.dtype.itemsize - 1))
    return bitcast(bitcast(abs(x)) | (bitcast(y) & sign_bit))


def trunc(x: Scalar) -> Scalar:
    """floor of the magnitude with the sign of x, so that -0.5 gives -0."""
    return with_sign(s.floor(abs(x)), x)
