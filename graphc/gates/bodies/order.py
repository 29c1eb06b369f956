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


def maximum(x: Scalar, y: Scalar) -> Scalar:
    """IEEE 754-2019 maximum: NaN wins, and of two zeros the positive one."""
    if not x.dtype.is_float:
        return select(x < y, y, x)
    larger = select(x < y, y, select(s.equal(x, y), bitcast(bitcast(x) & bitcast(y)), x))
    return select(is_nan(y), y, larger)


def minimum(x: Scalar, y: Scalar) -> Scalar:
    """IEEE 754-2019 minimum: NaN wins, and of two zeros the negative one."""
    if not x.dtype.is_float:
        return select(y < x, y, x)
    smaller = select(y < x, y, select(s.equal(x, y), bitcast(bitcast(x) | bitcast(y)), x))
    return select(is_nan(y), y, smaller)


def clip(x: Scalar, low: Scalar, high: Scalar) -> Scalar:
    return minimum(maximum(x, low), high)


def where(condition: Scalar, x: Scalar, y: Scalar) -> Scalar:
    return (condition & x) | (~condition & y) if x.dtype is bool_ else select(condition, x, y)


def relu(x: Scalar) -> Scalar:
    """x above 0, NaN for NaN, else +0."""
    if not x.dtype.is_float:
        return select(x > 0, x, 0)
    return select(x <= 0.0, 0.0, x)


def trunc(x: Scalar) -> Scalar:
    """floor of the magnitude with the sign of x, so that -0.5 gives -0."""
    magnitude = s.floor(abs(x))
    sign_bit = bitcast(x) & -(2 ** (8 * x.dtype.itemsize - 1))
    return bitcast(bitcast(magnitude) | sign_bit)
