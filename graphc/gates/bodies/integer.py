"""Bodies of integer division: NumPy's values, and nothing traps.

Processors divide floats in vectors, and integers one by one. The quotient of two integers below
2^50 as f64 lies below and above whole numbers where the exact one does: what is not whole is at
least 1/|y| away from what is, and rounding moves x / y by less than 2^-53 |x / y|.
"""

from __future__ import annotations

from graphc.gates.bodies.exp import ROUNDER
from graphc.gates.bodies.order import trunc
from graphc.ir.scalar import Scalar, bitcast, convert, equal, lshr, rare, select, to_bits
from graphc.ir.types import f64, i32

BITS = 50


def truncated(x: Scalar, y: Scalar) -> Scalar:
    """The quotient without its fraction; anything for y = 0."""
    from graphc.gates.elementwise import quotient

    q = trunc(convert(x, f64) / convert(y, f64))
    # The integer stands in the lowest bits of this sum.
    bits = bitcast(q + ROUNDER[f64])
    if x.dtype is i32:
        return convert(bits, i32)  # 2^31, the one quotient that has no place there, wraps
    beyond = lshr((x + 2**BITS) | (y + 2**BITS), BITS + 1)
    return rare(~equal(beyond, 0), quotient, (x, y), bits - to_bits(ROUNDER[f64], f64))


def floor_divide(x: Scalar, y: Scalar) -> Scalar:
    """Truncated quotient, one less where a remainder is left and the signs differ; 0 for y = 0."""
    q = truncated(x, y)
    inexact = ~equal(q * y, x)
    return select(equal(y, 0), 0, select(inexact & ((x < 0) ^ (y < 0)), q - 1, q))


def remainder(x: Scalar, y: Scalar) -> Scalar:
    return select(equal(y, 0), 0, x - floor_divide(x, y) * y)


def fmod(x: Scalar, y: Scalar) -> Scalar:
    """The remainder of the truncated quotient, with the sign of x; 0 for y = 0."""
    return select(equal(y, 0), 0, x - truncated(x, y) * y)
