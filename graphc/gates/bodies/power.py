"""The body of power: x^y = exp(y log x), with the logarithm to about 66 bits.

An error in y log x is one of the result's magnitude times it, and y log x has up to 10 bits before
the point: hence sums of two floats, written `a` and `a_low` (|a_low| is at most about half an ulp
of a). f32 is computed in f64, where plain operations are enough.
"""

from __future__ import annotations

from graphc.gates.bodies.exp import (
    LN2,
    LOG2_E,
    at_least,
    at_most,
    exp_factors,
    horner,
    nearest_integer,
    polynomial,
    power_of_two,
)
from graphc.gates.bodies.log import DOUBLINGS, SMALLEST_NORMAL, split
from graphc.ir.scalar import Scalar, bitcast, constant, convert, equal, floor, fma, select
from graphc.ir.types import f32, f64

INF = float("inf")
THIRD = (0.3333333333333333, 1.850371707708594e-17)  # generate.py THIRD_PAIR
LOG_FAR = (  # generate.py LOG_FAR_F64: error 2^-66.2
    0.2000000000000114,
    0.14285714285044152,
    0.11111111261020155,
    0.09090892086698431,
    0.07693383310311454,
    0.06628296669689973,
    0.06599241531872431,
)
EXP_SHORT = (  # generate.py EXP_SHORT_F64: error 2^-28.3
    0.4999999339618181,
    0.16666519996054918,
    0.04166839727690023,
    0.008368793904132175,
    0.0013814354742729242,
)
LOG_SHORT = (  # generate.py LOG_SHORT_F64: error 2^-37.6
    0.6666666563918193,
    0.40000336798954367,
    0.2853719587487294,
    0.2358444880505876,
)


def power(x: Scalar, y: Scalar) -> Scalar:
    if x.dtype.is_int:
        return integer_power(x, y)
    a = abs(x)
    magnitude = power_f32(a, y) if x.dtype is f32 else power_f64(a, y)
    # C99 Annex F. 1 to any power, NaN too, is 1; below zero, odd integers keep the sign and numbers
    # that are no integers give NaN, but for -0 and -inf.
    magnitude = select(equal(a, 1.0), 1.0, magnitude)
    half = y * 0.5
    whole = equal(floor(y), y)
    odd = whole & ~equal(floor(half), half)
    sign_bit = -(2 ** (8 * x.dtype.itemsize - 1))
    result = bitcast(bitcast(magnitude) ^ select(odd, bitcast(x) & sign_bit, 0))
    undefined = (x < 0.0) & ~whole & (~equal(a, INF) | ~equal(y, y))
    result = select(undefined, float("nan"), result)
    return select(equal(y, 0.0), 1.0, result)


def power_f64(a: Scalar, y: Scalar) -> Scalar:
    """a^y for a >= 0 or NaN; anything where a is 1 or y is 0."""
    log_a, log_low = log_pair(a)
    # v + v_low = y log a, inf and NaN as they come out. Where v is out of the range of exp, v_low
    # is left out: it may be NaN.
    v = y * log_a
    v_low = fma(y, log_low, fma(y, log_a, -v))
    v_low = select(abs(v) < 800.0, v_low, 0.0)
    s, first, second = exp_factors(at_most(at_least(v, -746.0), 710.0), 0, v_low)
    return fma(s, first, first) * second


def log_pair(a: Scalar) -> tuple[Scalar, Scalar]:
    """log a as a sum of two floats; (-inf, anything) at 0, (inf, anything) at inf."""
    small = a < SMALLEST_NORMAL[f64]
    k, m, _ = split(select(small, a * 2.0 ** DOUBLINGS[f64], a), small)
    # s + s_low = (m - 1) / (m + 1); m - 1 is exact.
    f = m - 1.0
    d = m + 1.0
    d_low = m - (d - 1.0)
    r = 1.0 / d
    s = f * r
    s_low = fma(-s, d_low, fma(-s, d, f)) * r
    # z + z_low = s^2
    z = s * s
    z_low = fma(s, s, -z) + (s + s) * s_low
    # t + t_low = z (1/3 + z (1/5 + ...)), the part of atanh(s)/s after 1: small enough that the
    # terms from 1/5 on are plain.
    rest = z * polynomial(z, z * z, LOG_FAR)
    third, third_low = THIRD
    c = rest + third
    c_low = rest - (c - third) + third_low
    t = z * c
    t_low = fma(z, c, -t) + fma(z, c_low, z_low * c)
    # log a = k ln 2 + 2 s + 2 s t
    s, s_low = s + s, s_low + s_low
    u = s * t
    u_low = fma(s, t, -u) + fma(s, t_low, s_low * t)
    high, low = LN2[f64]
    first = k * high  # exact
    second = first + s
    total = second + u
    lost = (s - (second - first)) + (u - (total - second))
    total_low = lost + (fma(k, low, s_low) + u_low)
    total = select(a < INF, total, a)
    return select(equal(a, 0.0), -INF, total), total_low


def power_f32(a: Scalar, y: Scalar) -> Scalar:
    """a^y in f64, rounded at the end: without care for the last bits in between."""
    a, y = convert(a, f64), convert(y, f64)
    k, m, _ = split(a)  # every f32 is a normal f64
    f = m - 1.0
    s = f / (m + 1.0)
    z = s * s
    log_a = fma(k, sum(LN2[f64]), fma(s * z, horner(z, LOG_SHORT), s + s))
    log_a = select(equal(a, 0.0), -INF, select(a < INF, log_a, a))
    v = at_most(at_least(y * log_a, -110.0), 90.0)
    n, bits = nearest_integer(v, LOG2_E, 1023)
    r = fma(n, -sum(LN2[f64]), v)
    rr = r * r
    s = fma(rr, polynomial(r, rr, EXP_SHORT), r)
    scale = power_of_two(bits, f64)
    return convert(fma(s, scale, scale), f32)


def integer_power(x: Scalar, y: Scalar) -> Scalar:
    """Square and multiply over the bits of y, modulo 2^width; for y < 0, 1 / x^-y truncated."""
    result = constant(x, 1)
    square = x
    for bit in range(8 * x.dtype.itemsize - 1):
        result = select(equal(y & (1 << bit), 0), result, result * square)
        square = square * square
    # 1 and -1 have their inverses; every other base gives 0.
    unit = equal(x, 1) | equal(x, -1)
    inverse = select(unit, select(equal(y & 1, 0), 1, x), 0)
    return select(y < 0, inverse, result)
