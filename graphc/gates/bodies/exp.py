"""Bodies of the exponentials, and the steps which the hyperbolic bodies share with them.

e^x = 2^n e^r with n the integer nearest to x/ln 2, so that |r| <= ln(2)/2; then
e^r = 1 + s with s = r + r^2 q(r), where q is a minimax polynomial.

The tables are printed by `python -m graphc.gates.bodies.generate NAME`.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.scalar import Scalar, bitcast, constant, fma, lshr, select
from graphc.ir.types import DType, f32, f64

FRACTION_BITS = {f64: 52, f32: 23}
BIAS = {f64: 1023, f32: 127}  # of the exponent field
# Adding 1.5 * 2^FRACTION_BITS leaves no bits for a fraction: the sum is rounded to an integer,
# which stands in the lowest bits of its pattern. Subtracting it again gives the integer as a float.
ROUNDER = {f64: 1.5 * 2.0**52, f32: 1.5 * 2.0**23}
LOG2_E = 1.4426950408889634
LN2 = {  # high part: n * it is exact for every exponent n
    f64: (0.6931471805598903, 5.497923018708371e-14),  # generate.py LN2_F64
    f32: (0.69314575, 1.4286068e-06),  # generate.py LN2_F32
}
EXP = {
    f64: (  # generate.py EXP_F64: error 2^-56.6
        0.5000000000000011,
        0.1666666666666641,
        0.04166666666652891,
        0.008333333333495915,
        0.001388888894400202,
        0.0001984126950425117,
        2.4801492674335738e-05,
        2.755758767863981e-06,
        2.7630412217438844e-07,
        2.4999901805158683e-08,
    ),
    f32: (  # generate.py EXP_F32: error 2^-27.8
        0.49999994,
        0.1666652,
        0.041668396,
        0.008368794,
        0.0013814354,
    ),
}
EXPM1 = {
    f64: (  # generate.py EXPM1_F64: error 2^-59.8
        0.5,
        0.16666666666666677,
        0.041666666666666505,
        0.008333333333321587,
        0.001388888888896307,
        0.00019841269886265074,
        2.4801587171574033e-05,
        2.7557244040414467e-06,
        2.755740311011494e-07,
        2.510910565704845e-08,
        2.087529505275473e-09,
    ),
    f32: (  # generate.py EXPM1_F32: error 2^-28.7
        0.5,
        0.16666666,
        0.04166636,
        0.00833339,
        0.0013940741,
        0.00019845903,
    ),
}
# Beyond these, 4 e^x is 0 or e^x inf in every rounding: clamping keeps n within what two factors
# can scale.
EXP_RANGE = {f64: (-748.0, 710.0), f32: (-106.0, 89.0)}
EXPM1_RANGE = {f64: (-40.0, 710.0), f32: (-20.0, 89.0)}  # below, e^x - 1 is -1
ALMOST_X = {f64: 2.0**-60, f32: 2.0**-30}  # below, x + x^2/2 rounds to x


def polynomial(x: Scalar, square: Scalar, c: Sequence[float]) -> Scalar:
    """sum c_i x^i; even and odd powers in two independent chains, so that they overlap."""
    even, odd = horner(square, c[0::2]), horner(square, c[1::2])
    return fma(x, odd, even)


def horner(x: Scalar, c: Sequence[float]) -> Scalar:
    total = constant(x, c[-1])
    for coefficient in reversed(c[:-1]):
        total = fma(x, total, coefficient)
    return total


def at_least(x: Scalar, low: float) -> Scalar:
    """max(x, low), NaN where x is: one instruction of every vector unit."""
    return select(x < low, low, x)


def at_most(x: Scalar, high: float) -> Scalar:
    return select(x > high, high, x)


def nearest_integer(x: Scalar, factor: float, extra: int = 0) -> tuple[Scalar, Scalar]:
    """n nearest to x * factor as a float, and a pattern whose lowest bits are n + extra."""
    rounder = ROUNDER[x.dtype] + extra
    shifted = fma(x, factor, rounder)
    return shifted - rounder, bitcast(shifted)


def power_of_two(bits: Scalar, dtype: DType) -> Scalar:
    """2^(b - BIAS) for the lowest bits b of a pattern; those above the exponent field fall off."""
    return bitcast(bits << FRACTION_BITS[dtype])


def exp_factors(
    x: Scalar, doublings: int = 0, x_low: Scalar | None = None
) -> tuple[Scalar, Scalar, Scalar]:
    """(s, first, second) with 2^doublings e^(x + x_low) = first * second * (1 + s).

    x is within EXP_RANGE or NaN, x_low small beside 1.
    """
    ty = x.dtype
    # n = round(x / ln 2); the lowest bits of the pattern are n + doublings + twice the bias.
    n, bits = nearest_integer(x, LOG2_E, 2 * BIAS[ty] + doublings)
    # r = x - n ln 2, in two steps. The first is exact: `high` ends in zeros, so that n high has no
    # more bits than fit.
    high, low = LN2[ty]
    exact = fma(n, -high, x)
    step = n * -low if x_low is None else fma(n, -low, x_low)
    r = exact + step
    # e^r = 1 + s, s = r + r^2 q(r). The two parts of r are added anew, so that s does not inherit
    # the rounding of r.
    rr = r * r
    s = exact + fma(rr, polynomial(r, rr, EXP[ty]), step)
    # 2^n may be out of range where e^x is not (near overflow and among subnormals), so it is
    # applied as two factors, with the exponents floor(n/2) and ceil(n/2).
    half = lshr(bits, 1)
    return s, power_of_two(half, ty), power_of_two(bits - half, ty)


def scaled_exp(x: Scalar, doublings: int = 0) -> Scalar:
    """2^doublings e^x, for x within EXP_RANGE or NaN."""
    s, first, second = exp_factors(x, doublings)
    # The first step rounds to the format's precision; the second is exact, but for subnormal
    # results, which it rounds, and for overflow.
    return fma(s, first, first) * second


def exp(x: Scalar) -> Scalar:
    """NaN falls through both comparisons of the clamp and stays."""
    low, high = EXP_RANGE[x.dtype]
    return scaled_exp(at_most(at_least(x, low), high))


def exp_parts(x: Scalar, extra: int) -> tuple[Scalar, Scalar, Scalar]:
    """(s, s_low, 2^(n + extra)) with e^x = 2^n (1 + s + s_low): s carries twice the precision.

    s_low is what the rounding of s lost. Both are accurate relative to e^r - 1, however small.
    """
    ty = x.dtype
    n, bits = nearest_integer(x, LOG2_E, BIAS[ty] + extra)
    high, low = LN2[ty]
    exact = fma(n, -high, x)
    r = fma(n, -low, exact)
    r_low = fma(n, -low, exact - r)
    rr = r * r
    q = polynomial(r, rr, EXPM1[ty])
    s = fma(rr, q, r)
    s_low = fma(rr, q, r - s) + fma(s, r_low, r_low)
    return s, s_low, power_of_two(bits, ty)


def expm1(x: Scalar) -> Scalar:
    low, high = EXPM1_RANGE[x.dtype]
    # e^x - 1 = 2 (t s + (t - 1/2)) with t = 2^(n-1), which is finite up to the last x.
    s, s_low, t = exp_parts(at_most(at_least(x, low), high), -1)
    shift = t - 0.5
    half = fma(t, s, shift)
    half_low = fma(t, s_low, fma(t, s, shift - half))
    shift_low = (t - shift) - 0.5  # where t is too large to take the half
    result = (half + (half_low + shift_low)) * 2.0
    return select(abs(x) < ALMOST_X[x.dtype], x, result)
