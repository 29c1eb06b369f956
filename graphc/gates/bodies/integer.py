"""Bodies of integer division: NumPy's values, and nothing traps."""

from __future__ import annotations

from graphc.ir.scalar import Scalar, equal, quot, select


def floor_divide(x: Scalar, y: Scalar) -> Scalar:
    """Truncated quotient, one less where a remainder is left and the signs differ; 0 for y = 0."""
    q = quot(x, y)
    inexact = ~equal(q * y, x)
    return select(equal(y, 0), 0, select(inexact & ((x < 0) ^ (y < 0)), q - 1, q))


def fmod(x: Scalar, y: Scalar) -> Scalar:
    """The remainder of the truncated quotient, with the sign of x; 0 for y = 0."""
    return select(equal(y, 0), 0, x - quot(x, y) * y)


def remainder(x: Scalar, y: Scalar) -> Scalar:
    return select(equal(y, 0), 0, x - floor_divide(x, y) * y)
