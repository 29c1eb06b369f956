"""Bodies of sine, cosine, tangent and sinc.

|x| = n pi/2 + r with n the nearest integer, |r| <= pi/4: then a minimax polynomial of sin r or cos
r, by the last two bits of n. The tangent takes the nearest multiple of pi/16, for a shorter
polynomial. Up to n = 2^20 (2^16 in f32) the reduction is Cody and Waite's; for larger arguments,
Payne and Hanek's in integers, in gates of its own behind `rare`.
"""

from __future__ import annotations

import math

from graphc.gates.bodies.exp import ALMOST_X, ROUNDER, nearest_integer, polynomial
from graphc.ir.scalar import (
    Scalar,
    bitcast,
    constant,
    convert,
    equal,
    floor,
    fma,
    from_bits,
    lookup,
    lshr,
    rare,
    rint,
    select,
)
from graphc.ir.types import DType, f32, f64

TWO_OVER_PI = 0.6366197723675814
SIXTEEN_OVER_PI = 8 * TWO_OVER_PI
LARGEST = {f64: 1.6e6, f32: 1.0e5}  # the last argument of the fast reduction
HALF_PI = {
    f64: (1.5707963267948966, 6.12323399538461e-17, 3.5215598651832e-27),  # generate.py HALF_PI_F64
    f32: (1.5707964, -4.371139e-08, -1.7151245e-15),  # generate.py HALF_PI_F32
}
HALF_WORD = 2**32 - 1
HALF_PI_PAIR = (1.5707963267948966, 6.123233995736766e-17)  # generate.py HALF_PI_PAIR
SIN = {
    f64: (  # generate.py SIN_F64: error 2^-58.0
        -0.16666666666666632,
        0.008333333333322429,
        -0.00019841269829780234,
        2.7557313673212636e-06,
        -2.5050754139069083e-08,
        1.589651763920384e-10,
    ),
    f32: (  # generate.py SIN_F32: error 2^-28.0
        -0.16666655,
        0.008332189,
        -0.000195182,
    ),
}
COS = {
    f64: (  # generate.py COS_F64: error 2^-63.0
        0.041666666666666595,
        -0.0013888888888873303,
        2.480158728894758e-05,
        -2.75573141926207e-07,
        2.0875701007568493e-09,
        -1.1358475708979088e-11,
    ),
    f32: (  # generate.py COS_F32: error 2^-33.1
        0.041666646,
        -0.0013887301,
        2.4430725e-05,
    ),
}
PI_16 = {
    f64: (  # generate.py PI_16_F64
        0.19634954084936207, 7.654042492615175e-18, 2.0557821170405322e-27,
    ),
    f32: (  # generate.py PI_16_F32
        0.19634955, -5.4639235e-09, -2.1439056e-16,
    ),
}  # fmt: skip
TAN = {
    f64: (  # generate.py TAN_F64: error 2^-59.1
        0.33333333333334086, 0.1333333333222837, 0.05396825923128157, 0.02186839509618682,
        0.00896623622256328,
    ),
    f32: (  # generate.py TAN_F32: error 2^-29.0
        0.33333117, 0.13406008,
    ),
}  # fmt: skip
# Rows of s and of c with s/c = tan(k pi/16).
TAN_POINTS = {
    f64: (  # generate.py TAN_POINTS_F64
        (
            0.0, 0.19725061626362464, 0.4138532997227156, 0.6650842742625529, 1.0,
            0.9953689575195312, 0.9991302490234375, 0.9916458129882812, 1.0, 0.9916458129882812,
            0.9991302490234375, 0.9953689575195312, 1.0, 0.6650842742625529, 0.4138532997227156,
            0.19725061626362464,
        ),
        (
            1.0, 0.9916458129882812, 0.9991302490234375, 0.9953689575195312, 1.0,
            0.6650842742625529, 0.4138532997227156, 0.19725061626362464, 0.0, -0.19725061626362464,
            -0.4138532997227156, -0.6650842742625529, -1.0, -0.9953689575195312,
            -0.9991302490234375, -0.9916458129882812,
        ),
    ),
    f32: (  # generate.py TAN_POINTS_F32
        (
            0.0, 0.19621335, 0.4141472, 0.6584852, 1.0, 0.9854927, 0.9998398, 0.9864311, 1.0,
            0.9864311, 0.9998398, 0.9854927, 1.0, 0.6584852, 0.4141472, 0.19621335,
        ),
        (
            1.0, 0.9864311, 0.9998398, 0.9854927, 1.0, 0.6584852, 0.4141472, 0.19621335, 0.0,
            -0.19621335, -0.4141472, -0.6584852, -1.0, -0.9854927, -0.9998398, -0.9864311,
        ),
    ),
}  # fmt: skip
SIN_PI = {  # of (sin(pi r)/pi - r) / r^3 in r^2
    f64: (  # generate.py SIN_PI_F64: error 2^-58.0
        -1.644934066848223, 0.8117424252823006, -0.1907518240125763, 0.026147842588882145,
        -0.002345954867193604, 0.00014693066616466375,
    ),
    f32: (  # generate.py SIN_PI_F32: error 2^-28.0
        -1.6449329, 0.8116271, -0.18759932,
    ),
}  # fmt: skip
COS_PI = {  # of (cos(pi r) - 1) / (pi r^2) in r^2
    f64: (  # generate.py COS_PI_F64: error 2^-62.3
        -1.5707963267948966, 1.2919281950124717, -0.4250273399771733, 0.07490806603647544,
        -0.008214584988125957, 0.0006141458037268745, -3.286239361703277e-05,
    ),
    f32: (  # generate.py COS_PI_F32: error 2^-30.9
        -1.5707964, 1.2919317, -0.42509395, 0.07474031,
    ),
}  # fmt: skip
SINC_SLOPE = {  # of sinc'(x) / x in x^2
    f64: (  # generate.py SINC_SLOPE_F64: error 2^-55.5
        -3.289868133696453, 3.2469697011333842, -1.1445109447300108, 0.20918278246276506,
        -0.023460809138021517, 0.0017811352445912892, -9.761404004278046e-05, 3.931703424445219e-06,
        -1.2116653252138857e-08,
    ),
    f32: (  # generate.py SINC_SLOPE_F32: error 2^-27.5
        -3.289868, 3.2469673, -1.1444571, 0.20874919, -0.022003083,
    ),
}  # fmt: skip
INVERSE_PI = {
    f64: (  # generate.py INVERSE_PI_F64
        0.3183098861837907, -1.9678676675182486e-17,
    ),
    f32: (  # generate.py INVERSE_PI_F32
        0.31830987, 1.28412765e-08,
    ),
}  # fmt: skip
SINC_ONE = {f64: 2.0**-30, f32: 2.0**-15}  # sinc rounds to 1 below
# 2/pi in words of 64 bits. The point is so far behind the start that 16 words are as many as large
# numbers of f64 begin at.
POINT = 48
WORDS = (  # generate.py TWO_OVER_PI
    41721,
    -8976150952983004121,
    6328108558839765858,
    -7667030629740839343,
    7182078928824153892,
    7942733794839103049,
    3380525265999167005,
    -1505133382990894974,
    3888065235147614620,
    8081344903596030353,
    -3010230482442609532,
    6884805333185404920,
    -7494027139313832145,
    1264203121234505014,
    9137565921952878406,
    4568513006801876263,
    -4987758689458111225,
    4176959266666212347,
    6895327196492617219,
)


def sin(x: Scalar) -> Scalar:
    from graphc.gates.trigonometric import sin_huge

    a = abs(x)
    r, r_low, quadrant = reduced(a)
    result = signed(of_quadrant(r, r_low, quadrant), quadrant, bitcast(x))
    return rare(a > LARGEST[x.dtype], sin_huge, (x, constant(x, 0.0)), result)


def cos(x: Scalar) -> Scalar:
    from graphc.gates.trigonometric import sin_huge

    a = abs(x)
    r, r_low, quadrant = reduced(a)
    # cos a = sin(a + pi/2); up to here it is what `sin` computes, too.
    quadrant = quadrant + 1
    result = signed(of_quadrant(r, r_low, quadrant), quadrant)
    return rare(a > LARGEST[x.dtype], sin_huge, (x, constant(x, 1.0)), result)


def tan(x: Scalar) -> Scalar:
    from graphc.gates.trigonometric import tan_huge

    ty = x.dtype
    r, r_low, k = reduced(x, SIXTEEN_OVER_PI, PI_16[ty])
    a = abs(x)
    result = select(a < ALMOST_X[ty], x, tangent(r, r_low, k))  # -0, too
    return rare(a > LARGEST[ty], tan_huge, (x,), result)


def tangent(r: Scalar, r_low: Scalar, k: Scalar) -> Scalar:
    """tan(k pi/16 + r + r_low) = (s + c t) / (c - s t) with t = tan(r + r_low), s/c = tan(k pi/16).

    s/c is exact to a thousandth of an ulp.
    """
    s, c = (lookup(k, row) for row in TAN_POINTS[r.dtype])
    z = r * r
    tail = fma(z * r, polynomial(z, z * z, TAN[r.dtype]), r_low)
    t = r + tail
    numerator, denominator = fma(c, t, s), fma(-s, t, c)
    reciprocal = 1.0 / denominator
    q = numerator * reciprocal
    # What is left of the numerator after this first quotient. Both have been rounded, and so was t:
    # the errors are what the exact s + c (r + tail) and c - s (r + tail) have above them.
    error = fma(c, r, s - numerator)
    of_denominator = fma(-s, r, c - denominator)
    left = fma(-q, denominator, numerator) + fma(-q, of_denominator, error)
    return fma(fma(tail, fma(q, s, c), left), reciprocal, q)


def reduced(
    a: Scalar,
    inverse: float = TWO_OVER_PI,
    parts: tuple[float, float, float] | None = None,
) -> tuple[Scalar, Scalar, Scalar]:
    """(r, r_low, a pattern whose lowest bits are n) with a = n p + r + r_low.

    p is pi/2, or the sum of `parts`; n is the integer nearest to a/p.
    """
    n, bits = nearest_integer(a, inverse)
    p1, p2, p3 = parts or HALF_PI[a.dtype]
    first = fma(
        n, -p1, a
    )  # exact: both are multiples of the last bit of p1, and they nearly cancel
    if a.dtype is f64:
        # n p2 is exact, by the few bits of p2. So is what is subtracted from `first`, and what
        # rounding lost.
        r = fma(n, -p2, first)
        return r, fma(n, -p3, fma(n, -p2, first - r)), bits
    # f32 has too few bits for that: the product is rounded, and its error taken along.
    product = n * p2
    r = first - product
    lost = (first - r) - product
    return r, fma(n, -p3, lost - fma(n, p2, -product)), bits


def of_quadrant(r: Scalar, r_low: Scalar, quadrant: Scalar) -> Scalar:
    """sin(r + r_low) in even quadrants, cos(r + r_low) in odd ones."""
    z = r * r
    zz = z * z
    sine = r + fma(z * r, polynomial(z, zz, SIN[r.dtype]), r_low)
    # cos = 1 - z/2 + z^2 C(z) - r r_low; `lost` is what rounding 1 - z/2 lost.
    upper = fma(z, -0.5, 1.0)
    lost = fma(z, -0.5, 1.0 - upper)
    cosine = upper + fma(zz, polynomial(z, zz, COS[r.dtype]), fma(r, -r_low, lost))
    return select(equal(quadrant & 1, 0), sine, cosine)


def signed(magnitude: Scalar, quadrant: Scalar, flip: Scalar | None = None) -> Scalar:
    """Minus in the quadrants 2 and 3, times the sign of the pattern `flip`."""
    width = 8 * magnitude.dtype.itemsize
    sign = quadrant << (width - 2)
    if flip is not None:
        sign = sign ^ flip
    return bitcast(bitcast(magnitude) ^ (sign & -(2 ** (width - 1))))


# -- sin(pi x) / (pi x) ---------------------------------------------------------------------


def sinc(x: Scalar) -> Scalar:
    """1 at 0, NaN at infinities, and exact to the last bits next to its zeros."""
    a = abs(x)
    sine, cosine, quadrant = sine_and_cosine_of_pi(a)
    even = equal(quadrant & 1, 0)
    h, h_low = (select(even, s, c) for s, c in zip(sine, cosine, strict=True))
    total = h + h_low
    total_low = h_low - (total - h)
    # A first quotient q, then what is left of the numerator, divided, too.
    reciprocal = 1.0 / a
    q = total * reciprocal
    left = fma(-q, a, total) + total_low
    result = signed(fma(left, reciprocal, q), quadrant)
    return select(a < SINC_ONE[x.dtype], 1.0, result)


def sinc_partial(x: Scalar) -> Scalar:
    """cos(pi x)/x - sin(pi x)/(pi x^2); a series up to 1/2, where these two cancel."""
    a = abs(x)
    sine, cosine, quadrant = sine_and_cosine_of_pi(a)
    even = equal(quadrant & 1, 0)
    # sin(pi x)/pi and cos(pi x)/pi, but for a sign.
    h, h_low = (select(even, s, c) for s, c in zip(sine, cosine, strict=True))
    g, g_low = (select(even, c, -s) for s, c in zip(sine, cosine, strict=True))
    reciprocal = 1.0 / a
    far = fma(g, math.pi, fma(g_low, math.pi, (h + h_low) * -reciprocal)) * reciprocal
    z = x * x
    near = x * polynomial(z, z * z, SINC_SLOPE[x.dtype])
    return select(a < 0.5, near, signed(far, quadrant, bitcast(x)))


def sine_and_cosine_of_pi(
    a: Scalar,
) -> tuple[tuple[Scalar, Scalar], tuple[Scalar, Scalar], Scalar]:
    """sin(pi r)/pi and cos(pi r)/pi as sums of two, and a pattern with n, for a = n/2 + r >= 0.

    The reduction is exact for every a; n is right modulo 4.
    """
    within_two = fma(floor(a * 0.5), -2.0, a)
    n, quadrant = nearest_integer(within_two, 2.0)
    r = fma(n, -0.5, within_two)
    z = r * r
    zz = z * z
    sine = r, (z * r) * polynomial(z, zz, SIN_PI[a.dtype])
    # 1/pi - pi/2 z, what rounding that and z lost, and the rest of the series.
    one, one_low = INVERSE_PI[a.dtype]
    slope, *rest = COS_PI[a.dtype]
    upper = fma(z, slope, one)
    lost = fma(fma(r, r, -z), slope, fma(z, slope, one - upper) + one_low)
    return sine, (upper, fma(zz, polynomial(z, zz, rest), lost)), quadrant


# -- arguments of any size ------------------------------------------------------------------


def sin_huge(x: Scalar, quarters: Scalar) -> Scalar:
    """The sine of x + quarters pi/2, in f64 for both dtypes; NaN for infinities."""
    wide = convert(x, f64)
    a = abs(wide)
    r, r_low, n = reduced_exactly(a, x.dtype)
    # sin(-a + t) = -sin(a - t)
    flip = bitcast(wide) & -(2**63)
    turns = bitcast(bitcast(convert(quarters, f64)) ^ flip)
    quadrant = n + bitcast(turns + ROUNDER[f64])
    result = signed(of_quadrant(r, r_low, quadrant), quadrant, flip)
    return convert(select(a < float("inf"), result, float("nan")), x.dtype)


def tan_huge(x: Scalar) -> Scalar:
    wide = convert(x, f64)
    a = abs(wide)
    half_r, half_low, n = reduced_exactly(a, x.dtype)
    r, r_low, k = reduced(half_r, SIXTEEN_OVER_PI, PI_16[f64])
    result = signed(tangent(r, r_low + half_low, k + (n << 3)), n & 0, bitcast(wide))
    return convert(select(a < float("inf"), result, float("nan")), x.dtype)


def reduced_exactly(a: Scalar, of: DType) -> tuple[Scalar, Scalar, Scalar]:
    """(r, r_low, n) with a = n pi/2 + r + r_low up to multiples of 2 pi, for an f64 a that is a
    number of the dtype `of`, finite and at least 2^6.
    """
    h, h_low, n = quarters_of(a) if of is f64 else quarters_of_short(a)
    p1, p2 = HALF_PI_PAIR
    product = h * p1
    r, r_low = two_sum(product, fma(h, p1, -product) + fma(h, p2, h_low * p1))
    return r, r_low, n


def quarters_of(a: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(h, h_low, n) with a 2/pi = n + h + h_low up to multiples of 4.

    a = m 2^e with an integer m of 53 bits. Bits of 2/pi that m 2^e lifts to multiples of 4 do not
    matter, bits far below do not either: 192 bits in between make 126 fraction bits of n + fraction
    = a 2/pi, and no double is nearer than about 2^-62 to a multiple of pi/2.
    """
    bits = bitcast(a)
    m = (bits & (2**52 - 1)) | 2**52
    # Bit i after the point of 2/pi weighs 2^(e-i) in the product with m: start at i = e - 1, with
    # the weight 2; what is above is a multiple of 4.
    high, middle, low = window(lshr(bits, 52) - (1023 + 52 + 2 - POINT))
    # The product with m, modulo 2^192, without its lowest word.
    _, upper = product_of(m, low)
    fraction_low, upper = product_of(m, middle, upper)
    fraction = upper + m * high
    # Two bits of n stand on top; n is rounded to nearest, so that the rest is a signed fraction.
    n = lshr(fraction + 2**61, 62)
    fraction = (fraction << 2) | lshr(fraction_low, 62)
    # (fraction + fraction_low 2^-62) 2^-64 as a sum of two floats.
    f1, f2 = convert(fraction >> 32, f64) * 2.0**-32, convert(fraction & HALF_WORD, f64)
    upper, upper_low = two_sum(f1, f2 * 2.0**-64)
    lower = convert(fraction_low & (2**62 - 1), f64)
    return *two_sum(upper, fma(lower, 2.0**-126, upper_low)), n


def quarters_of_short(a: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """The same for a number of f32: products of its 24 bits and 29 of 2/pi are floats of f64.

    It is short by less than 2^-83, and no number of f32 is nearer than 2^-31 to a multiple of pi/2.
    """
    bits = bitcast(a)
    # a = 2^(8k+8) m with 2^-7 <= m < 2, a multiple of 2^-30. The last four bits of `octave` are k.
    octave = lshr(bits, 52 + 3)
    m = bitcast((bits & (2**55 - 1)) | (1023 - 7) << 52)
    # Bit i of 2/pi weighs 2^(8k+8-i) in the product with m: up to i = 8k-24 it is a multiple of 4.
    q0, q1, q2, q3 = (
        m * lookup(octave, [bits_of_two_over_pi(8 * k - 24 + 29 * i, 29) * 2.0 ** (8 * k + 8)
                            for k in range(16)])
        for i in range(4)
    )  # fmt: skip
    q0 = fma(rint(q0 * 0.25), -4.0, q0)
    n, pattern = nearest_integer(q0 + q1, 1.0)
    # Exact: a multiple of the last bit of q1, and below 1.
    f = (q0 - n) + q1
    h = f + q2
    of_q2 = h - f
    h_low = (f - (h - of_q2)) + (q2 - of_q2)
    return h, h_low + q3, pattern


def bits_of_two_over_pi(start: int, count: int) -> float:
    """Those behind the first `start` bits after the point; there are zeros before these."""
    whole = sum((w & (2**64 - 1)) << 64 * i for i, w in enumerate(reversed(WORDS)))
    end = 64 * len(WORDS) - POINT - start - count
    return math.ldexp((whole >> end) & (2**count - 1), -start - count)


def window(position: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """192 bits of 2/pi from a position on, below 2^10."""
    word, shift = lshr(position, 6), position & 63
    entries = [from_bits(w & (2**64 - 1), f64) for w in WORDS]
    words = [bitcast(lookup(word, entries[i : i + 16])) for i in range(4)]
    # Two shifts to the right, as 64 - shift may be 64.
    high, middle, low = (
        (upper << shift) | lshr(lshr(lower, 1), 63 - shift)
        for upper, lower in zip(words, words[1:])
    )
    return high, middle, low


def halves(word: Scalar) -> tuple[Scalar, Scalar]:
    """The upper and the lower 32 bits."""
    return lshr(word, 32), word & HALF_WORD


def product_of(m: Scalar, word: Scalar, carried: Scalar | None = None) -> tuple[Scalar, Scalar]:
    """The lower and the upper word of m * word + carried, unsigned, for m of 53 bits."""
    (m_high, m_low), (high, low) = halves(m), halves(word)
    first, second = m_low * low, m_high * low
    if carried is not None:
        carried_high, carried_low = halves(carried)
        first, second = first + carried_low, second + carried_high
    second = second + lshr(first, 32)
    third = m_low * high + (second & HALF_WORD)
    upper = m_high * high + lshr(second, 32) + lshr(third, 32)
    return (third << 32) | (first & HALF_WORD), upper


def two_sum(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """a + b and what its rounding lost, for a that is 0 or not below b in magnitude (Dekker)."""
    total = a + b
    return total, b - (total - a)
