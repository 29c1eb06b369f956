"""Bodies of the exponentials, and the steps which the hyperbolic bodies share with them.

e^x = 2^n e^r with n the integer nearest to x/ln 2, so that |r| <= ln(2)/2; then
e^r = 1 + s with s = r + r^2 q(r), where q is a minimax polynomial.

The tables are printed by `python -m graphc.gates.bodies.generate NAME`.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.scalar import Scalar, bitcast, constant, fma, lookup, scale, scale_by_whole, select
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
SIXTEENTHS = {f64: 1.5 * 2.0**48, f32: 1.5 * 2.0**19}  # added, rounds to multiples of 1/16
LN2_SHORT = {
    f64: (  # generate.py LN2_SHORT_F64
        0.6931471805582987, 1.6465949582897082e-12,
    ),
    f32: (  # generate.py LN2_SHORT_16_F32
        0.69311523, 3.1946183e-05,
    ),
}  # fmt: skip
EXP_NEAR = {
    f64: (  # generate.py EXP_NEAR_F64: error 2^-56.1
        0.5000000000000006, 0.16666666664317326, 0.0416666666594216, 0.008333474987680407,
        0.001388913324783435,
    ),
    f32: (  # generate.py EXP_NEAR_16_F32: error 2^-29.2
        0.5000165, 0.16667067,
    ),
}  # fmt: skip
EXP2_NEAR = (  # generate.py EXP2_NEAR_F64: error 2^-56.8
    0.693147180559947, 0.2402265069591011, 0.055504108651687034, 0.009618129105653588,
    0.0013333822956456008, 0.00015403819159655655,
)  # fmt: skip
ROOTS = {
    f64: (  # generate.py ROOTS_F64
        1.0, 1.0442737824274138, 1.0905077326652577, 1.1387886347566916, 1.189207115002721,
        1.241857812073484, 1.2968395546510096, 1.3542555469368927, 1.4142135623730951,
        1.4768261459394993, 1.5422108254079407, 1.6104903319492543, 1.681792830507429,
        1.7562521603732995, 1.8340080864093424, 1.9152065613971474,
    ),
    f32: (  # generate.py ROOTS_F32
        1.0, 1.0442737, 1.0905077, 1.1387886, 1.1892071, 1.2418578, 1.2968396, 1.3542556,
        1.4142135, 1.4768262, 1.5422108, 1.6104903, 1.6817929, 1.7562522, 1.8340081,
        1.9152066,
    ),
}  # fmt: skip
ROOTS_LOW = {
    f64: (  # generate.py ROOTS_LOW_F64
        0.0, 8.551889705537965e-17, -3.046782079812471e-17, 8.912812676025408e-17,
        3.982015231465646e-17, 4.658027591836937e-17, 2.5382502794888315e-17,
        7.70094837980299e-17, -9.667293313452913e-17, -3.483994556892796e-17,
        7.949834809697621e-17, 2.4707192569797888e-17, 8.199010020581497e-17,
        2.960140695448873e-17, 3.283107224245627e-17, -1.0619946056195963e-16,
    ),
    f32: (  # generate.py ROOTS_LOW_F32
        0.0, 4.83347e-08, -1.307754e-08, 5.3862223e-08, 3.7976353e-08, 4.496838e-08,
        -4.0189995e-08, -1.0123349e-08, 2.4203235e-08, -4.500899e-08, 8.070905e-09,
        9.836217e-09, -2.4755327e-08, -9.23577e-09, -1.1239278e-08, 9.845328e-09,
    ),
}  # fmt: skip
EXP2_F32 = (  # generate.py EXP2_F32: error 2^-29.0
    0.6931472, 0.2402265, 0.05550411, 0.009618036, 0.0013333429, 0.00015467362, 1.5315334e-05,
)  # fmt: skip
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
EXP2_RANGE = {f64: (-1080.0, 1024.0), f32: (-152.0, 128.0)}
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


def exp_sum(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(t, u, n) with e^x = 2^n (t + u) and a whole n; x is within EXP_RANGE or NaN."""
    # A longer series is faster than a table, unless one has a permutation of 16 elements.
    n, _ = nearest_integer(x, LOG2_E)
    high, low = LN2[x.dtype]
    exact = fma(n, -high, x)
    step = n * -low
    r = exact + step
    # The two parts of r are added anew, so that u does not inherit the rounding of r.
    rr = r * r
    return constant(x, 1.0), exact + fma(rr, polynomial(r, rr, EXP[x.dtype]), step), n


def exp_by_roots(x: Scalar, x_low: Scalar | None = None) -> tuple[Scalar, Scalar, Scalar]:
    """The same for x + x_low by floor(n), with a root of 2 for t: |u| is at most 0.022 t."""
    # n = x / ln 2 rounded to a multiple of 1/16; the lowest four bits of the pattern are i, and t
    # is 2^(i/16).
    ty = x.dtype
    shifted = fma(x, LOG2_E, SIXTEENTHS[ty])
    n = shifted - SIXTEENTHS[ty]
    high, low = LN2_SHORT[ty]
    r = fma(n, -low, fma(n, -high, x))
    if x_low is not None:
        r = r + x_low
    # e^r = 1 + s
    rr = r * r
    s = fma(rr, polynomial(r, rr, EXP_NEAR[ty]), r)
    t = lookup(bitcast(shifted), ROOTS[ty])
    return t, fma(t, s, lookup(bitcast(shifted), ROOTS_LOW[ty])), n


def scaled_exp(x: Scalar, doublings: int = 0) -> Scalar:
    """2^doublings e^x, for x within EXP_RANGE or NaN."""
    t, u, n = exp_sum(x)
    return scale_by_whole(t + u, n + float(doublings) if doublings else n)


def exp2(x: Scalar) -> Scalar:
    low, high = EXP2_RANGE[x.dtype]
    x = at_most(at_least(x, low), high)
    if x.dtype is f32:
        n, _ = nearest_integer(x, 1.0)
        r = x - n
        return scale_by_whole(fma(r, polynomial(r, r * r, EXP2_F32), 1.0), n)
    shifted = x + SIXTEENTHS[f64]
    n = shifted - SIXTEENTHS[f64]
    r = x - n  # exact
    s = r * polynomial(r, r * r, EXP2_NEAR)  # 2^r - 1
    t = lookup(bitcast(shifted), ROOTS[f64])
    return scale(t + fma(t, s, lookup(bitcast(shifted), ROOTS_LOW[f64])), n)


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
