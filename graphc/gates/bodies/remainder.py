"""Bodies of the remainders of floats, exact for every pair of floats; integers have theirs.

|x| = q |y| + r with a whole q and 0 <= r < |y|: r is a float, since it is a multiple of the last
bits of both and below |y|. NumPy's three functions are made of q and r.

Where q is below LARGEST, one division finds it, possibly one too large; fma(-q, |y|, |x|) has no
rounding then. For larger q there is a long division in a gate of its own, behind `rare`.
"""

from __future__ import annotations

from graphc.gates.bodies import integer
from graphc.gates.bodies.exp import at_most
from graphc.gates.bodies.order import with_sign
from graphc.ir.scalar import (
    Scalar,
    bitcast,
    convert,
    equal,
    exponent,
    floor,
    fma,
    mantissa,
    rare,
    rint,
    scale,
    select,
)
from graphc.ir.types import f32, f64

# Below, (x - r) / y rounds to within 1/4 of the whole quotient, which is what NumPy takes then.
LARGEST = {f64: 2.0**50, f32: 2.0**21}
FINITE = {f64: 1.7976931348623157e308, f32: 3.4028234663852886e38}  # the largest float
DIGIT = 50  # bits of a quotient that a step of the long division finds
STEPS = {f64: 41, f32: 5}  # whole digits in the largest difference of exponents, 2097 and 276


def quotient(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(q, r, whether q is too large for that) of a, b >= 0; for b = 0, q = a / b and r is NaN."""
    ratio = a / b
    q = floor(ratio)
    # 0 times inf is NaN: where b is inf, q is 0, and any finite b gives r = a.
    r = fma(-q, at_most(b, FINITE[a.dtype]), a)
    # The division may have rounded up to a whole number.
    over = r < 0.0
    large = (ratio >= LARGEST[a.dtype]) & (b > 0.0)
    return select(over, q - 1.0, q), select(over, r + b, r), large


def remainder_of(a: Scalar, b: Scalar) -> Scalar:
    """r of a, b >= 0, whatever q is."""
    from graphc.gates.elementwise import fmod_huge

    _, r, large = quotient(a, b)
    return rare(large, fmod_huge, (a, b), r)


def differ(x: Scalar, y: Scalar) -> Scalar:
    """Whether one of the signs is minus."""
    return (bitcast(x) ^ bitcast(y)) < 0


def fmod(x: Scalar, y: Scalar) -> Scalar:
    """r with the sign of x."""
    if x.dtype.is_int:
        return integer.fmod(x, y)
    return with_sign(remainder_of(abs(x), abs(y)), x)


def remainder(x: Scalar, y: Scalar) -> Scalar:
    """r, or |y| - r where the signs differ and r is not 0, with the sign of y."""
    if x.dtype.is_int:
        return integer.remainder(x, y)
    b = abs(y)
    r = remainder_of(abs(x), b)
    return with_sign(select(differ(x, y) & (r > 0.0), b - r, r), y)


def floor_divide(x: Scalar, y: Scalar) -> Scalar:
    """q, or -q and one less where a remainder is left, by the signs; x / y for y = 0."""
    from graphc.gates.elementwise import floor_divide_huge

    if x.dtype.is_int:
        return integer.floor_divide(x, y)
    q, r, large = quotient(abs(x), abs(y))
    signs = differ(x, y)
    q = select(signs & (r > 0.0), q + 1.0, q)
    return rare(large, floor_divide_huge, (x, y), select(signs, -q, q))


# -- quotients of any size -------------------------------------------------------------------------


def floor_divide_huge(x: Scalar, y: Scalar) -> Scalar:
    """NumPy's steps (npy_divmod): a large quotient is what rounding leaves of it."""
    from graphc.gates.elementwise import fmod_huge

    # A branch, so that it is the routine that `remainder_of` has, and not compiled twice.
    r = rare(abs(y) <= abs(x), fmod_huge, (x, y), x)
    q = (x - r) / y
    q = select(differ(x, y) & ~equal(r, 0.0), q - 1.0, q)
    whole = floor(q)
    whole = select(q - whole > 0.5, whole + 1.0, whole)
    return select(equal(y, 0.0), x / y, select(equal(q, 0.0), with_sign(q, x / y), whole))


def fmod_huge(x: Scalar, y: Scalar) -> Scalar:
    """r with the sign of x by long division, in f64 for both dtypes; NaN for an infinite x."""
    a, b = abs(convert(x, f64)), abs(convert(y, f64))
    # r = m 2^d modulo n, at first in units of n's exponent.
    m, n, of_n = mantissa(a), mantissa(b), exponent(b)
    d = exponent(a) - of_n
    d = select(d > 0.0, at_most(d, 2100.0), 0.0)
    digits = floor(fma(d, 1 / DIGIT, 0.5 / DIGIT))
    # The first digit takes what DIGIT leaves of d.
    inverse = 1.0 / n
    r = reduced(scale(m, fma(digits, -float(DIGIT), d)), n, inverse)
    for i in range(STEPS[x.dtype]):
        r = select(digits > float(i), reduced(r * 2.0**DIGIT, n, inverse), r)
    r = select(r < 0.0, r + n, r)
    r = select(r < n, r, r - n)
    # Back to the exponent of y; the last bit of r, 2^-52, is lifted to where `scale` takes it.
    r = scale(r * 2.0**12, select(abs(of_n) < 2000.0, of_n, 0.0) - 12.0)
    r = select(a < b, a, r)
    r = select((a < float("inf")) & (b > 0.0), r, float("nan"))
    return with_sign(convert(r, x.dtype), x)


def reduced(r: Scalar, n: Scalar, inverse: Scalar) -> Scalar:
    """r less a multiple of n, for 1 <= n < 2.

    The digit need not be right to the last one: of r below 2^50 n at most 3/4 n remain, so that the
    next digit fits, too; and what remains is a multiple of the last bit of n, hence exact.
    """
    return fma(-rint(r * inverse), n, r)
